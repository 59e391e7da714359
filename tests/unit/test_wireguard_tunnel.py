"""The initiator's side: handshake, rekey, retransmission, cookies, and what it must not fall for."""

from __future__ import annotations

import pytest
from wireguard_pair import SOURCE, UNIX_TIME, Pair

from raptor_s3.errors import AuthenticationFailed, HandshakeTimeout, MalformedPacket, SessionExpired
from raptor_s3.net.channel import RETRANSMIT_S
from raptor_s3.net.settings import DEFAULT_HANDSHAKE_TIMEOUT_S
from raptor_s3.wireguard import constants, messages
from raptor_s3.wireguard.cookie import MacChecker, MacWriter
from raptor_s3.wireguard.keys import KeyPair, generate_private_key
from raptor_s3.wireguard.session import Session
from raptor_s3.wireguard.tunnel import CookieReceived, Data, HandshakeComplete, Tunnel


@pytest.mark.parametrize("preshared_key", [None, bytes(32), b"\5" * 32])
def test_handshake_and_data(preshared_key: bytes | None) -> None:
    pair = Pair(preshared_key=preshared_key)
    session = pair.shake_hands()
    assert session is pair.tunnel.session
    assert not pair.tunnel.is_handshaking
    received = pair.deliver(session.seal(b"request", pair.clock))
    assert (received.plaintext, received.peer_key, received.source) == (b"request", pair.client.public, SOURCE)
    event = pair.tunnel.receive(received.session.seal(b"reply", pair.clock), pair.clock)
    assert event == Data(b"reply", session)


def test_no_preshared_key_is_a_key_of_zeros() -> None:
    pair = Pair()
    tunnel = Tunnel(pair.client.private, pair.server.public, bytes(32), random=pair.random)
    assert pair.shake_hands(tunnel)


def test_keepalives_are_no_event() -> None:
    pair = Pair()
    session = pair.shake_hands()
    assert pair.listener.receive(session.seal(b"", pair.clock), SOURCE, pair.clock) == []
    responder = pair.listener.session_at(pair.client.public)
    assert responder is not None
    assert pair.tunnel.receive(responder.seal(b"", pair.clock), pair.clock) is None


def test_another_preshared_key() -> None:
    pair = Pair(preshared_key=b"\5" * 32)
    tunnel = Tunnel(pair.client.private, pair.server.public, b"\6" * 32, random=pair.random)
    response = pair.answer(pair.initiation(tunnel))
    with pytest.raises(AuthenticationFailed):
        tunnel.receive(response, pair.clock)
    assert tunnel.session is None


def test_forged_responses_do_not_spoil_the_real_one() -> None:
    pair = Pair()
    response = pair.answer(pair.initiation())
    for position in range(12, 60):
        forged = bytearray(response)
        forged[position] ^= 1
        # As an attacker who knows our public key would: with a mac1 that verifies.
        forged = bytearray(MacWriter(pair.client.public).finish(bytes(forged[:60]), pair.clock))
        with pytest.raises(AuthenticationFailed):
            pair.tunnel.receive(forged, pair.clock)
    low_order = MacWriter(pair.client.public).finish(response[:12] + bytes(32) + response[44:60], pair.clock)
    with pytest.raises(AuthenticationFailed):
        pair.tunnel.receive(low_order, pair.clock)
    with pytest.raises(MalformedPacket):
        pair.tunnel.receive(response[:60] + bytes(32), pair.clock)
    assert pair.tunnel.is_handshaking
    event = pair.tunnel.receive(response, pair.clock)
    assert isinstance(event, HandshakeComplete)
    assert pair.deliver(event.session.seal(b"works", pair.clock)).plaintext == b"works"


def test_response_counts_once() -> None:
    pair = Pair()
    response = pair.answer(pair.initiation())
    pair.tunnel.receive(response, pair.clock)
    session = pair.tunnel.session
    with pytest.raises(SessionExpired):
        pair.tunnel.receive(response, pair.clock)
    assert pair.tunnel.session is session


