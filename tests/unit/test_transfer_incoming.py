"""The Collector, one datagram at a time: what it reports, when it answers, what it forgets."""

from __future__ import annotations

import os
from typing import Any

import pytest

from raptor_s3.codec import ObjectEncoder, ObjectTransmissionInformation
from raptor_s3.transfer.events import CancelWrite, ObjectReady, SendState, TransferKey
from raptor_s3.transfer.incoming import Collector, CollectorLimits
from raptor_s3.wire.datagram import FLAG_CANCEL, FLAG_PUT_HEADER, FLAG_RFC6330_REPAIR, Datagram, build_datagram, plan_object
from raptor_s3.wire.put_header import build_put_header, crc32_field
from raptor_s3.wire.transfer_state import StateType, TransferState, build_transfer_state

PEER = b"peer"
PUT = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR
ID = "x" * 22


class Object:
    """A coded object, and its datagrams by number."""

    def __init__(self, size: int, *, flags: int = PUT, object_id: str = ID, ttl_ms: int = 4000, bucket: str = "b") -> None:
        self.body = os.urandom(size)
        data = self.body
        if flags & FLAG_PUT_HEADER:
            fields = {"Bucket": bucket, "Key": "k", "ChecksumCRC32": crc32_field(self.body), "TtlMs": ttl_ms}
            data = build_put_header(fields) + self.body
        self.object_id, self.flags = object_id, flags
        self.oti = plan_object(len(data), len(object_id))
        self.symbols = self.oti.block_symbols(0)
        self._encoder = ObjectEncoder(data, self.oti)

    def datagram(self, esi: int, sbn: int = 0) -> Datagram:
        return Datagram(self.object_id, self.oti, self.flags, sbn, esi, self._encoder.symbol(sbn, esi))

    @property
    def cancel(self) -> Datagram:
        return Datagram(self.object_id, self.oti, self.flags | FLAG_CANCEL, 0, 0, b"")


def states(events: Any) -> list[TransferState]:
    return [event.state for event in events if isinstance(event, SendState)]


def ready(events: Any) -> ObjectReady:
    (event,) = [event for event in events if isinstance(event, ObjectReady)]
    return event


def complete(collector: Collector, event: ObjectReady, now: float) -> Any:
    return collector.finish(event.transfer, StateType.COMPLETE, {"ETag": "e"}, now)


def test_an_object_becomes_ready_once_with_its_header_and_its_origin() -> None:
    collector, obj = Collector(), Object(1000)
    event = ready(collector.receive(PEER, obj.datagram(0), 5.0, "here"))
    assert (bytes(event.body), event.fields and event.fields["Key"]) == (obj.body, "k")
    assert event.transfer == TransferKey(PEER, ID)
    assert 5.0 < event.expires_at <= 9.0
    (state,) = states(complete(collector, event, 5.1))
    assert (state.type, state.fields, state.received) == (StateType.COMPLETE, {"ETag": "e"}, 1)
    with pytest.raises(KeyError):
        complete(collector, event, 5.2)


@pytest.mark.parametrize("flags", [PUT, FLAG_RFC6330_REPAIR])
def test_an_object_of_one_symbol_is_the_same_from_its_source_symbol_and_from_repair(flags: int) -> None:
    obj = Object(1000, flags=flags)
    assert obj.symbols == 1
    outcomes = []
    for esi in (0, 3):
        collector = Collector()
        event = ready(collector.receive(PEER, obj.datagram(esi), 5.0, "here"))
        assert bytes(event.body) == obj.body
        assert not collector.receive(PEER, obj.datagram(7), 5.001, "there")  # more of it, while it is written
        assert collector.bytes_held > 1000
        answers = states(complete(collector, event, 5.002))
        assert [answer.received for answer in answers] == ([1 + esi] if flags == PUT else [0])
        told = (event.transfer, event.data, event.fields, event.received_at, event.expires_at, event.origin)
        outcomes.append((told, [answer._replace(received=0) for answer in answers], collector.bytes_held, collector.stats))
    assert outcomes[0] == outcomes[1]


