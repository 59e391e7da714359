"""Direct mode without sockets: a real Collector, real datagrams, a sink that a test finishes by hand, a clock that it sets."""

from __future__ import annotations

import base64
import os

import pytest

from raptor_s3.codec import ObjectEncoder
from raptor_s3.gateway.direct import DirectReceiver
from raptor_s3.gateway.stats import Stats
from raptor_s3.receiver.outcome import CANCELLED, Outcome
from raptor_s3.receiver.policy import Grant, Policy, Rule
from raptor_s3.transfer.incoming import Collector, CollectorLimits
from raptor_s3.wire.datagram import FLAG_CANCEL, FLAG_PUT_HEADER, FLAG_RFC6330_REPAIR, Datagram, build_datagram, plan_object
from raptor_s3.wire.put_header import build_put_header, crc32_field
from raptor_s3.wire.transfer_state import StateType, parse_transfer_state

PEER = bytes(range(32))


class HandSink:
    def __init__(self) -> None:
        self.writes = []
        self.cancelled = []
        self.is_full = False

    def submit(self, write, done) -> bool:
        if not self.is_full:
            self.writes.append((write, done))
        return not self.is_full

    def cancel(self, write) -> None:
        self.cancelled.append(write)

    @property
    def load(self) -> int:
        return len(self.writes)

    def close(self, timeout_s) -> None:
        pass


class Rig:
    def __init__(self, **limits) -> None:
        self.now = 100.0
        self.sink = HandSink()
        self.stats = Stats()
        self.sent = []
        self.collector = Collector(CollectorLimits(**limits))
        self.receiver = DirectReceiver(
            self.collector,
            self.sink,
            Policy({base64.b64encode(PEER).decode(): Grant("peer cam", (Rule("data"),))}),
            self.stats,
            send=lambda origin, payload: self.sent.append((origin, parse_transfer_state(payload))),
            clock=lambda: self.now,
        )

    def receive(self, data: bytes, origin="home") -> None:
        self.receiver.receive(origin, PEER, data, self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        timer = self.receiver.get_timer()
        if timer is not None and timer <= self.now:
            self.receiver.handle_timer(self.now)

    def finals(self) -> list:
        return [(origin, state) for origin, state in self.sent if state.is_final]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def put(body: bytes = b"body", **fields) -> tuple[list[bytes], bytes]:
    """The source datagrams of a put, and its cancel."""
    fields = {"Bucket": "data", "Key": "k", "ChecksumCRC32": crc32_field(body), "TtlMs": 5000, **fields}
    data = build_put_header(fields) + body
    object_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
    oti = plan_object(len(data), 22)
    encoder = ObjectEncoder(data, oti)
    flags = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR
    count = oti.block_symbols(0)
    datagrams = [build_datagram(Datagram(object_id, oti, flags, 0, esi, encoder.symbol(0, esi))) for esi in range(count)]
    return datagrams, build_datagram(Datagram(object_id, oti, flags | FLAG_CANCEL, 0, 0, b""))


DONE = Outcome(StateType.COMPLETE, {"ETag": '"e"', "VersionId": "7"})


def test_the_sinks_word_is_the_answer(rig):
    (datagram,), _ = put(ContentType="text/plain")
    rig.receive(datagram)
    ((write, done),) = rig.sink.writes
    assert write.parameters == {"Bucket": "data", "Key": "k", "ChecksumCRC32": crc32_field(b"body"), "ContentType": "text/plain"}
    assert bytes(write.body) == b"body"
    assert write.deadline == 104.5  # nothing begins in the last moment
    assert rig.finals() == []
    done(DONE)
    ((origin, state),) = rig.finals()
    assert (origin, state.type, state.fields) == ("home", StateType.COMPLETE, DONE.fields)
    assert rig.collector.bytes_held == 0
    assert rig.receiver.load == 0


def test_the_answer_goes_where_the_latest_datagram_came_from(rig):
    (datagram,), _ = put()
    rig.receive(datagram, "home")
    rig.receive(datagram, "moved")
    rig.sink.writes[0][1](DONE)
    assert {origin for origin, _ in rig.finals()} == {"moved"}


def test_a_cancel_during_the_write_is_answered_by_its_outcome(rig):
    (datagram,), cancel = put()
    rig.receive(datagram)
    rig.receive(cancel)
    assert rig.sink.cancelled == [rig.sink.writes[0][0]]
    assert rig.finals() == []
    rig.sink.writes[0][1](DONE)
    assert {state.type for _, state in rig.finals()} == {StateType.COMPLETE}
    rig.advance(1.0)
    rig.receive(cancel)
    assert {state.type for _, state in rig.finals()} == {StateType.COMPLETE}


def test_a_cancel_that_the_sink_could_follow(rig):
    (datagram,), cancel = put()
    rig.receive(datagram)
    rig.receive(cancel)
    rig.sink.writes[0][1](CANCELLED)
    assert {state.type for _, state in rig.finals()} == {StateType.CANCELLED}
    rig.receive(datagram)
    assert len(rig.sink.writes) == 1


def test_a_slow_write_is_announced_but_not_called_done(rig):
    (datagram,), _ = put()
    rig.receive(datagram)
    rig.advance(0.5)
    assert {state.type for _, state in rig.sent} == {StateType.BLOCK_COMPLETE}


def test_what_was_decoded_too_late_is_not_written(rig):
    (*some, last), _ = put(b"x" * 5000, TtlMs=1000)
    for datagram in some:
        rig.receive(datagram)
    rig.now += 1.0
    rig.receive(last)
    assert rig.sink.writes == []
    assert [state.type for _, state in rig.finals()][:1] == [StateType.CANCELLED]


def test_a_full_sink_sends_the_client_elsewhere(rig):
    rig.sink.is_full = True
    (datagram,), _ = put()
    rig.receive(datagram)
    (_, state), *_ = rig.finals()
    assert (state.fields["Code"], state.fields["StatusCode"]) == ("SlowDown", 503)
    assert rig.stats.dropped_full == 1
    assert rig.receiver.load == 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"Bucket": "other"}, "AccessDenied"),
        ({"Tagging": "a=b"}, "AccessDenied"),
        ({"ChecksumCRC32": "AAAAAA=="}, "BadDigest"),
    ],
)
def test_what_is_refused_reaches_no_sink_and_says_who_refuses(rig, fields, code):
    (datagram,), _ = put(**fields)
    rig.receive(datagram)
    (_, state), *_ = rig.finals()
    assert state.fields["Code"] == code
    assert state.fields["Message"].startswith("gateway:")
    assert rig.sink.writes == []


