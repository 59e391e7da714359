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
from raptor_s3.transfer import collecting
from raptor_s3.transfer.incoming import Collector, CollectorLimits
from raptor_s3.wire.datagram import FLAG_CANCEL, FLAG_PUT_HEADER, FLAG_RFC6330_REPAIR, Datagram, build_datagram, plan_object
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
