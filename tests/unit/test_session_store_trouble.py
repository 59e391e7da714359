"""No counter is used twice, and no put suffers, whatever goes wrong in the runtime directory, and whenever."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from raptor_s3.errors import SessionExpired
from raptor_s3.net import clock, counter_lease, runtime_dir, session_file, session_store
from raptor_s3.net.counter_lease import KEPT, LEASE_VALID_S, MAX_LEASE_ALONE, MIN_LEASE
from raptor_s3.net.session_store import SessionStore
from raptor_s3.wireguard import counters as counters_module
from raptor_s3.wireguard.constants import REJECT_AFTER_TIME
from raptor_s3.wireguard.counters import CounterRange, Reservation
from raptor_s3.wireguard.session import Session, SessionState

ENDPOINT = "gateway.example.com_51820-server-client"
FULL_DISK = OSError(errno.ENOSPC, "No space left on device")
TRACED = {module.__file__ for module in (contextlib, counter_lease, runtime_dir, session_file, session_store, counters_module)}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


def new_session(now: float) -> Session:
    """As a handshake makes it; the peer is of no interest here."""
    index = int.from_bytes(os.urandom(4), "little")
    return Session.restore(SessionState(index, 1, bytes(32), os.urandom(32), os.urandom(32), now, True))


def loaded(directory: Path, now: float) -> Session:
    session = SessionStore(directory).load(ENDPOINT, now)
    assert session is not None
    return session


def saved(directory: Path, now: float) -> Session:
    session = new_session(now)
    assert SessionStore(directory).save(ENDPOINT, session, now)
    return session


def take(session: Session, count: int, now: float) -> list[int]:
    """Counters until there are no more."""
    taken: list[int] = []
    for _ in range(count):
        try:
            taken.append(session.counters.take(1, now))
        except SessionExpired:
            break
    return taken


def raise_at(step: int, error: BaseException, function: Callable[[], object]) -> bool:
    """Call `function`, with `error` before its bytecode number `step`; whether it came so far."""
    left = step

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in TRACED:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise error
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except (KeyboardInterrupt, OSError):
        pass
    finally:
        sys.settrace(previous)
    return left < 0


def at_each_step(error: BaseException, prepare: Callable[[], Callable[[], object]]) -> Iterator[int]:
    step = 0
    while raise_at(step, error, prepare()):
        yield step
        step += 1
    assert step > 10


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FULL_DISK], ids=["ctrl-c", "full disk"])
def test_saving_fails_at_any_step(tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process and another one go on with the session, as far as they can."""
    monkeypatch.setattr(counter_lease, "PATIENCE_S", 0.001)
    monkeypatch.setattr(counter_lease, "LOCK_TIMEOUT_S", 0.001)
    now = clock.now()
    session, directory = new_session(now), tmp_path
    number = 0

    def prepare() -> Callable[[], object]:
        nonlocal session, directory, number
        number += 1
        directory = tmp_path / str(number)
        session = new_session(now)
        store = SessionStore(directory)
        assert take(session, 3, now) == [0, 1, 2]
        assert store.claim_handshake(ENDPOINT)
        return lambda: store.save(ENDPOINT, session, now)

    shared = private = 0
    for step in at_each_step(error, prepare):
        other = SessionStore(directory).load(ENDPOINT, now)
        mine = take(session, 2 * MIN_LEASE, now)
        others = take(other, 2 * MIN_LEASE, now) if other else []
        mine += take(session, 2 * MIN_LEASE, now)
        assert not set(mine) & set(others), step
        assert not set(mine) & {0, 1, 2}
        assert len(set(mine)) == len(mine)
        shared += bool(others)
        private += len(mine) == 4 * MIN_LEASE and not session.counters.is_shared
        shutil.rmtree(directory)
    assert shared
    assert private, "where it is certain that nobody else knows the session, it goes on"