def test_rekey_keeps_what_is_in_flight() -> None:
    pair = Pair()
    old = pair.shake_hands()
    reply_to = pair.deliver(old.seal(b"one", pair.clock)).session
    late_request, late_reply = old.seal(b"late request", pair.clock), reply_to.seal(b"late reply", pair.clock)
    initiation = pair.initiation()
    assert pair.tunnel.session is old, "the old session carries on while the handshake is under way"
    response = pair.answer(initiation)

    # The responder may not use the new keys before it has heard from us under them.
    assert pair.listener.session_at(pair.client.public) is reply_to
    event = pair.tunnel.receive(response, pair.clock)
    assert isinstance(event, HandshakeComplete)
    assert pair.tunnel.session is event.session
    assert pair.tunnel.receive(late_reply, pair.clock) == Data(b"late reply", old)
    assert pair.deliver(late_request).session is reply_to
    confirmed = pair.deliver(event.session.seal(b"two", pair.clock)).session
    assert confirmed is not reply_to
    assert pair.listener.session_at(pair.client.public) is confirmed


def test_sessions_kept_are_few() -> None:
    pair = Pair()
    kept = 1 + constants.MAX_PENDING_INITIATIONS
    sessions = [pair.shake_hands() for _ in range(kept + 1)]
    assert len(pair.tunnel._sessions) == kept
    replies = {}
    for session in sessions:
        replies[session] = pair.deliver(session.seal(b"x", pair.clock)).session.seal(b"y", pair.clock)
    for session in sessions[-kept:]:
        assert pair.tunnel.receive(replies[session], pair.clock) == Data(b"y", session)
    with pytest.raises(SessionExpired):
        pair.tunnel.receive(replies[sessions[0]], pair.clock)


def test_retransmission_backs_off_and_gives_up() -> None:
    pair = Pair()
    tunnel = Tunnel(pair.client.private, pair.server.public, random=pair.random, retransmit_s=0.25)
    assert tunnel.get_timer() is None
    assert tunnel.handle_timer(0.0, UNIX_TIME) is None
    started_at = now = 10.0
    sent = [tunnel.initiation(now, UNIX_TIME)]
    intervals = []
    while now - started_at < constants.REKEY_ATTEMPT_TIME:
        due = tunnel.get_timer()
        assert due is not None
        assert tunnel.handle_timer(due - 1e-6, UNIX_TIME) is None
        intervals.append(due - now)
        now = due
        if now - started_at < constants.REKEY_ATTEMPT_TIME:
            message = tunnel.handle_timer(now, UNIX_TIME)
            assert message is not None
            sent.append(message)
    with pytest.raises(HandshakeTimeout):
        tunnel.handle_timer(now, UNIX_TIME)
    assert 0.25 <= intervals[0] <= 0.25 * 1.25
    assert 0.5 <= intervals[1] <= 0.5 * 1.25
    assert all(constants.REKEY_TIMEOUT <= interval <= constants.REKEY_TIMEOUT + 0.334 for interval in intervals[6:])
    assert tunnel.get_timer() is None
    ephemerals = {messages.parse_initiation(message).noise[:32] for message in sent}
    assert len(ephemerals) == len(sent), "every initiation needs its own ephemeral key"
    assert tunnel.initiation(now, UNIX_TIME), "and after that another attempt may start"


def test_response_to_an_earlier_initiation_is_still_good() -> None:
    pair = Pair()
    first, second = pair.initiation(), pair.initiation()
    first_response, second_response = pair.answer(first), pair.answer(second)
    one = pair.tunnel.receive(first_response, pair.clock)
    assert isinstance(one, HandshakeComplete)
    assert pair.tunnel.get_timer() is None
    two = pair.tunnel.receive(second_response, pair.clock)
    assert isinstance(two, HandshakeComplete)
    assert pair.tunnel.session is two.session
    for session in (one.session, two.session):
        assert pair.deliver(session.seal(b"x", pair.clock)).plaintext == b"x"