def test_a_foreign_symbol_longer_than_its_object_is_cut() -> None:
    oti = ObjectTransmissionInformation(10, 64, 1)
    event = ready(Collector().receive(PEER, Datagram("path", oti, FLAG_RFC6330_REPAIR, 0, 0, memoryview(bytes(range(64)))), 0.0))
    assert bytes(event.body) == bytes(range(10))


def test_an_empty_object_of_one_symbol() -> None:
    oti = ObjectTransmissionInformation(0, 4, 1)
    event = ready(Collector().receive(PEER, Datagram("path", oti, FLAG_RFC6330_REPAIR, 0, 0, bytes(4)), 0.0))
    assert bytes(event.body) == b""


def test_the_answer_goes_to_the_latest_origin() -> None:
    collector, obj = Collector(), Object(5000)
    for esi in range(obj.symbols - 1):
        collector.receive(PEER, obj.datagram(esi), 0.0, "first")
    event = ready(collector.receive(PEER, obj.datagram(obj.symbols - 1), 0.0, "second"))
    (answer,) = complete(collector, event, 0.0)
    assert answer.origin == "second"


def test_two_peers_never_share_a_transfer() -> None:
    collector, obj = Collector(), Object(5000)
    for esi in range(obj.symbols - 1):
        collector.receive(b"one", obj.datagram(esi), 0.0)
    assert not collector.receive(b"two", obj.datagram(obj.symbols - 1), 0.0)
    assert collector.transfers == 2


def test_a_report_names_its_datagram_and_counts_distinct_symbols() -> None:
    collector, obj = Collector(), Object(100_000)
    reports = []
    for esi in [0, 1, 1, 2, 4, 5, 6, 9]:
        reports += states(collector.receive(PEER, obj.datagram(esi), esi / 1000))
    (report,) = reports
    assert (report.type, report.received, report.fields) == (StateType.PACKETS, 7, {"Esi": 9, "Us": 9000})


def test_a_fast_flight_is_reported_now_and_then_a_slow_one_often() -> None:
    def count(interval_s: float) -> int:
        collector, obj = Collector(), Object(400_000)
        return sum(len(states(collector.receive(PEER, obj.datagram(esi), esi * interval_s))) for esi in range(400))

    assert 2 <= count(0.000_01) <= 8
    assert 20 <= count(0.001) <= 30
    assert 100 <= count(0.02) <= 250


def test_reports_are_smaller_than_what_set_them_off() -> None:
    """Symbols of one octet: a report about each would be an amplifier."""
    collector = Collector()
    oti = ObjectTransmissionInformation(1000, 1, 1)
    received = sent = 0
    for esi in range(900):
        datagram = Datagram(ID, oti, PUT, 0, esi, b"x")
        received += len(build_datagram(datagram))
        events = list(collector.receive(PEER, datagram, esi * 0.05))
        due = collector.get_timer()
        if due is not None and due < (esi + 1) * 0.05:
            events += collector.handle_timer(due)
        sent += sum(len(build_transfer_state(event.state)) * event.copies for event in events)
    assert 0 < sent <= received


def test_a_transfer_that_falls_quiet_says_what_it_has() -> None:
    collector, obj = Collector(), Object(10_000)
    for esi in range(5):
        collector.receive(PEER, obj.datagram(esi), 1.0)
    due = collector.get_timer()
    assert due == pytest.approx(1.02)
    (report,) = states(collector.handle_timer(due))
    assert (report.received, report.fields) == (5, {"Esi": 4, "Us": 0, "Wait": 20_000})
    assert not states(collector.handle_timer(due + 1)), "once"


def test_a_slow_write_is_announced_and_a_question_answered() -> None:
    collector, obj = Collector(), Object(1000)
    event = ready(collector.receive(PEER, obj.datagram(0), 0.0))
    (progress,) = states(collector.handle_timer(0.011))
    assert (progress.type, progress.received) == (StateType.BLOCK_COMPLETE, 1)
    assert not collector.receive(PEER, obj.datagram(1), 0.012)
    (answer,) = states(collector.receive(PEER, obj.datagram(2), 0.2))
    assert answer.type is StateType.BLOCK_COMPLETE
    assert states(complete(collector, event, 0.3))[0].type is StateType.COMPLETE


