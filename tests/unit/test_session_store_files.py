"""The runtime directory: where it is, who may read it, what a full disk or a stuck lock does; and the learned records."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from wireguard_pair import Pair

from raptor_s3.errors import ConfigError
from raptor_s3.net import clock, session_store
from raptor_s3.net.runtime_dir import default_runtime_dir, locked
from raptor_s3.net.session_store import MAX_LEARNED_BYTES, SessionStore

ENDPOINT = "gateway.example.com_51820-server-client"
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def stored(directory: Path) -> Path:
    """The file of a stored session."""
    pair = Pair()
    pair.clock = clock.now()
    assert SessionStore(directory).save(ENDPOINT, pair.shake_hands(), pair.clock)
    return directory / f"{ENDPOINT}.session"


def test_where_the_directory_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, runtime, explicit = (tmp_path / name for name in ("home", "runtime", "explicit"))
    for path in (home, runtime):
        path.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("RAPTOR_RUNTIME_DIR", raising=False)
    assert default_runtime_dir() == str(home / ".cache" / "raptor-s3" / "run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert default_runtime_dir() == str(home / ".cache" / "raptor-s3" / "run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert default_runtime_dir() == str(runtime / "raptor-s3")
    monkeypatch.setenv("RAPTOR_RUNTIME_DIR", str(explicit))
    assert default_runtime_dir() == str(explicit)
    monkeypatch.setenv("RAPTOR_RUNTIME_DIR", "~/here")
    assert default_runtime_dir() == str(home / "here")
    SessionStore()
    assert (home / "here").stat().st_mode & 0o777 == 0o700


@as_root
def test_other_users_homes_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo -E` leaves the caller's environment to root, whose files would then lock the caller out."""
    monkeypatch.delenv("RAPTOR_RUNTIME_DIR", raising=False)
    os.chown(tmp_path, 12345, 12345)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_runtime_dir() is None
    assert SessionStore().directory is None


@posix
@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_directories_that_others_can_enter_are_refused(directory: Path, mode: int) -> None:
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(ConfigError, match=f"{directory}.*mode {mode:04o}.*chmod 0700"):
        SessionStore(directory)


@posix
def test_links_and_files_are_no_directories(tmp_path: Path, directory: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(0o700)
    directory.symlink_to(target)
    with pytest.raises(ConfigError, match="not a directory"):
        SessionStore(directory)
    target.rmdir()
    directory.unlink()
    directory.touch(0o600)
    with pytest.raises(ConfigError, match="not a directory"):
        SessionStore(directory)


@as_root
def test_directories_of_others_are_refused(directory: Path) -> None:
    directory.mkdir(0o700)
    os.chown(directory, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        SessionStore(directory)


@posix
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602])
def test_session_files_that_others_can_read_are_refused(stored: Path, mode: int) -> None:
    stored.chmod(mode)
    with pytest.raises(ConfigError, match=f"{stored}.*mode {mode:04o}.*chmod 0600"):
        SessionStore(stored.parent).load(ENDPOINT, clock.now())


