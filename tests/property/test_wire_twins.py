"""The wire formats in C and in Python: the same value, or the same exception with the same words, for whatever comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raptor_s3.wire import datagram as dg
from raptor_s3.wire import put_header as ph
from raptor_s3.wire import transfer_state as ts

pytest.importorskip("raptor_s3.wire._wire", reason="_wire.c is not built")

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
"""Lone surrogates too."""
TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(['"', "\\", "\n", "\x7f", "\u2028", "a:b"])
NUMBERS = st.integers(-3, 4_000_000) | st.sampled_from([10**17, 10**18 - 1, 10**18, 2**63, 2**64, -(2**63)])
SCALARS = ANY_TEXT | NUMBERS | st.booleans() | st.none() | st.floats() | st.binary(max_size=3)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3), max_leaves=6
)
NAMES = st.sampled_from([*ph._TYPES, "ACL", "ETag", ""]) | ANY_TEXT

REQUIRED = st.fixed_dictionaries(
    {"Bucket": TEXT, "Key": TEXT, "ChecksumCRC32": TEXT, "TtlMs": st.integers(1, ph.MAX_TTL_MS)},
    optional={"ContentType": TEXT, "Metadata": st.dictionaries(TEXT, TEXT, max_size=4), "BucketKeyEnabled": st.booleans()},
)
FIELDS = REQUIRED | st.builds(lambda fields, more: fields | more, REQUIRED, st.dictionaries(NAMES, VALUES, max_size=3)) | VALUES
PIECES = (
    *"{}:,[]", "{", "}", '"a":', '"a":1', '"a"', '"b":', '"Key":"k"', '"Bucket":"b"', '"ChecksumCRC32":"c"', '"TtlMs":5',
    '"TtlMs":', "1",
    "0", "-", ".", "e", "true", "false", "null", "NaN", "-Infinity", '"', "\\", '"\\""', '"\\n"', '"\\u0041"', '"\\ud800"', " ",
    "\n",
    "\u00e9", '"\u00e9"', '{"a":"b"}', '"Metadata":{"a":"b"}', "\x00", "\x7f",
    '{"Bucket":"b","Key":"k","ChecksumCRC32":"c","TtlMs":1',
)  # fmt: skip


def written(value: object, compact: bool, is_ascii: bool) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=is_ascii, separators=(",", ":") if compact else None).encode(
            "utf-8", "surrogatepass"
        )
    except TypeError:  # octets
        return b""


JSON = (
    st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "".join(pieces).encode())
    | st.builds(written, FIELDS, st.sampled_from([True, True, False]), st.booleans())
    | st.binary(max_size=30)
)


def verdict(function: Callable[[Any], Any], argument: object) -> tuple[object, ...]:
    try:
        value = function(argument)
    except Exception as error:
        return type(error), str(error)
    if isinstance(value, dg.Datagram):
        return type(value), repr(value[:-1]), bytes(value.symbol)
    if isinstance(value, tuple) and isinstance(value[-1], memoryview):
        return type(value), repr(value[:-1]), bytes(value[-1])
    return type(value), repr(value)


def damaged(data: st.DataObject, octets: bytes) -> bytes:
    """Now and then cut short, or with an octet changed, put in, or left out."""
    how = data.draw(st.sampled_from(["not", "not", "cut", "change", "insert", "drop"]))
    place = data.draw(st.integers(0, len(octets)))
    octet = bytes((data.draw(st.integers(0, 255) | st.sampled_from(b'"\\{}:,0')),))
    return {
        "not": octets,
        "cut": octets[:place],
        "change": octets[:place] + octet + octets[place + 1 :],
        "insert": octets[:place] + octet + octets[place:],
        "drop": octets[:place] + octets[place + 1 :],
    }[how]


@given(fields=FIELDS)
@example(fields={"Bucket": "b", "Key": "k", "ChecksumCRC32": "c", "TtlMs": 1, "Metadata": {"a": "\ud800"}})
def test_put_headers_are_built_alike(fields: Any) -> None:
    assert verdict(ph.build_put_header, fields) == verdict(ph.build_put_header_in_python, fields)


@given(fields=REQUIRED, body=st.binary(max_size=20))
def test_a_good_put_header_comes_back_through_either(fields: dict[str, Any], body: bytes) -> None:
    try:
        built = ph.build_put_header(fields)
    except ValueError:
        return
    for split in (ph.split_put_object, ph.split_put_object_in_python):
        assert split(built + body) == (fields, memoryview(body))


@given(header=JSON, body=st.binary(max_size=20), data=st.data())
def test_put_objects_are_split_alike(header: bytes, body: bytes, data: st.DataObject) -> None:
    octets = damaged(data, (len(header) & 0xFFFF).to_bytes(2, "big") + header + body)
    assert verdict(ph.split_put_object, octets) == verdict(ph.split_put_object_in_python, octets)


@given(
    number=st.sampled_from([*ts._TYPES, 9]), identifier=st.binary(max_size=30) | TEXT.map(str.encode), tail=JSON, data=st.data()
)
def test_transfer_states_are_parsed_alike(number: int, identifier: bytes, tail: bytes, data: st.DataObject) -> None:
    octets = damaged(data, b"rapt" + bytes((number, 1, 2, 3, len(identifier))) + identifier + tail)
    assert verdict(ts.parse_transfer_state, octets) == verdict(ts.parse_transfer_state_in_python, octets)


@given(
    number=st.sampled_from([*ts.StateType, 3, 256, -1]),
    identifier=ANY_TEXT,
    sbn=st.integers(-1, 256),
    received=st.integers(-1, 70_000) | NUMBERS,
    fields=st.none() | FIELDS,
)
def test_transfer_states_are_built_alike(number: Any, identifier: str, sbn: int, received: int, fields: Any) -> None:
    state = ts.TransferState(number, identifier, sbn, received, fields)
    assert verdict(ts.build_transfer_state, state) == verdict(ts.build_transfer_state_in_python, state)


@given(
    size=st.integers(0, 4_000_000),
    object_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60) | st.from_regex("[A-Za-z0-9_-]{22}", fullmatch=True),
    flags=st.integers(0, 7),
    data=st.data(),
)
def test_datagrams_are_parsed_alike(size: int, object_id: str, flags: int, data: st.DataObject) -> None:
    oti = dg.plan_object(size, len(object_id.encode()))
    symbol = b"" if flags & dg.FLAG_CANCEL else bytes(oti.symbol_size)
    octets = damaged(data, dg.datagram_prefix(object_id, oti, flags) + bytes(4) + symbol)
    assert verdict(dg.parse_datagram, octets) == verdict(dg.parse_datagram_in_python, octets)


@given(octets=st.binary(max_size=300))
def test_any_octets_are_read_alike(octets: bytes) -> None:
    for data in (octets, b"rapt" + octets, bytearray(octets), memoryview(octets)):
        assert verdict(ph.split_put_object, data) == verdict(ph.split_put_object_in_python, data)
        assert verdict(ts.parse_transfer_state, data) == verdict(ts.parse_transfer_state_in_python, data)
        assert verdict(dg.parse_datagram, data) == verdict(dg.parse_datagram_in_python, data)
