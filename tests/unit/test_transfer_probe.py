"""The ping, from a Sender to a Collector and back, in virtual time."""

from __future__ import annotations

from raptor_s3.transfer.events import SendState
from raptor_s3.transfer.incoming import Collector
from raptor_s3.transfer.outcome import Ending
from raptor_s3.transfer.probe import Probe
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.datagram import parse_datagram

PEER = b"p" * 32
ID = "AAAAAAAAAAAAAAAAAAAAAA"


def fly(sender: Sender, now: float) -> list[bytes]:
    """The datagrams that the sender wants to send now."""
    datagrams = []
    while (item := sender.next_run(now)) is not None:
        transfer, run = item
        arena = bytearray(transfer.datagram_size * run.length)
        assert transfer.write(run, arena, 0, transfer.datagram_size) == len(arena)
        datagrams.append(bytes(arena))
    return datagrams


def make(now: float = 10.0, timeout_s: float = 3.0) -> tuple[Sender, Probe]:
    sender = Sender(now)
    probe = Probe(ID, timeout_s, now, sender.path)
    sender.add(probe)
    return sender, probe


def test_a_receiver_answers_and_has_nothing_to_write() -> None:
    sender, probe = make()
    [datagram] = fly(sender, 10.0)
    assert parse_datagram(datagram).is_cancel
    events = Collector().receive(PEER, parse_datagram(datagram), 10.02)
    [event] = events
    assert isinstance(event, SendState)
    sender.receive_state(event.state, 10.05)
    assert sender.ended == [probe]
    assert probe.outcome is Ending.CONFIRMED
    assert probe.stats.rtt_s is not None
    assert abs(probe.stats.rtt_s - 0.05) < 1e-9


def test_a_lost_ping_is_not_sent_again_and_ends_in_time() -> None:
    sender, probe = make()
    fly(sender, 10.0)
    now, silences = 10.0, 0
    while not sender.ended:
        now = sender.get_timer()
        assert now <= 13.0
        silences = max(silences, sender.handle_timer(now))
        assert fly(sender, now) == []
    assert now == 13.0
    assert probe.outcome is Ending.TIMED_OUT
    assert probe.stats.datagrams_sent == 1


def test_silences_are_counted_and_a_new_session_asks_again() -> None:
    sender, probe = make(timeout_s=60.0)
    fly(sender, 10.0)
    now = 10.0
    while probe.silences < 2:
        now = sender.get_timer()
        sender.handle_timer(now)
    sender.change_session(probe, now)
    assert probe.silences == 0
    assert sender.handle_timer(now + 1e-4) == 0, "the question under the new session is not overdue before it is sent"
    [datagram] = fly(sender, now)
    assert parse_datagram(datagram).object_id == ID
    assert probe.stats.handshake


def test_a_state_before_anything_was_sent_is_ignored() -> None:
    _, probe = make()
    [event] = Collector().receive(PEER, parse_datagram(probe.prefix + bytes(4)), 10.0)
    assert isinstance(event, SendState)
    probe.receive_state(event.state, 10.0)
    assert probe.outcome is None


def test_on_a_short_path_the_timer_moves_on_with_each_silence() -> None:
    """A gateway on the same machine that was restarted: many timeouts fit into the patience of one ping."""
    sender, probe = make()
    for _ in range(20):
        sender.path.rtt.sample(0.0005, 10.0)
    fly(sender, 10.0)
    now = 10.0
    for _ in range(100):
        if sender.ended:
            break
        due = sender.get_timer()
        assert due > now
        now = due
        sender.handle_timer(now)
    assert probe.outcome is Ending.TIMED_OUT
    assert now == 13.0
