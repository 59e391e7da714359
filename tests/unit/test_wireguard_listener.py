"""The responder's side: several sessions a peer, replays, roaming, floods, and that strangers cost nothing."""

from __future__ import annotations

import pytest
from wireguard_pair import SOURCE, UNIX_TIME, Pair

from raptor_s3.errors import SessionExpired
from raptor_s3.wireguard import constants, messages
from raptor_s3.wireguard.cookie import MacChecker, MacWriter
from raptor_s3.wireguard.keys import KeyPair, generate_private_key
from raptor_s3.wireguard.listener import Listener, PeerConfig, Send
from raptor_s3.wireguard.ratelimit import LoadMeter, TokenBuckets, source_network
from raptor_s3.wireguard.symmetric import mac
from raptor_s3.wireguard.tunnel import Data, HandshakeComplete, Tunnel

ELSEWHERE = ("198.51.100.9", 5000)


def test_initiations_are_answered_once_and_their_copy_alike() -> None:
    pair = Pair()
    first, second = pair.initiation(), pair.initiation()
    response = pair.answer(second)
    assert pair.answer(second) == response
    assert pair.listener.receive(second, SOURCE, pair.clock) == []
    assert pair.listener.receive(first, SOURCE, pair.clock) == [], "older than one that was answered"
    assert pair.listener.stats.replayed_initiation == 2
    assert pair.listener.stats.repeated_responses == pair.listener.stats.handshakes == 1
    assert pair.listener.session_count == 1


@pytest.mark.parametrize(
    ("source", "after_s", "change"), [(ELSEWHERE, 0.0, b""), (SOURCE, constants.REPEAT_WITHIN, b""), (SOURCE, 0.0, b"\1")]
)
def test_only_an_exact_copy_from_there_and_soon_is_answered(source: tuple[str, int], after_s: float, change: bytes) -> None:
    pair = Pair()
    message = pair.initiation()
    pair.answer(message)
    pair.clock += after_s
    assert pair.listener.receive(message[: -len(change) or None] + change, source, pair.clock) == []
    assert pair.listener.stats.repeated_responses == 0
    if not after_s:
        assert pair.answer(message), "the copy has not lost its answer"


def test_a_copy_is_not_answered_for_a_session_that_is_gone() -> None:
    """Processes of one key that start together displace each other's unconfirmed sessions."""
    pair = Pair(max_sessions_per_peer=3)
    first = pair.initiation(pair.new_tunnel())
    pair.answer(first)
    for _ in range(3):
        pair.answer(pair.initiation(pair.new_tunnel()))
    assert pair.listener.receive(first, SOURCE, pair.clock) == []
    assert pair.listener.stats.repeated_responses == 0


def test_responses_kept_for_copies_are_bounded_and_go_with_their_peers() -> None:
    pair = Pair()
    for _ in range(constants.MAX_REPEATABLE_RESPONSES + 9):
        pair.clock += 1.0
        pair.answer(pair.initiation())
    assert len(pair.listener._answered) == constants.MAX_REPEATABLE_RESPONSES
    pair.listener.set_peers({})
    assert not pair.listener._answered


def test_each_process_has_its_session() -> None:
    pair = Pair()
    tunnels = [pair.new_tunnel() for _ in range(5)]
    sessions = [pair.shake_hands(tunnel) for tunnel in tunnels]
    for number, (tunnel, session) in enumerate(zip(tunnels, sessions, strict=True)):
        source = (SOURCE[0], SOURCE[1] + number)
        received = pair.deliver(session.seal(b"request", pair.clock), source)
        reply = received.session.seal(b"reply", pair.clock)
        assert tunnel.receive(reply, pair.clock) == Data(b"reply", session)
        assert received.session is pair.listener.session_at(pair.client.public, source)
    assert len(pair.listener.sessions(pair.client.public)) == 5


def test_sessions_of_a_peer_are_bounded_and_the_idle_go_first() -> None:
    pair = Pair(max_sessions_per_peer=3)
    sessions = [pair.shake_hands() for _ in range(3)]
    for session in (sessions[1], sessions[2], sessions[0]):
        pair.deliver(session.seal(b"x", pair.clock))
    newest = pair.shake_hands()
    assert pair.listener.session_count == 4, "one of them unconfirmed"
    pair.deliver(newest.seal(b"x", pair.clock))
    assert pair.listener.session_count == 3
    assert pair.listener.receive(sessions[1].seal(b"x", pair.clock), SOURCE, pair.clock) == []
    assert pair.listener.stats.unknown_session == 1
    for session in (sessions[0], sessions[2], newest):
        pair.deliver(session.seal(b"x", pair.clock))