def test_response_to_the_last_initiation_ends_the_earlier_ones() -> None:
    pair = Pair()
    first, second = pair.initiation(), pair.initiation()
    first_response, second_response = pair.answer(first), pair.answer(second)
    pair.tunnel.receive(second_response, pair.clock)
    with pytest.raises(SessionExpired):
        pair.tunnel.receive(first_response, pair.clock)


def test_initiations_in_flight_are_few() -> None:
    pair = Pair()
    initiations = [pair.initiation() for _ in range(constants.MAX_PENDING_INITIATIONS + 1)]
    assert len(pair.tunnel._pending) == constants.MAX_PENDING_INITIATIONS
    oldest = pair.answer(initiations[0])
    with pytest.raises(SessionExpired):
        pair.tunnel.receive(oldest, pair.clock)


@pytest.mark.parametrize("seed", range(8))
def test_within_a_puts_patience_no_initiation_is_forgotten(seed: int) -> None:
    """On a path of more than a second, the response to the first one comes after the last one has left."""
    pair = Pair(seed)
    keys = pair.client.private, pair.server.public
    tunnel = Tunnel(*keys, random=pair.random, retransmit_s=RETRANSMIT_S, backoff=1.0)
    started_at = pair.clock
    responses = [pair.answer(tunnel.initiation(started_at, UNIX_TIME))]
    while (due := tunnel.get_timer()) is not None and due < started_at + DEFAULT_HANDSHAKE_TIMEOUT_S:
        message = tunnel.handle_timer(due, UNIX_TIME)
        assert message is not None
        responses.append(pair.answer(message))
    assert len(responses) in (4, 5)
    pair.clock += DEFAULT_HANDSHAKE_TIMEOUT_S
    first = tunnel.receive(responses[0], pair.clock)
    assert isinstance(first, HandshakeComplete)
    received = pair.deliver(first.session.seal(b"sent at once", pair.clock))
    for response in responses[1:]:
        assert isinstance(tunnel.receive(response, pair.clock), HandshakeComplete)
    assert isinstance(tunnel.receive(received.session.seal(b"answered in the first session", pair.clock), pair.clock), Data)


def test_timestamps_increase_when_the_clock_does_not() -> None:
    pair = Pair()
    for unix_time in (UNIX_TIME, UNIX_TIME, UNIX_TIME - 3600, 0.0):
        pair.clock += 1
        response = pair.answer(pair.tunnel.initiation(pair.clock, unix_time))
        assert isinstance(pair.tunnel.receive(response, pair.clock), HandshakeComplete)
    restarted = Tunnel(
        pair.client.private, pair.server.public, random=pair.random, last_timestamp_ns=pair.tunnel.last_timestamp_ns
    )
    pair.clock += 1
    assert pair.answer(restarted.initiation(pair.clock, 0.0))


def test_cookie_reply_makes_the_next_initiation_carry_mac2() -> None:
    pair = Pair(under_load_initiations_per_s=0)
    initiation = pair.initiation()
    reply = pair.answer(initiation)
    assert len(reply) == messages.COOKIE_REPLY_SIZE < len(initiation)
    with pytest.raises(AuthenticationFailed):
        pair.tunnel.receive(reply[:-1] + bytes((reply[-1] ^ 1,)), pair.clock)
    assert isinstance(pair.tunnel.receive(reply, pair.clock), CookieReceived)
    with pytest.raises(SessionExpired):
        pair.tunnel.receive(reply, pair.clock)
    assert pair.tunnel.get_timer() == pair.clock
    second = pair.tunnel.handle_timer(pair.clock, UNIX_TIME + pair.clock)
    assert second is not None
    event = pair.tunnel.receive(pair.answer(second), pair.clock)
    assert isinstance(event, HandshakeComplete)

    # The cookie serves the next two minutes of initiations from this address.
    pair.clock += constants.COOKIE_SECRET_MAX_AGE - constants.COOKIE_SECRET_LATENCY - 1
    assert messages.message_type(pair.answer(pair.initiation())) == messages.TYPE_RESPONSE
    pair.clock += 5
    stale = pair.initiation()
    assert messages.parse_initiation(stale).mac2 == bytes(16)
    assert messages.message_type(pair.answer(stale)) == messages.TYPE_COOKIE_REPLY


