"""Transport data: what is sealed, what is refused, and that refusals change nothing."""

from __future__ import annotations

import os

import pytest

from raptor_s3.errors import AuthenticationFailed, MalformedPacket, SessionExpired
from raptor_s3.wireguard import arena, constants, session
from raptor_s3.wireguard.counters import CounterRange
from raptor_s3.wireguard.session import Session
from raptor_s3.wireguard.sodium import aead_open

KEY_A, KEY_B = bytes(range(32)), bytes(range(32, 64))
NOW = 50.0


@pytest.fixture(autouse=True, params=["c", "python"])
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with the C functions, and without."""
    if request.param == "python":
        for name in ("seal_message", "seal_messages", "open_fresh"):
            monkeypatch.setattr(session, name, getattr(arena, f"{name}_in_python"))
    elif not arena.HAS_C:
        pytest.skip("_arena.c is not built")


def pair() -> tuple[Session, Session]:
    initiator = Session(
        local_index=1, remote_index=2, peer_key=bytes(32), send_key=KEY_A, receive_key=KEY_B, created_at=0.0, is_initiator=True
    )
    responder = Session(
        local_index=2, remote_index=1, peer_key=bytes(32), send_key=KEY_B, receive_key=KEY_A, created_at=0.0, is_initiator=False
    )
    return initiator, responder


def test_layout() -> None:
    initiator, _ = pair()
    initiator.seal(b"", NOW)
    message = initiator.seal(b"datagram", NOW)
    assert message[:16] == bytes.fromhex("04000000" + "02000000" + "0100000000000000")
    assert len(message) == 8 + constants.TRANSPORT_OVERHEAD == 8 + 32
    assert aead_open(KEY_A, bytes(4) + message[8:16], message[16:]) == b"datagram"


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1400, 60_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_round_trip_without_padding(size: int, kind: type) -> None:
    initiator, responder = pair()
    data = os.urandom(size)
    message = initiator.seal(kind(data), NOW)
    assert len(message) == size + 32
    assert responder.open(kind(message), NOW) == data
    reply = responder.seal(kind(data), NOW)
    assert initiator.open(memoryview(bytearray(reply)), NOW) == data


def test_any_order_once() -> None:
    initiator, responder = pair()
    messages = [initiator.seal(b"%d" % number, NOW) for number in range(100)]
    for number in (50, 3, 99, 0, 98, 51, 4):
        assert responder.open(messages[number], NOW) == b"%d" % number
        with pytest.raises(AuthenticationFailed):
            responder.open(messages[number], NOW)
    assert responder.highest_received == 99


def test_forgeries_change_nothing() -> None:
    initiator, responder = pair()
    message = initiator.seal(b"datagram", NOW)
    far_ahead = bytearray(message)
    far_ahead[8:16] = (10**9).to_bytes(8, "little")
    with pytest.raises(AuthenticationFailed):
        responder.open(far_ahead, NOW)
    for position in range(16, len(message)):
        forged = bytearray(message)
        forged[position] ^= 1
        with pytest.raises(AuthenticationFailed):
            responder.open(forged, NOW)
    assert responder.highest_received == -1
    assert not responder.is_confirmed
    assert responder.open(message, NOW) == b"datagram"


@pytest.mark.parametrize("size", [0, 1, 4, 15, 16, 31])
def test_truncated(size: int) -> None:
    initiator, responder = pair()
    with pytest.raises(MalformedPacket):
        responder.open(initiator.seal(b"", NOW)[:size], NOW)


def test_other_types_and_sessions() -> None:
    initiator, responder = pair()
    message = initiator.seal(b"datagram", NOW)
    for start, replacement in ((0, b"\1"), (1, b"\1"), (4, b"\3")):
        other = bytearray(message)
        other[start : start + 1] = replacement
        with pytest.raises(MalformedPacket):
            responder.open(other, NOW)


def test_reject_after_time() -> None:
    initiator, responder = pair()
    message = initiator.seal(b"datagram", 179.9)
    assert responder.open(message, 179.9) == b"datagram"
    for late in (180.0, 1e6):
        with pytest.raises(SessionExpired):
            initiator.seal(b"datagram", late)
        with pytest.raises(SessionExpired):
            initiator.seal_arena(bytes(10), 1, 10, 10, bytearray(42), late)
        with pytest.raises(SessionExpired):
            responder.open(message, late)
    assert initiator.is_expired(180.0)
    assert not initiator.is_expired(179.9)


def test_reject_after_messages() -> None:
    initiator, responder = pair()
    initiator.counters = CounterRange(constants.REJECT_AFTER_MESSAGES - 1)
    assert responder.open(initiator.seal(b"last", NOW), NOW) == b"last"
    with pytest.raises(SessionExpired):
        initiator.seal(b"one more", NOW)
    initiator.counters = CounterRange(constants.REJECT_AFTER_MESSAGES, 2**64)
    with pytest.raises(SessionExpired):
        responder.open(initiator.seal(b"one more", NOW), NOW)


def test_the_first_refusal_counts() -> None:
    """Not ours, then too late, then seen before, then forged: and of each only what is said here."""
    initiator, responder = pair()
    initiator.counters = CounterRange(7, 2**64)
    message = initiator.seal(b"datagram", NOW)
    assert responder.open(message, NOW) == b"datagram"
    initiator.counters = CounterRange(constants.REJECT_AFTER_MESSAGES, 2**64)
    over = initiator.seal(b"", NOW)
    for refused, now, error, why in (
        (message[:31], 1e6, MalformedPacket, "not a transport message of this session, or too short"),
        (message[:4] + b"\3" + over[5:], 1e6, MalformedPacket, "not a transport message of this session, or too short"),
        (message[:-1], 1e6, SessionExpired, "session is past REJECT_AFTER_TIME or REJECT_AFTER_MESSAGES"),
        (over[:-1] + b"?", NOW, SessionExpired, "session is past REJECT_AFTER_TIME or REJECT_AFTER_MESSAGES"),
        (message[:-1], NOW, AuthenticationFailed, "counter was received before, or is too old to know"),
        (message[:8] + b"\6" + message[9:], NOW, AuthenticationFailed, "tag does not verify"),
    ):
        with pytest.raises(error) as caught:
            responder.open(refused, now)
        assert str(caught.value) == why
    assert responder.highest_received == 7


def test_a_shared_window_is_one_window() -> None:
    initiator, responder = pair()
    heir = Session.restore(responder.export())
    heir.inherit_window(responder)
    message = initiator.seal(b"datagram", NOW)
    assert heir.open(message, NOW) == b"datagram"
    assert responder.highest_received == 0
    with pytest.raises(AuthenticationFailed):
        responder.open(message, NOW)


def test_rekey_is_the_initiators() -> None:
    initiator, responder = pair()
    assert not initiator.needs_rekey(119.9)
    assert initiator.needs_rekey(120.0)
    assert not responder.needs_rekey(150.0)
    initiator.counters = CounterRange(constants.REKEY_AFTER_MESSAGES)
    assert initiator.needs_rekey(1.0)


def test_responder_waits_for_the_first_message() -> None:
    initiator, responder = pair()
    with pytest.raises(SessionExpired):
        responder.seal(b"too early", NOW)
    assert responder.open(initiator.seal(b"", NOW), NOW) == b""
    assert initiator.open(responder.seal(b"now", NOW), NOW) == b"now"


def test_state_survives() -> None:
    initiator, responder = pair()
    for number in range(3):
        responder.open(initiator.seal(b"request", NOW), NOW)
        reply = responder.seal(b"%d" % number, NOW)
        initiator.open(reply, NOW)
    state = initiator.export()
    assert (state.next_counter, state.highest_received) == (3, 2)
    assert KEY_A.hex() not in repr(state)
    assert repr(KEY_A) not in repr(state)
    restored = Session.restore(state)
    with pytest.raises(AuthenticationFailed):
        restored.open(reply, NOW)
    message = restored.seal(b"again", NOW)
    assert int.from_bytes(message[8:16], "little") == 3
    assert responder.open(message, NOW) == b"again"
    assert restored.export().created_at == 0.0


def test_arena_of_nothing() -> None:
    initiator, _ = pair()
    assert initiator.seal_arena(b"", 0, 10, 10, bytearray(), NOW) == 0
    assert initiator.counters.next == 0
