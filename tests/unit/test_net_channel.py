"""The client's side of a handshake where datagrams get lost: what is sent when, in virtual time."""

from __future__ import annotations

import os

import pytest

from raptor_s3.errors import AuthenticationFailed, MalformedPacket, SessionExpired
from raptor_s3.net.channel import RETRANSMIT_S, WireGuardChannel
from raptor_s3.net.session_store import SessionStore
from raptor_s3.net.settings import EndpointSettings
from raptor_s3.wireguard.constants import REPEAT_INITIATION
from raptor_s3.wireguard.keys import generate_private_key, public_key
from raptor_s3.wireguard.listener import Data, Listener, PeerConfig, Send

SOURCE = ("192.0.2.7", 4711)


class Ends:
    def __init__(self) -> None:
        server, client = generate_private_key(os.urandom), generate_private_key(os.urandom)
        settings = EndpointSettings("wg://192.0.2.1:51820", public_key(server), client, share_sessions=False)
        self.channel = WireGuardChannel(settings, SessionStore(None))
        self.listener = Listener(server, {public_key(client): PeerConfig()}, random=os.urandom)

    def answer(self, message: bytes | None, now: float) -> bytes:
        assert message is not None
        [outcome] = self.listener.receive(message, SOURCE, now)
        assert isinstance(outcome, Send)
        return outcome.message


@pytest.fixture
def ends() -> Ends:
    return Ends()


def test_an_initiation_is_said_twice_and_then_anew(ends: Ends) -> None:
    channel = ends.channel
    first = channel.handshake(100.0)
    assert first is not None
    assert channel.repetition(100.0) is None
    assert channel.get_timer() == 100.0 + REPEAT_INITIATION
    assert channel.handshake(channel.get_timer()) is None
    assert channel.repetition(100.0 + REPEAT_INITIATION) == first
    assert channel.repetition(100.1) is None
    again_at = channel.get_timer()
    assert again_at - 100.0 >= RETRANSMIT_S
    second = channel.handshake(again_at)
    assert second not in (None, first)
    assert channel.repetition(again_at + REPEAT_INITIATION) == second


def test_nothing_is_repeated_after_the_response(ends: Ends) -> None:
    response = ends.answer(ends.channel.handshake(100.0), 100.0)
    ends.channel.receive(memoryview(response), 100.01)
    assert ends.channel.renewed
    assert ends.channel.repetition(101.0) is None
    assert ends.channel.handshake_rtt_s == pytest.approx(0.01)


def test_of_two_initiations_and_their_two_responses_one_each_is_enough(ends: Ends) -> None:
    """The first initiation is lost, or the response to it; the second response comes."""
    first = ends.channel.handshake(100.0)
    ends.answer(first, 100.05)
    copy = ends.channel.repetition(100.0 + REPEAT_INITIATION)
    ends.channel.receive(memoryview(ends.answer(copy, 100.075)), 100.125)
    session = ends.channel.acquire(100.125)
    assert session is not None
    [outcome] = ends.listener.receive(session.seal(b"sent at once", 100.125), SOURCE, 100.175)
    assert outcome.plaintext == b"sent at once"
    assert ends.listener.stats.handshakes == 1
    assert ends.channel.handshake_rtt_s == pytest.approx(0.125), "not much too long"


def test_a_copy_that_leaves_late_spoils_the_measurement(ends: Ends) -> None:
    ends.channel.handshake(100.0)
    copy = ends.channel.repetition(100.2)
    ends.channel.receive(memoryview(ends.answer(copy, 100.2)), 100.21)
    assert ends.channel.handshake_rtt_s is None


def test_a_handshake_that_was_given_up_is_not_repeated(ends: Ends) -> None:
    ends.channel.handshake(100.0)
    ends.channel.abandon_handshake()
    assert ends.channel.repetition(101.0) is None


def test_data_of_the_session_before_still_comes_in(ends: Ends) -> None:
    """Also when the new one is `fresh`; what is nobody's raises and changes nothing."""
    replies = []
    for now in (100.0, 200.0):
        ends.channel.receive(memoryview(ends.answer(ends.channel.handshake(now), now)), now)
        session = ends.channel.acquire(now)
        assert session is not None
        [outcome] = ends.listener.receive(session.seal(b"question", now), SOURCE, now)
        assert isinstance(outcome, Data)
        replies.append([outcome.session.seal(answer, now) for answer in (b"answer", b"another", b"")])
    assert ends.channel.fresh is ends.channel.acquire(200.0)
    for old, new, answer in zip(*replies, (b"answer", b"another", None), strict=True):
        for message in (new, old):
            with pytest.raises(AuthenticationFailed):
                ends.channel.receive(memoryview(message[:-1] + bytes((message[-1] ^ 1,))), 200.0)
            assert ends.channel.receive(memoryview(message), 200.0) == answer
            with pytest.raises(AuthenticationFailed):
                ends.channel.receive(memoryview(message), 200.0)
    for size in range(32):
        with pytest.raises(MalformedPacket):
            ends.channel.receive(memoryview(new[:size]), 200.0)
    with pytest.raises(SessionExpired):
        ends.channel.receive(memoryview(new[:4] + bytes((new[4] ^ 1,)) + new[5:]), 200.0)
