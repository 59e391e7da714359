"""Sessions in the runtime directory: across processes, forks and crashes, with real files and real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from wireguard_pair import SOURCE, Pair

from raptor_s3.errors import AuthenticationFailed, SessionExpired
from raptor_s3.net import clock, session_file
from raptor_s3.net.counter_lease import LEASE_VALID_S, MAX_LAG, MAX_LEASE, MIN_LEASE
from raptor_s3.net.session_store import SessionStore, endpoint_id
from raptor_s3.wireguard.constants import REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME
from raptor_s3.wireguard.session import Session

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

ENDPOINT = "gateway.example.com_51820-server-client"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.clock = clock.now()
    return pair


def saved(pair: Pair, directory: Path) -> Session:
    session = pair.shake_hands()
    assert SessionStore(directory).save(ENDPOINT, session, pair.clock)
    return session


def counter_of(message: bytes) -> int:
    return int.from_bytes(message[8:16], "little")


def loaded(directory: Path, now: float) -> Session:
    session = SessionStore(directory).load(ENDPOINT, now)
    assert session is not None
    return session


def in_child(function: Callable[[], bytes]) -> bytes:
    """What `function` returns in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, function())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        result = file.read()
    os.waitpid(pid, 0)
    return result


PREAMBLE = f"""
import os, sys, time
from raptor_s3.net import clock
from raptor_s3.net.session_store import SessionStore
store = SessionStore(sys.argv[1])
endpoint = {ENDPOINT!r}
def counter(message): return int.from_bytes(message[8:16], 'little')
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PREAMBLE + program, *arguments], capture_output=True, text=True, timeout=60)


def test_another_process_goes_on_with_the_session(pair: Pair, directory: Path) -> None:
    saved(pair, directory)
    program = "session = store.load(endpoint, clock.now()); print(session.seal(b'from another process', clock.now()).hex())"
    message = bytes.fromhex(run(program, str(directory)).stdout)
    assert pair.deliver(message).plaintext == b"from another process"


def test_files_are_private(pair: Pair, directory: Path) -> None:
    previous = os.umask(0)
    try:
        saved(pair, directory)
        SessionStore(directory).save_learned(ENDPOINT, {"srtt": 0.1})
    finally:
        os.umask(previous)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert sorted(path.suffix for path in directory.iterdir()) == [".json", ".lock", ".session"]
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_times_are_translated_between_clocks(pair: Pair, directory: Path) -> None:
    """`now` may be any clock: the age is what counts, and it goes on while nobody looks."""
    session = pair.shake_hands()
    SessionStore(directory).save(ENDPOINT, session, pair.clock + 100)
    there = SessionStore(directory).load(ENDPOINT, 5000.0)
    assert there is not None
    assert 100.0 <= 5000.0 - there.created_at < 110.0
    assert there.needs_rekey(5000.0 + 20)


def test_no_counter_is_used_twice_by_several_users(pair: Pair, directory: Path) -> None:
    sessions = [saved(pair, directory), *(loaded(directory, pair.clock) for _ in range(3))]
    counters = [counter_of(session.seal(b"x", pair.clock)) for _ in range(300) for session in sessions]
    assert len(set(counters)) == len(counters) == 1200
    # And no user falls out of the receiver's window.
    highest = -1
    for counter in counters:
        assert counter > highest - 8128
        highest = max(highest, counter)


def test_one_user_leaves_no_gaps(pair: Pair, directory: Path) -> None:
    session = saved(pair, directory)
    assert [counter_of(session.seal(b"x", pair.clock)) for _ in range(5000)] == list(range(5000))


def test_arena_larger_than_a_lease(pair: Pair, directory: Path) -> None:
    session, other = saved(pair, directory), loaded(directory, pair.clock)
    count = MAX_LEASE * 2
    out = bytearray(count * 33)
    session.seal_arena(bytes(count), count, 1, 1, out, pair.clock)
    counters = [counter_of(out[i * 33 : (i + 1) * 33]) for i in range(count)]
    assert counters == list(range(counters[0], counters[0] + count))
    assert counter_of(other.seal(b"x", pair.clock)) not in set(counters)


def test_resting_user_is_not_left_behind(pair: Pair, directory: Path) -> None:
    slow, fast = saved(pair, directory), loaded(directory, pair.clock)
    first = counter_of(slow.seal(b"x", pair.clock))
    last = 0
    for _ in range(9000):
        last = counter_of(fast.seal(b"x", pair.clock))
    assert last - first > 8128
    pair.clock += LEASE_VALID_S
    after = counter_of(slow.seal(b"x", pair.clock))
    assert after > last - MAX_LAG


def test_resting_user_keeps_its_range_while_nobody_else_sends(pair: Pair, directory: Path) -> None:
    session = saved(pair, directory)
    counters = []
    for _ in range(20):
        counters.append(counter_of(session.seal(b"x", pair.clock)))
        pair.clock += 1.0
    assert counters == list(range(20))


KILLED = """
import signal
session = store.load(endpoint, clock.now())
for number in range(int(sys.argv[2])):
    print(counter(session.seal(b'x', clock.now())), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_counter_is_used_twice_after_kill_9(pair: Pair, directory: Path) -> None:
    saved(pair, directory)
    counters: list[int] = []
    for count in ("1", "100", "5"):
        result = run(KILLED, str(directory), count)
        assert result.returncode == -signal.SIGKILL
        counters += map(int, result.stdout.split())
    counters.append(counter_of(loaded(directory, pair.clock).seal(b"x", pair.clock)))
    assert len(counters) == 107
    assert len(set(counters)) == len(counters)


RACING = """
session = store.load(endpoint, clock.now())
print('ready', flush=True); sys.stdin.readline()
counters = []
for number in range(2000):
    counters.append(counter(session.seal(b'x', clock.now())))
print(*counters)
"""


def test_no_counter_is_used_twice_by_racing_processes(pair: Pair, directory: Path) -> None:
    saved(pair, directory)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + RACING, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    counters: list[int] = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        output, _ = racer.communicate(timeout=60)
        counters += map(int, output.split())
    assert len(counters) == 6000
    assert len(set(counters)) == 6000


def test_no_counter_is_used_twice_by_racing_threads(pair: Pair, directory: Path) -> None:
    saved(pair, directory)
    counters: list[int] = []

    def work() -> None:
        session = loaded(directory, pair.clock)
        mine = [counter_of(session.seal(b"x", pair.clock)) for _ in range(500)]
        counters.extend(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(counters)) == len(counters) == 2000


@needs_fork
@pytest.mark.parametrize("kind", ["stored", "loaded", "memory only"])
def test_fork_revokes_the_childs_copy(pair: Pair, directory: Path, kind: str) -> None:
    if kind == "memory only":
        session = pair.shake_hands()
        assert not SessionStore(None).save(ENDPOINT, session, pair.clock)
    else:
        session = saved(pair, directory)
        if kind == "loaded":
            session = loaded(directory, pair.clock)
    before = counter_of(session.seal(b"x", pair.clock))

    def child() -> bytes:
        try:
            session.seal(b"x", pair.clock)
        except SessionExpired:
            assert not SessionStore(directory).save(ENDPOINT, session, pair.clock), "a revoked session was stored"
            again = SessionStore(directory).load(ENDPOINT, pair.clock)
            return b"%d" % counter_of(again.seal(b"x", pair.clock)) if again else b"nothing stored"
        return b"sealed under the parent's counters"

    result = in_child(child)
    after = counter_of(session.seal(b"x", pair.clock))
    assert after == before + 1
    if kind == "memory only":
        assert result == b"nothing stored"
    else:
        assert int(result) not in {before, after}


def test_received_counters_stay_received(pair: Pair, directory: Path) -> None:
    session = saved(pair, directory)
    responder = pair.deliver(session.seal(b"request", pair.clock)).session
    replies = [responder.seal(b"%d" % number, pair.clock) for number in range(5)]
    for number in (0, 1, 3):
        session.open(replies[number], pair.clock)
    SessionStore(directory).note_received(ENDPOINT, session)
    later = loaded(directory, pair.clock)
    for number in (0, 1, 2, 3):
        with pytest.raises(AuthenticationFailed):
            later.open(replies[number], pair.clock)
    assert later.open(replies[4], pair.clock) == b"4"
    SessionStore(directory).note_received(ENDPOINT, session)
    assert loaded(directory, pair.clock).highest_received == 3, "never lowered, raised only by who received"


def test_received_counters_are_kept_with_each_reservation(pair: Pair, directory: Path) -> None:
    session = saved(pair, directory)
    responder = pair.deliver(session.seal(b"request", pair.clock)).session
    session.open(responder.seal(b"reply", pair.clock), pair.clock)
    for _ in range(MIN_LEASE + 1):
        session.seal(b"x", pair.clock)
    assert loaded(directory, pair.clock).highest_received == 0


def test_newer_session_replaces_the_old_one(pair: Pair, directory: Path) -> None:
    old = saved(pair, directory)
    store = SessionStore(directory)
    assert store.load_newer(ENDPOINT, old, pair.clock) is None
    new = saved(pair, directory)
    newer = store.load_newer(ENDPOINT, old, pair.clock)
    assert newer is not None
    assert newer.local_index == new.local_index
    store.note_received(ENDPOINT, old)
    store.forget(ENDPOINT, old)
    assert store.load(ENDPOINT, pair.clock) is not None
    store.forget(ENDPOINT, new)
    assert store.load(ENDPOINT, pair.clock) is None


def test_replaced_sessions_go_on_for_those_in_the_middle_of_something(pair: Pair, directory: Path) -> None:
    first = saved(pair, directory)
    users = [first, loaded(directory, pair.clock)]
    for _ in range(2):
        saved(pair, directory)
        users += [loaded(directory, pair.clock)]
    for _ in range(3):
        pair.clock += LEASE_VALID_S
        counters = [[counter_of(user.seal(b"x", pair.clock)) for _ in range(2 * MIN_LEASE)] for user in users]
        assert not set(counters[0]) & set(counters[1])
        for user_counters in counters:
            assert len(set(user_counters)) == 2 * MIN_LEASE
    for user in users:
        assert pair.deliver(user.seal(b"still here", pair.clock)).plaintext == b"still here"


def test_saving_again_does_not_turn_counters_back(pair: Pair, directory: Path) -> None:
    session = saved(pair, directory)
    other = loaded(directory, pair.clock)
    used = {counter_of(other.seal(b"x", pair.clock)) for _ in range(500)}
    assert SessionStore(directory).save(ENDPOINT, session, pair.clock)
    assert not used & {counter_of(session.seal(b"x", pair.clock)) for _ in range(500)}


def test_counters_used_before_saving_are_not_given_out_again(pair: Pair, directory: Path) -> None:
    session = pair.shake_hands()
    used = [counter_of(session.seal(b"x", pair.clock)) for _ in range(10)]
    SessionStore(directory).save(ENDPOINT, session, pair.clock)
    used += [counter_of(each.seal(b"x", pair.clock)) for each in (session, loaded(directory, pair.clock))]
    assert len(set(used)) == 12


def test_responders_are_not_stored(pair: Pair, directory: Path) -> None:
    responder = pair.deliver(pair.shake_hands().seal(b"x", pair.clock)).session
    with pytest.raises(ValueError, match="initiator"):
        SessionStore(directory).save(ENDPOINT, responder, pair.clock)


def test_expired_sessions_are_removed(pair: Pair, directory: Path) -> None:
    saved(pair, directory)
    path = directory / f"{ENDPOINT}.session"
    assert path.exists()
    assert SessionStore(directory).load(ENDPOINT, pair.clock + REJECT_AFTER_TIME - 1) is not None
    state = session_file.parse(path.read_bytes())
    assert state is not None
    os.utime(path)
    expired = session_file.SessionState(
        state.local_index, state.remote_index, state.peer_key, state.send_key, state.receive_key, clock.now() - 180.0, True
    )
    path.write_bytes(session_file.build(expired, path.stat()))
    assert SessionStore(directory).load(ENDPOINT, pair.clock) is None
    assert not path.exists(), "expired keys must not lie about"


def test_keys_of_other_endpoints_are_swept(pair: Pair, directory: Path) -> None:
    other = saved(pair, directory)
    old = directory / f"{ENDPOINT}.session"
    stale = old.rename(directory / "other.session")
    stale.write_bytes(session_file.build(other.export()._replace(created_at=clock.now() - REJECT_AFTER_TIME), stale.stat()))
    unfinished = directory / "other.session.1.2.tmp"
    unfinished.touch(0o600)
    for path in (stale, unfinished):
        os.utime(path, (time.time() - 1000, time.time() - 1000))
    saved(pair, directory)
    assert {path.name for path in directory.iterdir()} == {f"{ENDPOINT}.session", f"{ENDPOINT}.lock"}


def test_any_damage_means_no_session(pair: Pair, directory: Path) -> None:
    session = saved(pair, directory)
    path = directory / f"{ENDPOINT}.session"
    good = path.read_bytes()
    assert len(good) == session_file.SIZE
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes((good[position] ^ 0x41,)) + good[position + 1 :])
        assert SessionStore(directory).load(ENDPOINT, pair.clock) is None, position
    for content in (b"", good[:-1], good + b"\0", good[:8], bytes(len(good)), b"{}", os.urandom(500)):
        path.write_bytes(content)
        assert SessionStore(directory).load(ENDPOINT, pair.clock) is None
    pair.clock += LEASE_VALID_S
    with pytest.raises(SessionExpired, match="replaced or damaged"):
        session.seal(b"x", pair.clock)


