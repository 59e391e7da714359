"""The wire formats of docs/wire.md, byte for byte, and what their parsers refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raptor_s3.codec import DegreeTable, ObjectTransmissionInformation
from raptor_s3.errors import MalformedPacket
from raptor_s3.wire import datagram as dg
from raptor_s3.wire import gateway_message as gm
from raptor_s3.wire import put_header as ph
from raptor_s3.wire import transfer_state as ts

TRANSFER_ID = "AbCdEfGhIjKlMnOpQrStUv"
OTI = ObjectTransmissionInformation(10_240, 1_280, 1)


def symbol_datagram(**changes: Any) -> dg.Datagram:
    fields = {"object_id": TRANSFER_ID, "oti": OTI, "flags": 3, "sbn": 0, "esi": 0x010203, "symbol": bytes(1280)} | changes
    return dg.Datagram(**fields)


def test_a_datagram_is_laid_out_as_published() -> None:
    oti = ObjectTransmissionInformation(5, 5, 1)
    built = dg.build_datagram(dg.Datagram("a/b.txt", oti, 0, 0, 2, b"hello"))
    assert built == (
        b"\x07a/b.txt"  # object id
        b"\x00\x00\x00\x00\x05\x00\x00\x05"  # F, flags, T
        b"\x01\x00\x01\x04"  # Z, N, Al
        b"\x00\x00\x00\x02"  # SBN, ESI
        b"hello"
    )
    parsed = dg.parse_datagram(built)
    assert (parsed.object_id, parsed.oti, parsed.sbn, parsed.esi, bytes(parsed.symbol)) == ("a/b.txt", oti, 0, 2, b"hello")
    assert parsed.degree_table is DegreeTable.RFC5053
    assert not parsed.has_put_header
    assert dg.prefix_length(built) == len(built) - 9 == len(dg.datagram_prefix("a/b.txt", oti, 0))


def test_a_cancel_has_no_symbol() -> None:
    built = dg.build_datagram(symbol_datagram(flags=7, esi=0, symbol=b""))
    assert dg.parse_datagram(built).is_cancel
    with pytest.raises(MalformedPacket):
        dg.parse_datagram(built + b"x")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, (1, 1)),
        (1, (1, 1)),
        (255, (255, 1)),
        (1_024, (1_024, 1)),
        (1_280, (1_280, 1)),
        (1_281, (641, 1)),
        (10_240, (1_280, 1)),
        (102_400, (800, 1)),
        (524_288, (1_024, 1)),
        (524_289, (1_025, 2)),
        (1_048_576, (1_024, 2)),
    ],
)
def test_objects_are_cut_by_the_rule(size: int, expected: tuple[int, int]) -> None:
    oti = dg.plan_object(size, 22)
    assert (oti.symbol_size, oti.source_blocks) == expected


def test_the_published_sizes_agree() -> None:
    oti = dg.plan_object(1_048_576, 22)
    assert [oti.block_symbols(sbn) for sbn in range(2)] == [512, 512]
    assert dg.plan_object(0, 22).block_symbols(0) == 1


@pytest.mark.parametrize("id_length", [1, 22, 100, 255])
@pytest.mark.parametrize("max_datagram", [1400, 1200, 548])
def test_no_datagram_is_longer_than_the_path_takes(id_length: int, max_datagram: int) -> None:
    for size in (0, 1, 700, 5_000, 100_000, 3_000_000):
        assert dg.OVERHEAD + id_length + dg.plan_object(size, id_length, max_datagram).symbol_size <= max_datagram


def test_what_can_not_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="source blocks"):
        dg.plan_object(255 * 512 * 1024 + 1, 22)
    with pytest.raises(ValueError, match="no room"):
        dg.plan_object(10, 255, 272)
    with pytest.raises(ValueError, match="no room"):
        dg.plan_object(10, 0)


@pytest.mark.parametrize(
    ("offset", "value", "complaint"),
    [
        (0, 0, "no room|left|symbol|unknown|N ="),
        (28, 0x80, "unknown flags"),
        (33, 2, "N = 2"),
        (34, 8, "Al = 8"),
        (31, 0, "0 source blocks"),
        (35, 1, "SBN 1 where Z is 1"),
        (1, 0xFF, "not UTF-8"),
        (1, ord("="), "transfer id"),
    ],
)
def test_a_wrong_octet_is_refused(offset: int, value: int, complaint: str) -> None:
    built = bytearray(dg.build_datagram(symbol_datagram()))
    built[offset] = value
    with pytest.raises(MalformedPacket, match=complaint):
        dg.parse_datagram(built)


def test_every_truncation_of_a_datagram_is_refused() -> None:
    built = dg.build_datagram(symbol_datagram())
    for length in range(len(built)):
        with pytest.raises(MalformedPacket):
            dg.parse_datagram(built[:length])


HEADER = {"Bucket": "b", "Key": "café/ü", "ChecksumCRC32": ph.crc32_field(b"body"), "TtlMs": 4000, "Metadata": {"a": "b"}}


def test_a_put_header_comes_back_as_it_went() -> None:
    fields, body = ph.split_put_object(ph.build_put_header(HEADER) + b"body")
    assert fields == HEADER
    assert bytes(body) == b"body"


def test_crc32_is_written_as_s3_writes_it() -> None:
    assert ph.crc32_field(b"123456789") == "y/Q5Jg=="  # 0xCBF43926, the check value of CRC-32/ISO-HDLC


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ACL": "public-read"}, "'ACL' can't travel"),
        ({"TtlMs": "4000"}, "TtlMs is str"),
        ({"TtlMs": True}, "TtlMs is bool"),
        ({"TtlMs": 3_600_001}, "TtlMs of"),
        ({"Key": ""}, "lacks Key"),
        ({"Key": "ü" * 513}, "longer than 1024"),
        ({"Metadata": {"a": 1}}, "not a string"),
        ({"Metadata": []}, "Metadata is list"),
    ],
)
def test_a_put_header_outside_the_whitelist_is_refused_by_both_ends(changes: dict[str, Any], complaint: str) -> None:
    fields = HEADER | changes
    with pytest.raises(ValueError, match=complaint):
        ph.build_put_header(fields)
    encoded = json.dumps(fields).encode()
    with pytest.raises(MalformedPacket, match=complaint):
        ph.split_put_object(len(encoded).to_bytes(2, "big") + encoded)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x00\x05{}", b"\x00\x02[]", b"\x00\x02{}", b"\x00\x01{", b"\xff\xff" + b"[" * 0xFFFF, b"\x00\x03NaN"]
)
def test_a_broken_put_header_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        ph.split_put_object(data)


def test_a_name_that_stands_twice_is_refused() -> None:
    encoded = json.dumps(HEADER).encode()[:-1] + b',"Key":"other"}'
    with pytest.raises(MalformedPacket, match="twice"):
        ph.split_put_object(len(encoded).to_bytes(2, "big") + encoded)


def test_a_put_header_longer_than_its_length_field_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 65535"):
        ph.build_put_header(HEADER | {"Metadata": {"a": "x" * 66_000}})


def test_a_transfer_state_is_laid_out_as_published() -> None:
    built = ts.build_transfer_state(ts.TransferState(ts.StateType.PACKETS, "ab", sbn=4, received=0x0102))
    assert built == b"rapt\x00\x01\x02\x04\x02ab"
    assert ts.parse_transfer_state(built) == ts.TransferState(ts.StateType.PACKETS, "ab", 4, 0x0102)


def test_a_final_state_carries_the_response() -> None:
    state = ts.TransferState(ts.StateType.COMPLETE, TRANSFER_ID, fields={"ETag": '"abc"', "Size": 3})
    assert ts.parse_transfer_state(ts.build_transfer_state(state)) == state
    assert state.is_final
    assert not ts.TransferState(ts.StateType.BLOCK_COMPLETE, TRANSFER_ID).is_final


def test_a_count_over_65535_is_capped() -> None:
    built = ts.build_transfer_state(ts.TransferState(ts.StateType.PACKETS, "ab", received=70_000))
    assert ts.parse_transfer_state(built).received == 65_535


@pytest.mark.parametrize(
    "data",
    [b"", b"rapt\x00\x00\x00\x00", b"rapt\x00\x00\x00\x00\x00", b"rapt\x00\x00\x00\x00\x02a", b"rapx\x00\x00\x00\x00\x01a"]
    + [
        b"rapt\x05\x00\x00\x00\x01a",
        b"rapt\x03\x00\x00\x00\x01a{",
        b'rapt\x03\x00\x00\x00\x01a{"ETag":',
        b"rapt\x03\x00\x00\x00\x01a{} {}",
        b"rapt\x03\x00\x00\x00\x01a[]",
        b"rapt\x03\x00\x00\x00\x01\xff",
    ],
)
def test_a_broken_transfer_state_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        ts.parse_transfer_state(data)


MESSAGE = gm.GatewayMessage(
    "t1", gm.Remote("2001:db8::1", 5555, "key="), "gateway.example", 51820, 1_780_000_000.123456, "us-west-2", b"\x00\xff"
)


def test_a_gateway_message_comes_back_as_it_went() -> None:
    assert gm.parse_message(json.dumps(gm.build_message(MESSAGE))) == MESSAGE
    assert gm.parse_messages(gm.build_batch([MESSAGE, MESSAGE])) == ([MESSAGE, MESSAGE], [])


def test_the_published_gateway_message_parses() -> None:
    published = {
        "Data": "aGVsbG8=",
        "IngressRegion": "us-east-1",
        "ReceivedAt": "2026-05-01T12:00:00.5Z",
        "Remote": {"IpAddress": "203.0.113.42", "Port": 2048, "PeerKey": "abc="},
    }
    message = gm.parse_message(published)
    assert (message.data, message.remote, message.received_at) == (
        b"hello",
        gm.Remote("203.0.113.42", 2048, "abc="),
        1_777_636_800.5,
    )


@pytest.mark.parametrize("name", ["Address", "IpAddress", "IP"])
def test_all_three_spellings_of_the_address_parse(name: str) -> None:
    value = gm.build_message(MESSAGE)
    value["Remote"] = {name: "192.0.2.1", "Port": "9"}
    assert gm.parse_message(value).remote == gm.Remote("192.0.2.1", 9, "")


@pytest.mark.parametrize(
    "received_at", [1_780_000_000.5, 1_780_000_000_500, "2026-05-28T20:26:40.5Z", "2026-05-28T22:26:40.5+02:00"]
)
def test_a_time_in_seconds_in_milliseconds_and_in_words(received_at: object) -> None:
    assert gm.parse_message(gm.build_message(MESSAGE) | {"ReceivedAt": received_at}).received_at == 1_780_000_000.5


def test_one_bad_message_does_not_take_the_others_with_it() -> None:
    batch = gm.build_batch([MESSAGE, MESSAGE])
    batch["Messages"].insert(1, {"Data": "%%"})
    messages, refused = gm.parse_messages(batch)
    assert messages == [MESSAGE, MESSAGE]
    assert len(refused) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"Data": None}, {"Data": "a"}, {"Data": "*" * 8}, {"Data": "A" * 100_000}, {"Local": 3},
        {"Remote": None}, {"Remote": {"Port": 1}},
        {"Remote": {"IP": "192.0.2.1", "Port": 65_536}},
        {"ReceivedAt": "noon"}, {"ReceivedAt": None}, {"ReceivedAt": float("nan")},
        {"ReceivedAt": 10**400}, {"ReceivedAt": -1}, {"ReceivedAt": True}, {"ReceivedAt": float("inf")}, {"ReceivedAt": 1e14},
        {"ReceivedAt": "1969-12-31T23:59:59Z"}, {"ReceivedAt": "9999-12-31T23:59:59Z"},
        {"Remote": {"IP": "192.0.2.1", "Port": 10**400}}, {"Remote": {"IP": "192.0.2.1", "Port": -1}},
        {"Remote": {"IP": "192.0.2.1", "Port": True}}, {"Remote": {"IP": "192.0.2.1", "Port": 9.0}},
        {"Remote": {"IP": "\ud800", "Port": 9}}, {"Local": {"Port": "9" * 5000}}, {"Local": {"Port": float("nan")}},
        {"Formatter": "hex"}, {"Formatter": 10**5000}, {"Tag": 5}, {"Tag": "\ud800"},
    ],
)  # fmt: skip
def test_a_broken_gateway_message_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedPacket):
        gm.parse_message(gm.build_message(MESSAGE) | change)


def test_replies_and_packets_come_back_as_they_went() -> None:
    replies = [gm.Reply("t1", b"x"), gm.Reply("t2", b"")]
    packets = [gm.OutboundPacket(MESSAGE.remote, b"data")]
    assert gm.parse_replies(json.dumps(gm.build_replies(replies))) == replies
    assert gm.parse_packets(json.dumps(gm.build_packets(packets))) == packets
    assert gm.parse_replies("null") == []


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"Replies": 3}', '{"Replies": [3]}', '{"Replies": [{"Tag": "a"}]}'])
def test_broken_replies_are_refused(text: str) -> None:
    with pytest.raises(MalformedPacket):
        gm.parse_replies(text)