def test_blocks_complete_one_by_one() -> None:
    collector, obj = Collector(), Object(700_000)
    told = []
    for sbn in range(obj.oti.source_blocks):
        for esi in range(obj.oti.block_symbols(sbn)):
            events = collector.receive(PEER, obj.datagram(esi, sbn), 0.0)
            told += [state.sbn for state in states(events) if state.type is StateType.BLOCK_COMPLETE]
    assert told == list(range(obj.oti.source_blocks - 1))
    assert bytes(ready(events).body) == obj.body


def test_late_symbols_and_questions_get_the_final_state_again() -> None:
    collector, obj = Collector(), Object(1000)
    complete(collector, ready(collector.receive(PEER, obj.datagram(0), 0.0, "here")), 0.0)
    assert len(states(collector.receive(PEER, obj.datagram(1), 0.001, "here"))) == 1, "the tail of the flight, once"
    assert not collector.receive(PEER, obj.datagram(2), 0.002, "here")
    (answer,) = states(collector.receive(PEER, obj.datagram(3), 0.2, "here"))
    assert answer.type is StateType.COMPLETE
    assert states(collector.handle_timer(0.2125)) == [answer], "the first answer got lost: this one comes twice"
    assert collector.stats.ready == 1


def test_confirmations_come_twice_to_lossy_peers() -> None:
    collector = Collector()
    for number in range(20):
        obj = Object(10_000, object_id=f"{number:022d}")
        kept = [esi for esi in range(obj.symbols + 1) if esi != 3]
        events: Any = ()
        for esi in kept:
            events = collector.receive(PEER, obj.datagram(esi), number, "here")
        complete(collector, ready(events), number)
    assert len(states(collector.handle_timer(number + 0.015))) >= 1


def test_a_cancel_ends_a_transfer_and_late_symbols_cannot_revive_it() -> None:
    collector, obj = Collector(), Object(5000)
    collector.receive(PEER, obj.datagram(0), 0.0)
    (state,) = states(collector.receive(PEER, obj.cancel, 0.1))
    assert state.type is StateType.CANCELLED
    for esi in range(1, obj.symbols + 3):
        for answer in states(collector.receive(PEER, obj.datagram(esi), 0.2)):
            assert answer.type is StateType.CANCELLED
    assert collector.stats.ready == 0
    assert collector.bytes_held == 0


def test_a_cancel_that_overtakes_its_transfer_works_too() -> None:
    collector, obj = Collector(), Object(1000)
    (state,) = states(collector.receive(PEER, obj.cancel, 0.0))
    assert state.type is StateType.CANCELLED
    collector.receive(PEER, obj.datagram(0), 0.1)
    assert collector.stats.ready == 0


def test_a_cancel_during_the_write_asks_the_host() -> None:
    collector, obj = Collector(), Object(1000)
    event = ready(collector.receive(PEER, obj.datagram(0), 0.0))
    assert list(collector.receive(PEER, obj.cancel, 0.1)) == [CancelWrite(event.transfer)]
    assert states(complete(collector, event, 0.2))[0].type is StateType.COMPLETE


def test_what_is_decoded_after_its_time_to_live_is_not_written() -> None:
    collector, obj = Collector(), Object(5000, ttl_ms=1000)
    for esi in range(obj.symbols - 1):
        collector.receive(PEER, obj.datagram(esi), 0.0)
    events = collector.receive(PEER, obj.datagram(obj.symbols), 1.001)
    assert [state.type for state in states(events)] == [StateType.CANCELLED]
    assert collector.stats.ready == 0


def test_the_first_datagram_pins_the_object() -> None:
    collector, obj, other = Collector(), Object(5000), Object(6000)
    collector.receive(PEER, obj.datagram(0), 0.0)
    assert not collector.receive(PEER, other.datagram(1), 0.0)
    assert not collector.receive(PEER, obj.datagram(1)._replace(flags=FLAG_PUT_HEADER), 0.0)
    assert collector.stats.mismatched == 2