def test_unconfirmed_sessions_never_push_out_live_ones() -> None:
    """After a restart of the listener, recorded initiations could be replayed; and anyone with the key can ask for many."""
    pair = Pair(max_sessions_per_peer=3)
    live = [pair.shake_hands() for _ in range(3)]
    for session in live:
        pair.deliver(session.seal(b"x", pair.clock))
    for _ in range(10):
        pair.clock += 1
        pair.answer(pair.initiation())
    assert pair.listener.session_count == 6
    for session in live:
        pair.deliver(session.seal(b"x", pair.clock))


def test_of_the_unconfirmed_the_oldest_goes() -> None:
    pair = Pair(max_sessions_per_peer=2)
    tunnels = [pair.new_tunnel() for _ in range(3)]
    sessions = [pair.shake_hands(tunnel) for tunnel in tunnels]
    for session in sessions[1:]:
        pair.deliver(session.seal(b"x", pair.clock))
    assert pair.listener.receive(sessions[0].seal(b"x", pair.clock), SOURCE, pair.clock) == []


def test_processes_that_start_together_do_not_push_out_each_other() -> None:
    pair = Pair(max_sessions_per_peer=2)
    for session in [pair.shake_hands() for _ in range(2)]:
        pair.deliver(session.seal(b"x", pair.clock))
    starting = [pair.shake_hands() for _ in range(2)]
    for session in starting:
        pair.deliver(session.seal(b"x", pair.clock))
    for session in starting:
        pair.deliver(session.seal(b"y", pair.clock))
    assert pair.listener.session_count == 2


def test_expired_sessions_make_room() -> None:
    pair = Pair(max_sessions_per_peer=2)
    for _ in range(2):
        session = pair.shake_hands()
        pair.deliver(session.seal(b"x", pair.clock))
    message = session.seal(b"y", pair.clock)
    pair.clock += constants.REJECT_AFTER_TIME
    assert pair.listener.receive(message, SOURCE, pair.clock) == []
    assert pair.listener.stats.expired_session == 1
    pair.shake_hands()
    assert pair.listener.session_count == 1
    pair.clock += constants.REJECT_AFTER_TIME
    pair.listener.expire(pair.clock)
    assert pair.listener.session_count == 0


def test_roaming_follows_authentic_messages_only() -> None:
    pair = Pair()
    session = pair.shake_hands()
    responder = pair.deliver(session.seal(b"one", pair.clock)).session
    assert responder.source == SOURCE
    message = session.seal(b"two", pair.clock)
    forged = message[:-1] + bytes((message[-1] ^ 1,))
    assert pair.listener.receive(forged, ELSEWHERE, pair.clock) == []
    assert responder.source == SOURCE
    assert pair.deliver(message, ELSEWHERE).source == ELSEWHERE
    assert responder.source == ELSEWHERE
    assert pair.listener.receive(message, SOURCE, pair.clock) == [], "a replay"
    assert responder.source == ELSEWHERE
    assert pair.listener.session_at(pair.client.public, SOURCE) is responder
    assert pair.listener.session_at(b"\0" * 32) is None


def test_ipv6_sources_come_back_as_they_were() -> None:
    pair = Pair()
    source = ("2001:db8::1", 4711, 0, 0)
    [outcome] = pair.listener.receive(pair.initiation(), source, pair.clock)
    assert isinstance(outcome, Send)
    assert outcome.destination is source


def test_strangers_get_nothing() -> None:
    pair = Pair()
    stranger = Tunnel(generate_private_key(pair.random), pair.server.public, random=pair.random)
    assert pair.listener.receive(pair.initiation(stranger), SOURCE, pair.clock) == []
    wrong_server = Tunnel(pair.client.private, pair.client.public, random=pair.random)
    assert pair.listener.receive(pair.initiation(wrong_server), SOURCE, pair.clock) == []
    stats = pair.listener.stats
    assert (stats.unknown_peer, stats.mac1_invalid) == (1, 1)
    assert pair.listener.session_count == 0
    assert not pair.listener._source_buckets._buckets
    assert not pair.listener._peer_buckets._buckets


def test_what_is_too_short_is_malformed() -> None:
    """To a session that there is, and to one that there is not."""
    pair = Pair()
    session = pair.shake_hands()
    known = session.seal(b"", pair.clock)
    unknown = known[:4] + bytes((known[4] ^ 1,)) + known[5:]
    short = [message[:size] for message in (known, unknown) for size in range(32)]
    for message in short:
        assert pair.listener.receive(message, SOURCE, pair.clock) == []
        assert pair.listener.receive(memoryview(message), SOURCE, pair.clock) == []
    stats = pair.listener.stats
    assert (stats.malformed, stats.unknown_session, stats.not_authentic) == (2 * len(short), 0, 0)
    assert pair.listener.receive(unknown, SOURCE, pair.clock) == []
    assert stats.unknown_session == 1