def test_a_claim_that_can_not_be_cleared_does_not_matter(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise FULL_DISK

    monkeypatch.setattr(session_store, "_write_lock_state", fail)
    now = clock.now()
    session = saved(directory, now)
    assert session.counters.is_shared
    assert not set(take(session, 200, now)) & set(take(loaded(directory, now), 200, now))


def test_taking_is_interrupted_at_any_step() -> None:
    """Between the range that is used up and the next one lie another process's counters."""
    counters = CounterRange()

    def prepare() -> Callable[[], object]:
        nonlocal counters
        ranges = iter([Reservation(500, 600, 1.0), Reservation(900, 1000, 1.0)])
        counters = CounterRange(10, 20, valid_until=1.0, reserve=lambda *_: next(ranges))
        assert counters.take(10, 0.0) == 10
        return lambda: counters.take(5, 0.0)

    for step in at_each_step(KeyboardInterrupt(), prepare):
        taken = [counters.take(5, 0.0) for _ in range(4)]
        assert all(500 <= first < 600 or 900 <= first < 1000 for first in taken), step


def test_reserving_is_interrupted_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter_lease, "PATIENCE_S", 0.001)
    monkeypatch.setattr(counter_lease, "LOCK_TIMEOUT_S", 0.001)
    now = clock.now()
    session, used, number = new_session(now), list[int](), 0
    other = session

    def prepare() -> Callable[[], object]:
        nonlocal session, other, used, number
        number += 1
        session = saved(tmp_path / str(number), now)
        other = loaded(tmp_path / str(number), now)
        used = take(session, MIN_LEASE - KEPT, now) + take(other, 1, now)
        return lambda: session.counters.take(1, now)

    for step in at_each_step(KeyboardInterrupt(), prepare):
        used += take(session, 300, now) + take(other, 300, now)
        shutil.rmtree(tmp_path / str(number))
        for _ in range(2):  # with nothing but what is kept
            used += take(session, 3000, now) + take(other, 3000, now)
        assert len(set(used)) == len(used), step


def test_copies_of_the_directory_have_no_sessions(directory: Path, tmp_path: Path) -> None:
    now = clock.now()
    session = saved(directory, now)
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)  # as `cp -a`, and as a container's image does
    assert SessionStore(copy).load(ENDPOINT, now) is None
    assert SessionStore(copy).save(ENDPOINT, new_session(now), now), "and it can be used like any other"
    assert loaded(copy, now).local_index != session.local_index
    moved = directory.rename(tmp_path / "moved")
    assert loaded(moved, now).local_index == session.local_index


def test_a_copy_in_place_of_the_file_has_no_counters(directory: Path) -> None:
    now = clock.now()
    session = saved(directory, now)
    path = directory / f"{ENDPOINT}.session"
    backup = shutil.copy2(path, directory / "backup")
    used = take(session, 500, now)
    other = loaded(directory, now)
    used += take(other, 500, now)
    os.replace(backup, path)
    used += take(session, 5000, now) + take(other, 5000, now)
    assert SessionStore(directory).load(ENDPOINT, now) is None
    assert len(set(used)) == len(used)


def test_counters_that_were_turned_back_are_not_believed(directory: Path) -> None:
    """Who writes an old content into the file deceives those that come, not those that are there."""
    now = clock.now()
    session = saved(directory, now)
    path = directory / f"{ENDPOINT}.session"
    content = path.read_bytes()
    used = take(session, 500, now)
    path.write_bytes(content)
    now += LEASE_VALID_S
    with pytest.raises(SessionExpired, match="turned back"):
        session.counters.take(1, now)
    assert len(set(used)) == 500