def test_a_malformed_put_header_is_the_gateways_own_refusal(rig):
    data = b"\x00\x02{}"
    oti = plan_object(len(data), 22)
    flags = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR
    rig.receive(build_datagram(Datagram("A" * 22, oti, flags, 0, 0, ObjectEncoder(data, oti).symbol(0, 0))))
    (_, state), *_ = rig.finals()
    assert state.fields["Code"] == "InvalidRequest"
    assert state.fields["Message"].startswith("gateway:")


def test_a_peer_that_was_removed_meanwhile_is_refused(rig):
    (*some, last), _ = put(b"x" * 5000)
    for datagram in some:
        rig.receive(datagram)
    rig.receiver.policy = Policy()
    rig.receive(last)
    assert rig.finals()[0][1].fields["Code"] == "AccessDenied"


def test_a_flood_of_transfers_stays_within_the_bounds():
    rig = Rig(max_bytes=1_000_000, max_bytes_per_peer=1_000_000)
    for _ in range(300):
        datagrams, _ = put(b"x" * 50_000)
        rig.receive(datagrams[0])
    assert rig.collector.bytes_held <= 1_000_000
    described = rig.receiver.describe()
    assert described["dropped_over_limits"] > 250
    rig.advance(1000.0)
    assert rig.collector.bytes_held == 0


def test_errors_with_long_messages_still_fit_a_datagram(rig):
    (datagram,), _ = put(Bucket="b" * 60, Key="k" * 900)
    rig.receive(datagram)
    (_, state), *_ = rig.finals()
    assert len(state.fields["Message"]) <= 400