def test_sessions_of_another_boot_are_ignored(pair: Pair, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(pair, directory)
    monkeypatch.setattr(clock, "boot_id", lambda: bytes(16))
    assert SessionStore(directory).load(ENDPOINT, pair.clock) is None
    saved(pair, directory)
    assert SessionStore(directory).load(ENDPOINT, pair.clock) is not None


def test_sessions_of_the_future_are_ignored(pair: Pair, directory: Path) -> None:
    """As after a restore from a snapshot: the boot is the same, the clock is not."""
    session = pair.shake_hands()
    SessionStore(directory).save(ENDPOINT, session, pair.clock - 60)
    assert SessionStore(directory).load(ENDPOINT, pair.clock) is None


def test_jumps_of_the_wall_clock_are_harmless(pair: Pair, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(pair, directory)
    for jump in (-1e9, 1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
        there = loaded(directory, pair.clock)
        assert there.created_at == pytest.approx(pair.clock, abs=30.0)


def test_estimated_boot_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not name its boots."""
    monkeypatch.setattr(clock, "_BOOT_ID_PATH", "/nonexistent")
    clock.boot_id.cache_clear()
    try:
        first = clock.boot_id()
        assert len(first) == 16
        assert clock.is_this_boot(first)
        clock.boot_id.cache_clear()
        booted_later = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: booted_later)
        assert not clock.is_this_boot(first)
        assert not clock.is_this_boot(bytes(16))
    finally:
        clock.boot_id.cache_clear()


def test_used_up_counters(pair: Pair, directory: Path) -> None:
    saved(pair, directory)
    path = directory / f"{ENDPOINT}.session"
    content = path.read_bytes()
    nearly = session_file.Counters(REJECT_AFTER_MESSAGES - 10, 5).build()
    path.write_bytes(content[: session_file.COUNTERS_OFFSET] + nearly)
    session = loaded(directory, pair.clock)
    with pytest.raises(SessionExpired, match="used up"):
        session.seal(b"x", pair.clock)


@pytest.mark.parametrize("highest", [-1, 0, 2**63 - 1, 2**63, REJECT_AFTER_MESSAGES - 1])
def test_any_counter_that_a_peer_may_use_can_be_stored(highest: int) -> None:
    counters = session_file.Counters(7, highest)
    assert session_file.Counters.parse(counters.build()) == counters


def test_endpoint_ids() -> None:
    one = endpoint_id("gateway.example.com", 51820, b"\xff" * 32, b"\xfe" * 32)
    assert one == endpoint_id("gateway.example.com", 51820, b"\xff" * 32, b"\xfe" * 32)
    others = {
        endpoint_id("gateway.example.com", 51821, b"\xff" * 32, b"\xfe" * 32),
        endpoint_id("other.example.com", 51820, b"\xff" * 32, b"\xfe" * 32),
        endpoint_id("gateway.example.com", 51820, b"\xfd" * 32, b"\xfe" * 32),
        endpoint_id("gateway.example.com", 51820, b"\xff" * 32, b"\xfd" * 32),
        endpoint_id("::1", 51820, b"\xff" * 32, b"\xfe" * 32),
        endpoint_id("../../etc/passwd", 51820, b"\xff" * 32, b"\xfe" * 32),
        endpoint_id("x" * 1000, 51820, b"\xff" * 32, b"\xfe" * 32),
    }
    assert len(others | {one}) == 8
    store = SessionStore(None)
    for name in others | {one}:
        assert "/" not in name
        assert store.load_learned(name) == {}
    for bad in ("", "a/b", "..\\x", "x" * 300, "a\n"):
        with pytest.raises(ValueError, match="endpoint id"):
            SessionStore(None)._path(bad, "session")


def test_memory_only(pair: Pair) -> None:
    store = SessionStore(None)
    session = pair.shake_hands()
    assert store.load(ENDPOINT, pair.clock) is None
    assert not store.save(ENDPOINT, session, pair.clock)
    assert pair.deliver(session.seal(b"x", pair.clock), SOURCE).plaintext == b"x"
    store.note_received(ENDPOINT, session)
    store.forget(ENDPOINT, session)
    assert store.claim_handshake(ENDPOINT)
    assert store.next_unix_time(ENDPOINT, 5.0) == 5.0