def test_flood_is_answered_with_cookies_and_a_cookie_lets_a_peer_in() -> None:
    pair = Pair(under_load_initiations_per_s=20)
    junk = MacWriter(pair.server.public).finish(messages.build_initiation(1, pair.random(108)), 0.0)
    outcomes = []
    for number in range(500):
        outcomes += pair.listener.receive(junk, (f"203.0.113.{number % 256}", number), pair.clock + number / 1000)
    pair.clock += 0.5
    assert {len(outcome.message) for outcome in outcomes if isinstance(outcome, Send)} == {messages.COOKIE_REPLY_SIZE}
    assert len(outcomes) == pair.listener.stats.cookie_replies == 480
    assert pair.listener.session_count == 0
    assert len(pair.listener._source_buckets) == 0, "no state for sources that have proved nothing"

    pair.tunnel.receive(pair.answer(pair.initiation()), pair.clock)
    second = pair.tunnel.handle_timer(pair.clock, UNIX_TIME + pair.clock)
    assert second is not None
    other = pair.listener.receive(second, ELSEWHERE, pair.clock)
    assert len(other[0].message) == messages.COOKIE_REPLY_SIZE, "the cookie is for one address"
    assert isinstance(pair.tunnel.receive(pair.answer(second), pair.clock), HandshakeComplete)


def test_a_cookie_is_no_pass_for_a_flood() -> None:
    """Whoever owns an address gets its cookie; how often it may then make us compute is limited all the same."""
    pair = Pair(under_load_initiations_per_s=0)
    writer = MacWriter(pair.server.public)
    question = writer.finish(messages.build_initiation(1, pair.random(108)), pair.clock)
    cookie = messages.parse_cookie_reply(pair.answer(question))
    writer.receive_cookie(cookie, messages.parse_initiation(question).mac1, pair.clock)
    for _ in range(100):
        junk = writer.finish(messages.build_initiation(1, pair.random(108)), pair.clock)
        assert pair.listener.receive(junk, SOURCE, pair.clock) == []
    assert pair.listener.stats.not_authentic == constants.INITIATIONS_BURST
    assert pair.listener.stats.rate_limited == 100 - constants.INITIATIONS_BURST


def test_cookies_are_for_one_address_and_two_minutes() -> None:
    random = Pair().random
    own_public = random(32)
    checker, writer = MacChecker(own_public, random), MacWriter(own_public)
    question = writer.finish(messages.build_initiation(1, random(108)), 0.0)
    parsed = messages.parse_initiation(question)

    # Before the first secret there is no cookie, in particular not one under an empty secret.
    empty_cookie = mac(b"", SOURCE[1].to_bytes(2, "big") + SOURCE[0].encode())
    assert not checker.mac2_is_valid(question, mac(empty_cookie, messages.before_mac2(question)), SOURCE, 0.0)

    reply = messages.parse_cookie_reply(checker.cookie_reply(1, parsed.mac1, SOURCE, 10.0))
    writer.receive_cookie(reply, parsed.mac1, 10.0)
    second = writer.finish(question[:116], 11.0)
    mac2 = messages.parse_initiation(second).mac2
    assert checker.mac2_is_valid(second, mac2, SOURCE, 11.0)
    assert not checker.mac2_is_valid(second, mac2, (SOURCE[0], SOURCE[1] + 1), 11.0)
    assert not checker.mac2_is_valid(second, mac2, ("192.0.2.8", SOURCE[1]), 11.0)
    assert checker.mac2_is_valid(second, mac2, SOURCE, 10.0 + constants.COOKIE_SECRET_MAX_AGE - 0.1)
    assert not checker.mac2_is_valid(second, mac2, SOURCE, 10.0 + constants.COOKIE_SECRET_MAX_AGE)
    checker.cookie_reply(1, parsed.mac1, SOURCE, 10.0 + constants.COOKIE_SECRET_MAX_AGE)
    assert not checker.mac2_is_valid(second, mac2, SOURCE, 10.0 + constants.COOKIE_SECRET_MAX_AGE)


