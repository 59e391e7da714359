"""Attacks on whoever receives: memory beyond the limits, one peer against another, names that can't be encoded, lines in logs."""

import inspect
import logging
import tracemalloc

import pytest
from test_gateway_receiver import DONE, Rig, put

from raptor_s3.codec import ObjectDecoder, ObjectEncoder, ObjectTransmissionInformation
from raptor_s3.errors import MalformedPacket
from raptor_s3.gateway.s3 import S3Sink
from raptor_s3.net import clock
from raptor_s3.transfer import collecting, incoming
from raptor_s3.transfer.collecting import DISPLACE_S
from raptor_s3.transfer.incoming import Collector, CollectorLimits
from raptor_s3.wire.datagram import (
    FLAG_CANCEL,
    FLAG_PUT_HEADER,
    FLAG_RFC6330_REPAIR,
    Datagram,
    build_datagram,
    parse_datagram,
    plan_object,
)
from raptor_s3.wire.put_header import split_put_object
from raptor_s3.wire.transfer_state import StateType

REPAIR = FLAG_RFC6330_REPAIR
PUT = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR


def test_a_peer_that_cancels_all_the_time_silences_nobody_else():
    collector = Collector(CollectorLimits(max_tombstones=100))
    oti = ObjectTransmissionInformation(10, 10, 1)
    for number in range(200):
        collector.receive(b"evil", Datagram(f"{number:022d}", oti, PUT | FLAG_CANCEL, 0, 0, b""), 0.0)
    assert collector.receive(b"good", Datagram("y", oti, REPAIR, 0, 0, bytes(10)), 0.1)


def test_the_timers_of_one_transfer_are_few():
    collector = Collector()
    body = bytes(100_000)
    oti = ObjectTransmissionInformation(len(body), 1000, 1)
    datagram = Datagram("x" * 22, oti, PUT, 0, 0, ObjectEncoder(body, oti).symbol(0, 0))
    now = 0.0
    for _ in range(500):  # the same datagram, again and again
        collector.receive(b"peer", datagram, now)
        now += 0.03
        collector.handle_timer(now)
    assert collector.transfers == 1
    assert len(collector._timers) < 50