def test_what_is_too_many_is_met_with_silence() -> None:
    limits = CollectorLimits(max_object_bytes=4000, max_bytes_per_peer=20_000, max_transfers_per_peer=3)
    collector = Collector(limits)
    for number in range(10):
        collector.receive(PEER, Object(3000, object_id=f"{number:022d}").datagram(0), 0.0)
    assert collector.transfers <= 3
    assert collector.bytes_held <= 20_000
    assert collector.stats.over_limits >= 7


@pytest.mark.parametrize("limit", ["max_object_bytes", "max_bytes_per_peer"])
def test_what_will_never_fit_is_refused_for_good(limit: str) -> None:
    """Silence would pass for a path that swallows long datagrams."""
    collector, obj = Collector(CollectorLimits(**{limit: 4000})), Object(5000)
    (state,) = states(collector.receive(PEER, obj.datagram(0), 0.0, "here"))
    assert state.type is StateType.FAILED
    assert state.fields is not None
    assert (state.fields["Code"], state.fields["StatusCode"]) == ("EntityTooLarge", 400)
    assert state.fields["Message"].startswith("gateway: ")
    collector.limits = CollectorLimits()
    for esi in range(obj.symbols):
        assert not any(isinstance(event, ObjectReady) for event in collector.receive(PEER, obj.datagram(esi), 0.1))
    assert (collector.transfers, collector.bytes_held, collector.tombstones) == (0, 0, 1)
    assert collector.stats.over_limits == 1


def test_a_bare_object_that_will_never_fit_is_met_with_silence() -> None:
    """Published senders take any state but 0 for a success."""
    collector = Collector(CollectorLimits(max_object_bytes=4000))
    assert not collector.receive(PEER, Object(5000, flags=0, object_id="folder/file").datagram(0), 0.0)
    assert not collector.tombstones


def test_a_bare_object_gets_only_states_that_its_sender_understands() -> None:
    collector, obj = Collector(), Object(3000, flags=0, object_id="folder/file")
    for esi in range(obj.symbols):
        events = collector.receive(PEER, obj.datagram(esi), 0.0)
    event = ready(events)
    assert (event.fields, bytes(event.body)) == (None, obj.body)
    (state,) = states(complete(collector, event, 0.0))
    assert (state.type, state.fields) == (StateType.COMPLETE, None)
    failing = Object(100, flags=0, object_id="other")
    event = ready(collector.receive(PEER, failing.datagram(0), 0.0))
    assert not states(collector.finish(event.transfer, StateType.FAILED, {"Code": "AccessDenied"}, 0.0))


def test_a_path_may_come_again() -> None:
    collector, obj = Collector(), Object(500, flags=0, object_id="file")
    complete(collector, ready(collector.receive(PEER, obj.datagram(0), 0.0)), 0.0)
    assert not collector.receive(PEER, obj.datagram(1), 0.01) or collector.stats.ready == 1
    again = Object(600, flags=0, object_id="file")
    assert bytes(ready(collector.receive(PEER, again.datagram(0), 0.02)).body) == again.body
    same_size = Object(500, flags=0, object_id="file2")
    complete(collector, ready(collector.receive(PEER, same_size.datagram(0), 1.0)), 1.0)
    ready(collector.receive(PEER, same_size.datagram(0), 3.0))


def test_everything_is_forgotten_in_time() -> None:
    collector = Collector()
    for number in range(50):
        obj = Object(3000, object_id=f"{number:022d}")
        collector.receive(PEER, obj.datagram(0), 0.0)
    complete(collector, ready(collector.receive(PEER, Object(10).datagram(0), 0.0)), 0.0)
    now = 0.0
    while (due := collector.get_timer()) is not None and now < 10_000:
        now = due
        collector.handle_timer(now)
    assert (collector.transfers, collector.tombstones, collector.bytes_held) == (0, 0, 0)