def test_live_sessions_do_not_notice_a_flood() -> None:
    pair = Pair(under_load_initiations_per_s=0)
    initiation = pair.initiation()
    pair.tunnel.receive(pair.answer(initiation), pair.clock)
    second = pair.tunnel.handle_timer(pair.clock, UNIX_TIME + pair.clock)
    assert second is not None
    pair.tunnel.receive(pair.answer(second), pair.clock)
    assert pair.tunnel.session is not None
    assert pair.deliver(pair.tunnel.session.seal(b"x", pair.clock)).plaintext == b"x"


def test_a_peer_may_not_shake_hands_without_end() -> None:
    pair = Pair()
    answered = 0
    for _ in range(100):
        initiation = pair.tunnel.initiation(pair.clock, UNIX_TIME)
        answered += len(pair.listener.receive(initiation, SOURCE, pair.clock))
    assert answered == constants.INITIATIONS_BURST
    assert pair.listener.stats.rate_limited == 100 - answered
    pair.clock += 1
    assert pair.answer(pair.tunnel.initiation(pair.clock, UNIX_TIME))


def test_cookie_reply_to_our_response() -> None:
    """A peer under load answers a response with a cookie reply; the next response carries mac2."""
    pair = Pair()
    peer = MacChecker(pair.client.public, pair.random)
    response = messages.parse_response(pair.answer(pair.initiation()))
    assert response.mac2 == bytes(16)
    reply = peer.cookie_reply(response.sender_index, response.mac1, ELSEWHERE, pair.clock)
    forged = reply[:-1] + bytes((reply[-1] ^ 1,))
    assert pair.listener.receive(forged, SOURCE, pair.clock) == []
    assert pair.listener.stats.not_authentic == 1
    assert pair.listener.receive(reply, SOURCE, pair.clock) == []
    assert pair.listener.receive(reply, SOURCE, pair.clock) == []
    assert pair.listener.stats.unknown_session == 1, "only the first one counts"
    answer = pair.answer(pair.initiation())
    assert peer.mac2_is_valid(answer, messages.parse_response(answer).mac2, ELSEWHERE, pair.clock)


def test_set_peers() -> None:
    pair = Pair()
    session = pair.shake_hands()
    pair.deliver(session.seal(b"x", pair.clock))
    other = KeyPair(generate_private_key(pair.random))
    pair.listener.set_peers({pair.client.public: PeerConfig(b"\1" * 32), other.public: PeerConfig()})
    pair.deliver(session.seal(b"x", pair.clock))
    response = pair.answer(pair.initiation())
    with pytest.raises(Exception, match="verify"):
        pair.tunnel.receive(response, pair.clock)
    newcomer = Tunnel(other.private, pair.server.public, random=pair.random)
    pair.shake_hands(newcomer)

    pair.listener.set_peers({other.public: PeerConfig()})
    assert pair.listener.receive(session.seal(b"x", pair.clock), SOURCE, pair.clock) == []
    assert pair.listener.receive(pair.initiation(), SOURCE, pair.clock) == []
    assert pair.listener.stats.unknown_peer == 1
    assert pair.listener.session_count == 1


def test_bad_keys() -> None:
    for arguments in (
        (bytes(31), {}),
        (bytes(32), {bytes(31): PeerConfig()}),
        (bytes(32), {bytes(32): PeerConfig(bytes(31))}),
    ):
        with pytest.raises(ValueError, match="32 octets"):
            Listener(*arguments, random=bytes)
    assert "preshared" not in repr(PeerConfig(b"\1" * 32))


def test_responder_speaks_only_when_spoken_to() -> None:
    pair = Pair()
    pair.shake_hands()
    [session] = pair.listener._sessions.values()
    with pytest.raises(SessionExpired):
        session.seal(b"too early", pair.clock)
    assert pair.listener.sessions(pair.client.public) == []
    assert pair.listener.session_at(pair.client.public) is None


def test_load_meter() -> None:
    meter = LoadMeter(10)
    assert [meter.is_under_load(5.0) for _ in range(12)] == [False] * 10 + [True] * 2
    assert meter.is_under_load(6.5), "until a second has passed below the limit"
    assert not meter.is_under_load(7.6)
    assert [meter.is_under_load(20.0 + number / 5) for number in range(50)] == [False] * 50


def test_token_buckets() -> None:
    buckets = TokenBuckets(rate_per_s=2, burst=3, max_entries=4)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("a", 0.5)
    assert not buckets.take("a", 0.6)
    assert buckets.take("a", 100.0)
    for key in range(100):
        assert buckets.take(key, 100.0)
    assert len(buckets) == 4


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("somewhere", "elsewhere", False),
    ],
)
def test_source_network(one: str, other: str, same: bool) -> None:
    assert (source_network(one) == source_network(other)) is same
