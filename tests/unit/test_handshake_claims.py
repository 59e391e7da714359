"""What processes of one device keep beside their sessions: who shakes hands, and timestamps that only go up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from wireguard_pair import Pair

from raptor_s3.net import clock
from raptor_s3.net.session_store import SessionStore

ENDPOINT = "gateway.example.com_51820-server-client"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.clock = clock.now()
    return pair


def test_one_process_at_a_time_shakes_hands(pair: Pair, directory: Path) -> None:
    one, other = SessionStore(directory), SessionStore(directory)
    assert one.claim_handshake(ENDPOINT, hold_s=30)
    assert not other.claim_handshake(ENDPOINT, hold_s=30)
    assert other.claim_handshake("another_endpoint", hold_s=30)
    one.save(ENDPOINT, pair.shake_hands(), pair.clock)
    assert other.claim_handshake(ENDPOINT, hold_s=30), "a stored session ends the claim"
    assert not one.claim_handshake(ENDPOINT, hold_s=0.0)
    assert one.claim_handshake("short", hold_s=0.0)
    assert other.claim_handshake("short", hold_s=0.0), "a claim ends by itself"


def test_a_handshake_that_failed_frees_its_claim_and_no_other(directory: Path) -> None:
    one, other = SessionStore(directory), SessionStore(directory)
    assert one.claim_handshake(ENDPOINT, hold_s=0.0)
    assert other.claim_handshake(ENDPOINT, hold_s=30)
    one.release_handshake(ENDPOINT)
    assert not one.claim_handshake(ENDPOINT)
    other.release_handshake(ENDPOINT)
    other.release_handshake(ENDPOINT)
    assert one.claim_handshake(ENDPOINT)
    SessionStore(None).release_handshake(ENDPOINT)


def test_claims_of_before_a_reboot_do_not_hold(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: 1e9)
        assert SessionStore(directory).claim_handshake(ENDPOINT)
    assert SessionStore(directory).claim_handshake(ENDPOINT)


def test_timestamps_only_go_up(pair: Pair, directory: Path) -> None:
    used = [
        SessionStore(directory).next_unix_time(ENDPOINT, unix_time) for unix_time in (1.7e9, 1.7e9, 1.6e9, 0.0, 1.7e9 + 5, 1.7e9)
    ]
    nanoseconds = [int(unix_time * 1e9) for unix_time in used]
    assert nanoseconds == sorted(set(nanoseconds))
    assert used[0] == 1.7e9
    assert used[4] == 1.7e9 + 5
    # As the responder sees it.
    for unix_time in used:
        pair.clock += 1
        assert pair.answer(pair.new_tunnel().initiation(pair.clock, unix_time))
    SessionStore(directory).save(ENDPOINT, pair.shake_hands(), pair.clock)
    assert SessionStore(directory).next_unix_time(ENDPOINT, 0.0) > used[-1], "saving a session keeps it"


def test_damaged_lock_files_are_no_obstacle(directory: Path) -> None:
    store = SessionStore(directory)
    path = directory / f"{ENDPOINT}.lock"
    for content in (b"", b"x", b"\xff" * 16, b"\x7f" * 16, os.urandom(100)):
        path.write_bytes(content)
        path.chmod(0o600)
        assert store.next_unix_time(ENDPOINT, 1.7e9) >= 1.7e9
        path.write_bytes(content)
        store.claim_handshake(ENDPOINT)
