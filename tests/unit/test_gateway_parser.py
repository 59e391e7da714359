"""The parser that remembers prefixes says what parse_datagram says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raptor_s3.errors import MalformedPacket
from raptor_s3.gateway import parser as module
from raptor_s3.gateway.parser import DatagramParser
from raptor_s3.wire.datagram import (
    FLAG_CANCEL,
    FLAG_PUT_HEADER,
    FLAG_RFC6330_REPAIR,
    Datagram,
    build_datagram,
    parse_datagram,
    plan_object,
)

PUT = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR


def datagram(object_id: str = "x" * 22, size: int = 600_000, sbn: int = 0, esi: int = 0, flags: int = PUT) -> bytes:
    oti = plan_object(size, len(object_id.encode()))
    symbol = b"" if flags & FLAG_CANCEL else bytes([esi % 256]) * oti.symbol_size
    return build_datagram(Datagram(object_id, oti, flags, sbn, esi, symbol))


def verdict(parse, data: bytes) -> object:
    try:
        parsed = parse(data)
    except MalformedPacket:
        return MalformedPacket
    return parsed._replace(symbol=bytes(parsed.symbol))


@st.composite
def messages(draw) -> bytes:
    """Datagrams of a handful of transfers, whole or damaged anywhere."""
    data = datagram(
        draw(st.sampled_from(["x" * 22, "y" * 22, "z" * 22])),
        draw(st.sampled_from([0, 1, 1000, 5000, 600_000])),
        draw(st.integers(0, 2)),
        draw(st.integers(0, 2**24 - 1)),
        draw(st.sampled_from([PUT, PUT, 0, FLAG_CANCEL, PUT | FLAG_CANCEL])),
    )
    match draw(st.sampled_from(["whole", "whole", "cut", "longer", "flipped", "garbage"])):
        case "cut":
            return data[: draw(st.integers(0, len(data) - 1))]
        case "longer":
            return data + draw(st.binary(min_size=1, max_size=4))
        case "flipped":
            position = draw(st.integers(0, min(40, len(data) - 1)))
            return data[:position] + bytes([data[position] ^ draw(st.integers(1, 255))]) + data[position + 1 :]
        case "garbage":
            return draw(st.binary(max_size=60))
    return data


@given(st.lists(messages(), max_size=30))
def test_the_same_verdict_whatever_came_before(stream):
    parser = DatagramParser()
    for data in stream:
        assert verdict(parser.parse, data) == verdict(parse_datagram, data)


def test_a_second_datagram_is_not_parsed_again(monkeypatch):
    parser = DatagramParser()
    parser.parse(datagram(esi=1))
    monkeypatch.setattr(module, "parse_datagram", None)
    assert parser.parse(datagram(sbn=1, esi=77)) == parse_datagram(datagram(sbn=1, esi=77))


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_PREFIXES", 10)
    parser = DatagramParser()
    for number in range(100):
        parser.parse(datagram(f"{number:022}"))
        assert len(parser._known) <= 10