@as_root
def test_session_files_of_others_are_refused(stored: Path) -> None:
    os.chown(stored, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        SessionStore(stored.parent).load(ENDPOINT, clock.now())


@posix
def test_links_in_place_of_files_are_refused(stored: Path) -> None:
    moved = stored.rename(stored.parent.parent / "moved")
    stored.symlink_to(moved)
    with pytest.raises(ConfigError, match="not a link"):
        SessionStore(stored.parent).load(ENDPOINT, clock.now())
    stored.unlink()
    stored.mkdir(0o700)
    with pytest.raises(ConfigError, match="plain file"):
        SessionStore(stored.parent).load(ENDPOINT, clock.now())


def test_no_place_for_a_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As on a read-only disk: everything works in memory, and the log says so once."""
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        store = SessionStore(tmp_path / "file" / "run")
    assert store.directory is None
    pair = Pair()
    session = pair.shake_hands()
    assert not store.save(ENDPOINT, session, pair.clock)
    store.save_learned(ENDPOINT, {"srtt": 0.2})
    assert store.load_learned(ENDPOINT) == {"srtt": 0.2}
    assert len(caplog.records) == 1
    assert "in memory only" in caplog.text


FULL_DISK = """
import logging, resource, sys
sys.path.insert(0, sys.argv[2])
logging.basicConfig(level=logging.WARNING)
from wireguard_pair import Pair
from raptor_s3.net import clock
from raptor_s3.net.session_store import SessionStore
store, endpoint, pair = SessionStore(sys.argv[1]), sys.argv[3], Pair()
pair.clock = clock.now()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
session = pair.shake_hands()
print(store.save(endpoint, session, pair.clock), store.load(endpoint, pair.clock))
print(pair.deliver(session.seal(b"x", pair.clock)).plaintext)
print(store.next_unix_time(endpoint, 1.0), store.claim_handshake(endpoint))
print(store.update_learned(endpoint, {"srtt": 0.2}), store.update_learned(endpoint, {"loss": 0.1}))
store.note_received(endpoint, session)
"""


@posix
def test_full_disk(directory: Path) -> None:
    """A file size limit of 0 makes every write fail, as a full disk does."""
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(directory), str(Path(__file__).parent), ENDPOINT],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.splitlines() == [
        "False None",
        "b'x'",
        "1.0 True",
        "{'srtt': 0.2} {'srtt': 0.2, 'loss': 0.1}",
    ], result.stderr
    assert result.stderr.count("in memory only") == 1
    assert [path.name for path in directory.iterdir() if path.stat().st_size] == []
    assert not list(directory.glob("*.tmp"))


def test_stuck_lock(stored: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever holds the lock and sleeps must not stop anybody's put."""
    lock = stored.parent / f"{ENDPOINT}.lock"
    store = SessionStore(stored.parent)
    pair = Pair(1)
    pair.clock = clock.now()
    session = pair.shake_hands()
    with locked(str(lock)), caplog.at_level(logging.WARNING):
        assert store.claim_handshake(ENDPOINT)
        assert not store.save(ENDPOINT, session, pair.clock)
        assert session.seal(b"x", pair.clock)
    assert len(caplog.records) == 1
    assert store.save(ENDPOINT, session, pair.clock), "and later it can be stored"


def test_locks_exclude(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locked(path), pytest.raises(TimeoutError), locked(path):
        pass
    with locked(path):
        pass


def test_lock_files_that_are_cleaned_away_exclude_too(tmp_path: Path) -> None:
    """A waiter must not end up with a lock on a file that is gone while another holds its successor."""
    path = tmp_path / "lock"
    waiting, entered = threading.Event(), threading.Event()

    def wait_for_it() -> None:
        waiting.set()
        with locked(str(path)) as descriptor:
            assert os.path.samestat(os.fstat(descriptor), path.stat())
            entered.set()

    with locked(str(path)):
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        waiting.wait()
        time.sleep(0.02)  # it has opened the file by now, and polls
        path.unlink()
    thread.join()
    assert entered.is_set()


@posix
def test_forked_children_do_not_hold_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    read, write = os.pipe()
    with locked(path):
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    with locked(path):
        pass
    os.close(write)
    os.waitpid(pid, 0)
    os.close(read)


def test_learned_records(directory: Path) -> None:
    store = SessionStore(directory)
    assert store.load_learned(ENDPOINT) == {}
    learned = {"srtt": 0.15, "rttvar": 0.01, "loss": 0.05, "rate": 2.5e6, "breaker": {"state": "closed", "failures": 0}}
    store.save_learned(ENDPOINT, learned)
    assert SessionStore(directory).load_learned(ENDPOINT) == learned
    assert store.load_learned("another") == {}
    assert store.update_learned(ENDPOINT, {"loss": 0.1, "rate": None}) == {
        "srtt": 0.15,
        "rttvar": 0.01,
        "loss": 0.1,
        "breaker": {"state": "closed", "failures": 0},
    }
    assert SessionStore(directory).load_learned(ENDPOINT)["loss"] == 0.1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"x": "' + b"y" * 70_000 + b'"}',
        b'{"x": NaN}',
        b'{"x": {"y": [-Infinity]}}',
        b'{"x": 1e400}',
        b'{"x": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_damaged_learned_records_are_empty(directory: Path, content: bytes) -> None:
    store = SessionStore(directory)
    store.save_learned(ENDPOINT, {"srtt": 1.0})
    (directory / f"{ENDPOINT}.json").write_bytes(content)
    assert store.load_learned(ENDPOINT) == {}
    assert store.update_learned(ENDPOINT, {"srtt": 2.0}) == {"srtt": 2.0}
    assert store.load_learned(ENDPOINT) == {"srtt": 2.0}


@pytest.mark.parametrize("learned", [{"x": "y" * MAX_LEARNED_BYTES}, {"x": object()}, {"x": float("nan")}])
def test_records_that_can_not_be_kept_are_refused(directory: Path, learned: dict[str, object]) -> None:
    store = SessionStore(directory)
    store.save_learned(ENDPOINT, {"srtt": 1.0})
    with pytest.raises(ValueError):
        store.save_learned(ENDPOINT, learned)
    assert store.load_learned(ENDPOINT) == {"srtt": 1.0}


def test_a_record_that_has_grown_too_large_begins_anew(directory: Path) -> None:
    """What is 40 KB of UTF-8 may be 120 KB as we write it; no put may hear of that, and no update be lost for ever."""
    store = SessionStore(directory)
    store.save_learned(ENDPOINT, {})
    (directory / f"{ENDPOINT}.json").write_text('{"x": "' + "é" * 20_000 + '"}', "utf-8")
    assert store.update_learned(ENDPOINT, {"srtt": 2.0, "loss": None}) == {"srtt": 2.0}
    assert store.load_learned(ENDPOINT) == {"srtt": 2.0}
    with pytest.raises(ValueError):
        store.update_learned(ENDPOINT, {"x": float("nan")})


def test_updates_of_several_users_are_all_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_store, "locked", functools.partial(locked, timeout_s=30))  # none gives up on a busy machine

    def work(name: str) -> None:
        store = SessionStore(directory)
        for number in range(25):
            store.update_learned(ENDPOINT, {f"{name}{number}": number})

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(SessionStore(directory).load_learned(ENDPOINT)) == 75