def test_memory_is_near_what_is_accounted_with_tiny_symbols():
    limit = 256 << 10
    collector = Collector(CollectorLimits(max_bytes=limit, max_bytes_per_peer=limit))
    symbols = 20_000
    oti = ObjectTransmissionInformation(symbols, 1, 1)
    tracemalloc.start()
    try:
        for number in range(3):
            for esi in range(symbols - 1):
                collector.receive(b"evil", Datagram(f"{number}", oti, REPAIR, 0, symbols + esi, b"x"), 0.0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 * limit


def test_answers_go_early_only_when_their_time_to_live_has_passed():
    """A busy peer must not fall silent for what nobody will ask about any more."""
    rig = Rig(max_tombstones=20)
    (first,), _ = put(TtlMs=4000)
    rig.receive(first)
    rig.sink.writes[0][1](DONE)
    for _ in range(30):
        rig.receive(put(TtlMs=4000)[0][0])
        for _, done in rig.sink.writes[1:]:
            done(DONE)
        del rig.sink.writes[1:]
    rig.sent.clear()
    rig.receive(first)
    assert [state.type for _, state in rig.finals()] == [StateType.COMPLETE]  # remembered, not written again
    assert rig.collector.stats.over_limits > 15
    rig.advance(5.1)
    before = rig.collector.stats.over_limits
    for _ in range(10):
        rig.receive(put(TtlMs=4000)[0][0])
    assert rig.collector.stats.over_limits == before
    rig.now += 100
    rig.receiver.handle_timer(rig.now)
    assert rig.collector.tombstones == 0


def announce(collector: Collector, peer: bytes, name: str, octets: int, now: float, esi: int = 0):
    """One datagram of an object of so many octets."""
    oti = ObjectTransmissionInformation(octets, 1000, 1)
    return collector.receive(peer, Datagram(name.ljust(22, "x"), oti, PUT, 0, esi, bytes(1000)), now, peer)


def full_collector() -> Collector:
    """Two peers hold all the memory, after a datagram each."""
    collector = Collector(CollectorLimits(max_bytes=2_000_000, max_bytes_per_peer=1_000_000))
    for peer in (b"evil", b"eviller"):
        announce(collector, peer, "", 924_000, 0.0)
    return collector


def small_put(collector: Collector, now: float):
    (datagram,), _ = put(b"x" * 200)
    return collector.receive(b"good", parse_datagram(datagram), now, b"good")


def test_peers_that_announce_and_fall_silent_shut_out_nobody_for_long():
    collector = full_collector()
    assert not small_put(collector, DISPLACE_S - 0.1), "over the limits, in silence"
    told, ready = small_put(collector, DISPLACE_S)
    assert (told.origin, told.state.type) == (b"evil", StateType.CANCELLED)
    assert ready.transfer.peer_key == b"good"
    announce(collector, b"good", "more", 150_000, DISPLACE_S)
    assert (collector.transfers, collector.stats.expired) == (3, 1), "one made room for both"


def test_what_was_displaced_stays_dead_as_long_as_if_it_had_idled():
    collector, limits = full_collector(), CollectorLimits()
    small_put(collector, DISPLACE_S)
    gone_at = limits.idle_s + limits.tombstone_s
    for now in range(3, int(gone_at)):
        collector.handle_timer(now)
        (answer,) = announce(collector, b"evil", "", 924_000, now, esi=now)
        assert answer.state.type is StateType.CANCELLED
    assert collector.stats.expired == 2, "the other one, by idling"


def test_who_sent_lately_is_not_displaced():
    collector = full_collector()
    for peer in (b"evil", b"eviller"):
        announce(collector, peer, "", 924_000, 1.0, esi=1)
    assert not small_put(collector, 0.9 + DISPLACE_S)
    assert small_put(collector, 1.0 + DISPLACE_S)


def test_who_holds_less_is_not_displaced():
    collector = Collector(CollectorLimits(max_bytes=300_000, max_bytes_per_peer=300_000))
    announce(collector, b"more", "a", 130_000, 0.0)
    announce(collector, b"less", "a", 100_000, 0.0)
    announce(collector, b"more", "b", 60_000, 10.0)
    assert (collector.transfers, collector.stats.over_limits, collector.stats.expired) == (2, 1, 0)
    (told,) = announce(collector, b"less", "b", 60_000, 10.0)
    assert (told.origin, collector.stats.expired) == (b"more", 1)


def test_what_is_being_written_is_not_displaced():
    collector = Collector(CollectorLimits(max_bytes=4100, max_bytes_per_peer=4100))
    written = [collector.receive(b"evil", parse_datagram(put(b"x" * 200)[0][0]), 0.0) for _ in range(2)]
    assert not small_put(collector, 50.0)
    for (ready,) in written:
        assert collector.finish(ready.transfer, StateType.COMPLETE, None, 50.1)


def test_looking_for_what_can_be_displaced_is_rare(monkeypatch):
    looks = []
    monkeypatch.setattr(incoming, "displaceable", lambda *arguments: looks.append(arguments) or [])
    collector = full_collector()
    for number in range(1000):
        announce(collector, b"good", f"{number}", 150_000, 10 + number / 1000)
    assert 10 < len(looks) <= 21


def test_symbols_that_never_decode_end_their_transfer(monkeypatch):
    """Symbols that depend on each other can be picked among 2^24; each costs memory that the object's size doesn't tell."""

    class Singular(ObjectDecoder):
        def _decode(self, sbn, block):
            block.missing = 1

    monkeypatch.setattr(collecting, "ObjectDecoder", Singular)
    collector = Collector()
    oti = ObjectTransmissionInformation(2000, 1000, 1)
    events, held = (), 0
    for esi in range(1000):
        held = max(held, collector.bytes_held)
        for _ in range(2):  # what comes twice is not charged twice
            events = events or [
                event
                for event in collector.receive(b"peer", Datagram("x" * 22, oti, PUT, 0, esi, bytes(1000)), 0.0)
                if event.state.is_final
            ]
        if events:
            break
    assert 60 < esi < 80
    assert held > 60_000
    assert events[0].state.type is StateType.CANCELLED
    assert collector.bytes_held == 0


def test_trickling_duplicates_keep_no_transfer_alive():
    collector = Collector(CollectorLimits(idle_s=10.0))
    oti = ObjectTransmissionInformation(5000, 1000, 1)
    now = 0.0
    for _ in range(30):
        collector.receive(b"peer", Datagram("x" * 22, oti, PUT, 0, 0, bytes(1000)), now)
        now += 1.0
        collector.handle_timer(now)
    assert collector.stats.expired == 1
    assert collector.bytes_held == 0


def test_nothing_is_written_past_the_put_headers_time_to_live_however_steadily_symbols_come():
    rig = Rig(idle_s=10.0)
    (*some, last), _ = put(b"x" * 50_000, TtlMs=30_000)
    for datagram in some:
        rig.receive(datagram)
        rig.advance(0.9)
    rig.advance(9.0)
    rig.receive(last)
    assert rig.sink.writes == []
    assert {state.type for _, state in rig.finals()} == {StateType.CANCELLED}


def test_a_time_to_live_goes_on_during_suspend():
    assert inspect.signature(S3Sink).parameters["clock"].default is clock.now


def single(header: bytes) -> bytes:
    data = len(header).to_bytes(2, "big") + header
    oti = plan_object(len(data), 22)
    return build_datagram(Datagram("A" * 22, oti, PUT, 0, 0, ObjectEncoder(data, oti).symbol(0, 0)))


@pytest.mark.parametrize("where", ['"Bucket":"data\\ud800","Key":"k"', '"Bucket":"other","Key":"\\ud800"'])
def test_a_name_that_is_no_unicode_is_refused_and_harms_nobody(where):
    """A lone surrogate in the refusal's message made the whole turn fail; a hundred in a row ended the gateway."""
    rig = Rig()
    rig.receive(single(b'{%s,"ChecksumCRC32":"AAAAAA==","TtlMs":4000}' % where.encode()))
    ((_, state),) = rig.finals()
    assert state.type is StateType.FAILED


def test_a_key_can_not_forge_a_line_of_the_log(caplog):
    rig = Rig()
    (datagram,), _ = put(Bucket="other", Key="x\n2026-01-01 CRITICAL raptor_s3.gateway: all is lost")
    with caplog.at_level(logging.INFO, "raptor_s3"):
        rig.receive(datagram)
    assert caplog.records
    assert not any("\n" in record.getMessage() for record in caplog.records)


def test_a_pattern_for_buckets_names_no_access_point():
    """`a*` would match arn:...:accesspoint/..., which may lead to any bucket."""
    bucket = "arn:aws:s3:us-east-1:123456789012:accesspoint/other"
    header = b'{"Bucket":"%s","Key":"k","ChecksumCRC32":"AAAAAA==","TtlMs":4000}' % bucket.encode()
    with pytest.raises(MalformedPacket, match="ARN"):
        split_put_object(len(header).to_bytes(2, "big") + header)
