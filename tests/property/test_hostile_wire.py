"""Any bytes into any parser: a value or MalformedPacket, and what parses builds back to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raptor_s3.errors import MalformedPacket
from raptor_s3.wire.datagram import build_datagram, datagram_prefix, parse_datagram, plan_object
from raptor_s3.wire.gateway_message import (
    GatewayMessage,
    OutboundPacket,
    Remote,
    Reply,
    build_batch,
    build_packets,
    build_replies,
    parse_messages,
    parse_packets,
    parse_replies,
)
from raptor_s3.wire.put_header import split_put_object
from raptor_s3.wire.transfer_state import build_transfer_state, parse_transfer_state

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: (
        st.lists(children) | st.dictionaries(st.text() | st.sampled_from(["Remote", "Data", "Messages", "Replies"]), children)
    ),
)


HOSTILE = (
    st.sampled_from([10**400, -(10**400), -1, 0, True, 2**64, 1e308, -0.0, float("inf"), float("nan"), 0xFFFF + 1])
    | st.sampled_from(
        ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "\ud800", "9" * 5000, "12345", "\u0663", "=", "%%"]
    )
    | st.datetimes().map(str)
    | st.integers()
    | JSON
)


def mutated(value: Any, data: st.DataObject) -> Any:
    """`value` with something hostile in one place, which may be all of it."""
    inside = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if not inside or data.draw(st.integers(0, 9)) == 0:
        return data.draw(HOSTILE)
    place, held = data.draw(st.sampled_from(inside))
    copy = value.copy()
    copy[place] = mutated(held, data)
    return copy


@pytest.mark.parametrize(
    "parse", [parse_datagram, parse_transfer_state, split_put_object, parse_messages, parse_packets, parse_replies]
)
@given(data=st.binary(max_size=2000))
def test_random_bytes_never_crash_a_parser(parse: Callable[[bytes], Any], data: bytes) -> None:
    try:
        parse(data)
    except MalformedPacket:
        pass


@pytest.mark.parametrize("parse", [parse_messages, parse_packets, parse_replies])
@given(value=JSON)
def test_random_json_never_crashes_a_parser(parse: Callable[[object], Any], value: object) -> None:
    for form in (value, json.dumps(value)):
        try:
            parse(form)
        except MalformedPacket:
            pass


@given(data=st.data())
def test_one_mutated_message_of_a_batch_is_refused_or_parses_and_leaves_the_others(data: st.DataObject) -> None:
    message = GatewayMessage("t", Remote("192.0.2.1", 9, "key="), "gw", 51820, 1_780_000_000.5, "us-east-1", b"data")
    batch = build_batch([message] * 3)
    batch["Messages"][1] = mutated(batch["Messages"][1], data)
    for form in (batch, json.dumps(batch)):
        messages, refused = parse_messages(form)
        assert len(messages) + len(refused) == 3
        assert messages[0] == messages[-1] == message
        for parsed in messages:
            assert 0 <= parsed.received_at < 1e11
            assert 0 <= min(parsed.remote.port, parsed.local_port) <= max(parsed.remote.port, parsed.local_port) <= 0xFFFF


@given(data=st.data())
def test_mutated_answers_never_crash_a_parser(data: st.DataObject) -> None:
    packets = build_packets([OutboundPacket(Remote("192.0.2.1", 9, "key="), b"data")] * 2)
    parsers: list[tuple[Callable[[object], Any], Any]] = [
        (parse_packets, packets),
        (parse_replies, build_replies([Reply("t", b"data")] * 2)),
    ]
    for parse, built in parsers:
        value = mutated(built, data)
        for form in (value, json.dumps(value)):
            try:
                parse(form)
            except MalformedPacket:
                pass


@given(value=JSON)
def test_random_json_never_crashes_the_put_header_parser(value: object) -> None:
    encoded = json.dumps(value).encode()[:65_535]
    try:
        split_put_object(len(encoded).to_bytes(2, "big") + encoded)
    except MalformedPacket:
        pass


@given(
    size=st.integers(0, 4_000_000),
    object_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    flags=st.sampled_from([0, 2]),
    tail=st.binary(max_size=40),
    data=st.data(),
)
def test_a_mutated_datagram_is_refused_or_builds_back_to_the_same_bytes(
    size: int, object_id: str, flags: int, tail: bytes, data: st.DataObject
) -> None:
    oti = plan_object(size, len(object_id.encode()))
    built = bytearray(datagram_prefix(object_id, oti, flags) + bytes(4) + bytes(oti.symbol_size))
    assert parse_datagram(built).oti == oti
    position = data.draw(st.integers(0, min(len(built) - 1, 300)))
    built[position] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_datagram(bytes(built) + tail)
    except MalformedPacket:
        return
    assert build_datagram(parsed) == bytes(built) + tail


@given(head=st.binary(min_size=8, max_size=8), identifier=st.binary(min_size=1, max_size=30))
def test_a_transfer_state_that_parses_builds_back(head: bytes, identifier: bytes) -> None:
    data = b"rapt" + head[:4] + bytes((len(identifier),)) + identifier
    try:
        state = parse_transfer_state(data)
    except MalformedPacket:
        return
    assert build_transfer_state(state) == data