@pytest.mark.skipif(sys.platform != "linux", reason="container images")
def test_containers_of_one_image_do_not_share_sessions(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other they get the same device number, and the image's inodes: what differs is when they began."""
    init = tmp_path / "stat"
    monkeypatch.setattr(session_file, "_INIT_PATH", str(init))
    real = os.fstat(0).st_dev

    def session_of(device: int, began: int, store: Callable[[], object]) -> object:
        init.write_text(f"1 (an (odd) name) S 0 1 1 {' 0' * 15} {began} 0 0")
        session_file._container.cache_clear()
        monkeypatch.setattr(os, "major", lambda _: device >> 8)
        return store()

    now = clock.now()
    try:
        session_of(39, 1000, lambda: saved(directory, now))
        assert session_of(39, 1000, lambda: SessionStore(directory).load(ENDPOINT, now))
        assert not session_of(39, 2000, lambda: SessionStore(directory).load(ENDPOINT, now))
        session_of(0x801, 1000, lambda: saved(directory, now))
        assert session_of(0x801, 2000, lambda: SessionStore(directory).load(ENDPOINT, now)), "a volume that they share"
        init.unlink()
        session_file._container.cache_clear()
        assert session_file._container() == 0
    finally:
        session_file._container.cache_clear()
    assert real == os.fstat(0).st_dev


def remove(directory: Path) -> None:
    shutil.rmtree(directory)


def clean(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def open_up(directory: Path) -> None:
    for path in directory.iterdir():
        path.chmod(0o644)


def lock(directory: Path) -> None:
    descriptor = os.open(directory / f"{ENDPOINT}.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


@pytest.mark.parametrize("trouble", [remove, clean, open_up, lock])
def test_a_put_goes_on_with_what_is_held(
    directory: Path, trouble: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when that is used up, one refusal lets it look for other keys; its cancels can still be sealed."""
    monkeypatch.setattr(counter_lease, "PATIENCE_S", 0.01)
    monkeypatch.setattr(counter_lease, "LOCK_TIMEOUT_S", 0.01)
    now = clock.now()
    session = saved(directory, now)
    taken: list[int] = []
    for _ in range(1000):
        now += LEASE_VALID_S / 4
        taken.append(session.counters.take(10, now))
    descriptors = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    trouble(directory)
    started = time.monotonic()
    while True:
        now += LEASE_VALID_S / 4
        try:
            taken.append(session.counters.take(10, now))
        except SessionExpired:
            break
    assert time.monotonic() - started < 5.0, "the lock is not waited for while there are counters"
    assert taken == [10 * number for number in range(len(taken))]
    assert len(taken) * 10 - 10_000 >= MAX_LEASE_ALONE * 3 // 4
    last = taken[-1] + 10
    with pytest.raises(SessionExpired):
        session.counters.take(10, now)
    cancels = take(session, 100, now)
    assert KEPT <= len(cancels) < KEPT + 10
    assert cancels == list(range(last, last + len(cancels)))
    if sys.platform == "linux":
        for name in set(os.listdir("/proc/self/fd")) - descriptors:
            try:
                os.close(int(name))
            except OSError:
                pass


def test_a_lock_that_is_held_for_a_moment_is_waited_for(directory: Path) -> None:
    """By a put that has begun and has nothing left, for about a second; by others for a tenth of one."""
    now = clock.now()
    session = saved(directory, now)
    fresh = loaded(directory, now)
    session.counters.take(MIN_LEASE - KEPT, now)
    with runtime_dir.locked(str(directory / f"{ENDPOINT}.lock")):
        for user, least_s, most_s in ((session, 0.9, 3.0), (session, 0.09, 0.8), (fresh, 0.09, 0.8)):
            started = time.monotonic()
            with pytest.raises(SessionExpired, match="stayed locked"):
                user.counters.take(10, now)
            assert least_s < time.monotonic() - started < most_s
    assert session.counters.take(10, now) == MIN_LEASE - KEPT, "and then it is as before"


def test_who_comes_in_does_not_find_others_out_of_the_window(directory: Path) -> None:
    """However much one reserves ahead while it is alone."""
    now = clock.now()
    session = saved(directory, now)
    for _ in range(2000):
        now += LEASE_VALID_S
        first = session.counters.take(10, now)
    other = loaded(directory, now)
    assert other.counters.take(1, now) - first < counter_lease.MAX_LAG


@pytest.mark.parametrize(("age_s", "is_kept"), [(10.0, True), (REJECT_AFTER_TIME, False)])
def test_sweeping_does_not_rely_on_the_wall_clock(directory: Path, age_s: float, is_kept: bool) -> None:
    """It may jump, as when a machine without a battery hears of the time: other endpoints' sessions are as young as before."""
    now = clock.now()
    other = saved(directory, now)
    path = (directory / f"{ENDPOINT}.session").rename(directory / "other.session")
    path.write_bytes(session_file.build(other.export()._replace(created_at=now - age_s), path.stat()))
    os.utime(path, (1.0, 1.0))
    saved(directory, now)
    assert path.exists() == is_kept