def test_cookie_replies_do_not_drive_us() -> None:
    """The cookie key is derived from a public key: an eavesdropper can answer every initiation with a cookie reply."""
    pair = Pair()
    eavesdropper = MacChecker(pair.server.public, pair.random)

    def reply_to(initiation: bytes) -> bytes:
        parsed = messages.parse_initiation(initiation)
        return eavesdropper.cookie_reply(parsed.sender_index, parsed.mac1, SOURCE, pair.clock)

    pair.tunnel.receive(reply_to(pair.initiation()), pair.clock)
    second = pair.tunnel.handle_timer(pair.clock, UNIX_TIME)
    assert second is not None
    pair.tunnel.receive(reply_to(second), pair.clock)
    assert pair.tunnel.handle_timer(pair.clock, UNIX_TIME) is None
    assert isinstance(pair.tunnel.receive(pair.answer(second), pair.clock), HandshakeComplete)


def test_adopted_session() -> None:
    pair = Pair()
    session = pair.shake_hands()
    tunnel = pair.new_tunnel()
    tunnel.adopt(session)
    assert tunnel.session is session
    reply = pair.deliver(session.seal(b"request", pair.clock)).session.seal(b"reply", pair.clock)
    assert tunnel.receive(reply, pair.clock) == Data(b"reply", session)

    stranger = KeyPair(generate_private_key(pair.random)).public
    with pytest.raises(ValueError, match="another peer"):
        Tunnel(pair.client.private, stranger, random=pair.random).adopt(session)


def test_adopting_a_session_again_forgets_no_replay() -> None:
    """As after a look into the store that finds what we already use."""
    pair = Pair()
    session = pair.shake_hands()
    reply = pair.deliver(session.seal(b"request", pair.clock)).session.seal(b"reply", pair.clock)
    pair.tunnel.receive(reply, pair.clock)
    again = Session.restore(session.export())
    again._window = type(again._window)()
    pair.tunnel.adopt(again)
    assert pair.tunnel.session is again
    with pytest.raises(AuthenticationFailed):
        pair.tunnel.receive(reply, pair.clock)


def test_what_only_a_responder_takes() -> None:
    pair = Pair()
    with pytest.raises(MalformedPacket):
        pair.tunnel.receive(pair.initiation(), pair.clock)
    for message in (b"", b"\4\0\0\0", b"\2\0\0\0" + bytes(88), b"\3\0\0\0" + bytes(60)):
        with pytest.raises((MalformedPacket, SessionExpired)):
            pair.tunnel.receive(message, pair.clock)


@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33)])
def test_keys_have_32_octets(bad: bytes) -> None:
    for keys in ((bad, bytes(32), None), (bytes(32), bad, None), (bytes(32), bytes(32), bad)):
        with pytest.raises(ValueError, match="32 octets"):
            Tunnel(*keys, random=bytes)


def test_low_order_server_key_is_refused() -> None:
    with pytest.raises(AuthenticationFailed):
        Tunnel(b"\1" * 32, bytes(32), random=lambda size: b"\7" * size).initiation(0.0, UNIX_TIME)


def test_expired_session_stays_visible_but_seals_nothing() -> None:
    pair = Pair()
    session = pair.shake_hands()
    late = pair.clock + constants.REJECT_AFTER_TIME + 0.01
    assert isinstance(pair.tunnel.session, Session)
    with pytest.raises(SessionExpired):
        session.seal(b"x", late)
