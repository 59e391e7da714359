"""States and datagrams in C: what C does itself, what is left to the Python twins; and that no function keeps anything."""

from __future__ import annotations

import gc
import http
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest
from wire_rig import (
    FIELDS,
    LEFT,
    LIMITS,
    MEMBERS,
    TRANSFER_ID,
    Number,
    Text,
    Words,
    _wire,
    build_put_header,
    build_transfer_state,
    leave,
    parse_datagram,
    parse_transfer_state,
)

from raptor_s3.codec import ObjectTransmissionInformation
from raptor_s3.errors import MalformedPacket
from raptor_s3.wire import datagram as dg
from raptor_s3.wire import put_header as ph
from raptor_s3.wire import transfer_state as ts

# The transfer state


def state(json: str | bytes = b"", number: int = 3, identifier: bytes = TRANSFER_ID.encode()) -> bytes:
    tail = json if isinstance(json, bytes) else json.encode()
    return b"rapt" + bytes((number, 1, 2, 4, len(identifier))) + identifier + tail


@pytest.mark.parametrize(
    "data",
    [
        *(state(number=number) for number in ts._TYPES),
        state(identifier=b"i"),
        state(identifier=b"i" * 255),
        state(identifier="\u00fc\U0001f600\0".encode()),
        state("{}"),
        state('{"a":"b"}'),
        state('{"":""}'),
        state('{"a":1,"b":2,"a":3}'),
        state('{"a":0,"b":10,"c":true,"d":false,"e":null,"f":999999999999999999}'),
        state('{"ETag":"\\"d41d8cd98f00b204e9800998ecf8427e\\""}'),
        state('{"\\"\\\\\\/\\b\\f\\n\\r\\t":"\\"\\\\\\/\\b\\f\\n\\r\\t"}'),
        state('{"Message":"\x7f\u00e9\u2028\U0001f600"}'),
        state('{"Message":"\u00e9\\n' + "x" * 1020 + '"}'),
        state('{"Message":"' + "x" * 60_000 + '"}'),
        state('{"a":{"b":null},"a":{}}'),
    ],
)
def test_plain_transfer_states(data: bytes) -> None:
    parsed, expected = parse_transfer_state(data), ts.parse_transfer_state_in_python(data)
    assert repr(parsed) == repr(expected)
    assert (type(parsed), parsed.type, list(parsed.fields or ())) == (
        ts.TransferState,
        expected.type,
        list(expected.fields or ()),
    )
    assert parsed.type is expected.type
    assert parsed == expected
    assert parsed.is_final == expected.is_final
    if parsed.fields is None:
        assert hash(parsed) == hash(expected) == hash(tuple(expected))
        assert len({parsed, expected}) == 1


@pytest.mark.parametrize(
    "data",
    [
        *(state()[:length] for length in range(len(state()))),
        *(state(number=number) for number in range(256) if number not in ts._TYPES),
        b"rapu" + state()[4:], b"\0" + state()[1:], state(identifier=b""), state(identifier=b"\xff"),
        state(identifier=b"\xed\xa0\x80"),
        *(
            state(json)
            for json in (
                " ", "{} ", " {}", "{ }", '{"a" :1}', '{"a":1 }', '{"a":1, "b":2}', "[]", "null", "1", '"a"', "{", "}", "{}{}",
                "{}}",
                "\ufeff{}", "{,}", '{"a"}', '{"a":}', '{"a":1,}', '{"a":1,,"b":2}', '{"a":1', '{"a', '{"a"', '{"a":"', '{"a":"b',
                "{a:1}",
                '{"a":01}', '{"a":00}', '{"a":-1}', '{"a":-0}', '{"a":1.5}', '{"a":1e3}', '{"a":1E3}', '{"a":+1}', '{"a":0x1}',
                '{"a":.5}',
                '{"a":1234567890123456789}', '{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}', '{"a":truex}', '{"a":tru',
                '{"a":True}',
                '{"a":nul', '{"a":fals}', '{"a":[]}', '{"a":{"b":{}}}', '{"a":"\\u0041"}', '{"a":"\\ud800"}', '{"\\u0041":1}',
                '{"a":"\\"}',
                '{"a":"\\', '{"a":"\\x"}', '{"a":"\\0"}', '{"a":"\n"}', '{"a":"\x00"}', '{"a":"\\n\n"}', '{"a":"\\n\x00"}',
                "{'a':1}",
                '{"a":"\\n' + "x" * 2000 + '"}', '{"a":"' + "x" * 2000 + '\\n"}',
            )
        ),
        *(state(json) for json in (b'{"a":"\xff"}', b'{"\xff":1}', b'{"a":"\\n\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc3"}')),
        bytearray(state()), memoryview(state()), None, 9, 300, "text", [], Text(),
    ],
)  # fmt: skip
def test_transfer_states_left_to_python(data: Any) -> None:
    assert parse_transfer_state(data) == LEFT


COMPLETE = ts.TransferState(ts.StateType.COMPLETE, TRANSFER_ID)


@pytest.mark.parametrize(
    "value",
    [
        *(COMPLETE._replace(type=member) for member in ts.StateType),
        COMPLETE._replace(type=3),
        COMPLETE._replace(sbn=255, received=65_535),
        COMPLETE._replace(object_id="i" * 255),
        COMPLETE._replace(object_id="\u00fc"),
        *(
            COMPLETE._replace(fields=fields)
            for fields in (
                {},
                {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"', "Size": 0, "a": True, "b": False, "c": None, "d": 10**18 - 1},
                {"a": {"b": "c", "d": 5}, "": "\x7f\u00e9\\"},
            )
        ),
    ],
)
def test_plain_state_messages(value: ts.TransferState) -> None:
    assert build_transfer_state(value) == ts.build_transfer_state_in_python(value)


class Subclass(ts.TransferState):
    pass


@pytest.mark.parametrize(
    "value",
    [
        None, (), tuple(COMPLETE), Subclass(*COMPLETE), tuple.__new__(ts.TransferState, ()),
        tuple.__new__(ts.TransferState, range(6)),
        *(COMPLETE._replace(sbn=sbn) for sbn in (-1, 256, 2**70, None, True, Number.ONE, 1.0)),
        *(COMPLETE._replace(received=received) for received in (-1, 65_536, 2**70, -(2**70), None, True, Number.ONE)),
        *(COMPLETE._replace(type=number) for number in (-1, 256, 2**70, None, "3")),
        *(COMPLETE._replace(object_id=identifier) for identifier in ("", "i" * 256, "\u00fc" * 128, "\ud800", Text("i"), None)),
        *(
            COMPLETE._replace(fields=fields)
            for fields in (
                [], "", MappingProxyType({}), Words(), {1: 2}, {"a": 1.5}, {"a": -1}, {"a": 10**18}, {"a": 2**70}, {"a": []},
                {"a": "\n"},
                {"a": "\ud800"}, {"\ud800": 1}, {"a": {"b": {}}}, {"a": Text()}, {Text(): 1}, {"a": http.HTTPStatus.OK},
                {"a": "x" * 5000},
                {"a": object()}, {"a": float("nan")},
            )
        ),
    ],
)  # fmt: skip
def test_state_messages_left_to_python(value: Any) -> None:
    assert build_transfer_state(value) == LEFT


# The symbol datagram

OTI = ObjectTransmissionInformation(10_240, 1_280, 1)
DATAGRAM = dg.build_datagram(dg.Datagram(TRANSFER_ID, OTI, 3, 0, 0x010203, bytes(1280)))


@pytest.mark.parametrize(
    "data",
    [
        DATAGRAM,
        dg.build_datagram(dg.Datagram(TRANSFER_ID, OTI, 7, 0, 0, b"")),
        dg.build_datagram(dg.Datagram("a/b.txt", ObjectTransmissionInformation(5, 5, 1), 0, 0, 2, b"hello")),
        dg.build_datagram(
            dg.Datagram("\u00fc" * 127, ObjectTransmissionInformation(2**20, 1_024, 2), 2, 1, 2**24 - 1, bytes(1024))
        ),
        dg.build_datagram(dg.Datagram("i", ObjectTransmissionInformation(0, 1, 1), 0, 0, 0, b"x")),
        dg.build_datagram(dg.Datagram("i", ObjectTransmissionInformation(2**33, 2**16 - 1, 255), 0, 254, 0, bytes(2**16 - 1))),
    ],
)
def test_plain_datagrams(data: bytes) -> None:
    parsed, expected = parse_datagram(data), dg.parse_datagram_in_python(data)
    assert parsed == expected
    assert type(parsed) is dg.Datagram
    assert parsed.oti is expected.oti
    assert dg.build_datagram(parsed) == data
    assert (type(parsed.symbol), parsed.symbol.obj is data) == (memoryview, True)


def changed(offset: int, value: int) -> bytes:
    data = bytearray(DATAGRAM)
    data[offset] = value
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        *(DATAGRAM[:length] for length in (*range(41), len(DATAGRAM) - 1)),
        DATAGRAM + b"x",
        *(changed(offset, value) for offset, value in ((0, 0), (0, 21), (0, 23), (0, 255), (28, 0x80), (28, 8), (28, 7))),
        *(
            changed(offset, value)
            for offset, value in ((33, 2), (32, 1), (34, 8), (31, 0), (31, 255), (35, 1), (29, 0), (23, 255))
        ),
        *(changed(1, octet) for octet in b"=/+. \0\x7f\x80\xff@[`{:"),
        *(changed(22, octet) for octet in b"=\xff"),
        b"\x01\xff" + dg.build_datagram(dg.Datagram("i", ObjectTransmissionInformation(5, 5, 1), 0, 0, 2, b"hello"))[2:],
        bytearray(DATAGRAM),
        memoryview(DATAGRAM),
        None,
        5,
        "text",
    ],
)
def test_datagrams_left_to_python(data: Any) -> None:
    assert parse_datagram(data) == LEFT


def test_each_letter_of_a_transfer_id() -> None:
    for octet in range(256):
        is_letter = chr(octet).isascii() and (chr(octet).isalnum() or chr(octet) in "-_")
        for place in (1, 11, 22):
            assert (parse_datagram(changed(place, octet)) != LEFT) == is_letter


# What holds for all of them


def twins() -> Iterator[tuple[Callable[[Any], Any], Callable[[Any], Any], Any, Any]]:
    """C, Python, a plain case, and one that is refused."""
    header = ph.build_put_header(FIELDS)
    final = COMPLETE._replace(fields={"ETag": '"1"', "Size": 70_000})
    yield ph.build_put_header, ph.build_put_header_in_python, FIELDS | {"Metadata": {"a": "b"}}, FIELDS | {"TtlMs": 2**70}
    yield ph.build_put_header, ph.build_put_header_in_python, FIELDS, FIELDS | {"ContentType": "\ud800"}
    yield ph.split_put_object, ph.split_put_object_in_python, header + b"body", header[:-1] + b"]"
    yield ts.parse_transfer_state, ts.parse_transfer_state_in_python, state('{"a":"\\n","a":70000}'), state(b'{"a":"\xff"}')
    yield ts.parse_transfer_state, ts.parse_transfer_state_in_python, state(), state(identifier=b"\xff")
    yield ts.build_transfer_state, ts.build_transfer_state_in_python, final, COMPLETE._replace(object_id="")
    yield dg.parse_datagram, dg.parse_datagram_in_python, DATAGRAM, changed(31, 255)
    yield dg.parse_datagram, dg.parse_datagram_in_python, DATAGRAM, changed(28, 0)[:1] + b"\xff" + changed(28, 0)[2:]


@pytest.mark.parametrize(("in_c", "in_python", "plain", "refused"), list(twins()))
def test_the_public_functions_are_in_c_and_refuse_as_their_twins(
    in_c: Callable[[Any], Any], in_python: Callable[[Any], Any], plain: Any, refused: Any
) -> None:
    assert in_c.__self__[0] is in_python  # type: ignore[attr-defined]
    assert in_c(plain) == in_python(plain)
    with pytest.raises((ValueError, MalformedPacket)) as from_python:
        in_python(refused)
    with pytest.raises(type(from_python.value)) as from_c:
        in_c(refused)
    assert str(from_c.value) == str(from_python.value)
    assert repr(from_c.value.__context__) == repr(from_python.value.__context__)


@pytest.mark.parametrize(("in_c", "in_python", "plain", "refused"), list(twins()))
def test_nothing_is_kept(in_c: Callable[[Any], Any], in_python: object, plain: Any, refused: Any) -> None:
    own = _wire_function_with_a_twin_that_raises(in_c)

    def counts() -> list[int]:
        gc.collect()
        parts = [plain, refused, None, True, False, ts.TransferState, dg.Datagram, *ts.StateType, OTI, own, *own.__self__]
        for argument in (plain, refused):
            if isinstance(argument, dict):
                parts += [*argument, *argument.values()]
            if isinstance(argument, tuple):
                parts += argument
        return [sys.getrefcount(part) for part in parts]

    def run(count: int) -> None:
        for _ in range(count):
            own(plain)
            try:
                own(refused)
            except ZeroDivisionError:
                pass

    run(100)
    before, blocks = counts(), sys.getallocatedblocks()
    run(3000)
    assert max(abs(a - b) for a, b in zip(counts(), before, strict=True)) < 20
    assert sys.getallocatedblocks() - blocks < 500


def _wire_function_with_a_twin_that_raises(in_c: Any) -> Any:
    def raising(argument: object) -> None:
        raise ZeroDivisionError

    makers = {
        "build_put_header": _wire.put_header_builder,
        "split_put_object": _wire.put_object_splitter,
        "parse_transfer_state": _wire.transfer_state_parser,
        "build_transfer_state": _wire.transfer_state_builder,
        "parse_datagram": _wire.datagram_parser,
    }
    return makers[in_c.__name__](raising, *in_c.__self__[1:])


def test_names_that_run_code_are_left_to_python() -> None:
    """A name whose comparison empties the dict under the hands of who looks it up."""
    fields: dict[Any, Any] = {}

    class Evil(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            fields.clear()
            return False

    for make in (lambda: {Evil("Key"): "k", **FIELDS}, lambda: {**FIELDS, Evil("ContentType"): "k"}):
        fields.update(make())
        assert build_put_header(fields) == LEFT
        fields.clear()


@pytest.mark.parametrize(
    ("maker", "arguments"),
    [
        (_wire.put_header_builder, ()),
        (_wire.put_header_builder, (leave, {1: str}, *LIMITS[1:])),
        (_wire.put_header_builder, (leave, {"a": list}, *LIMITS[1:])),
        (_wire.put_header_builder, (leave, {"a": None}, *LIMITS[1:])),
        (_wire.put_header_builder, (leave, {Text("a"): str}, *LIMITS[1:])),
        (_wire.put_header_builder, (leave, [], *LIMITS[1:])),
        (_wire.put_header_builder, (leave, {}, ("Bucket", "Key", "TtlMs"), 1, 1)),
        (_wire.put_object_splitter, (leave, {}, ("Bucket", "Key", "TtlMs", 5), 1, 1)),
        (_wire.put_object_splitter, (leave, {}, ph._REQUIRED, 1, "1")),
        (_wire.transfer_state_parser, (leave, ts.TransferState, MEMBERS[1:])),
        (_wire.transfer_state_parser, (leave, list, MEMBERS)),
        (_wire.transfer_state_parser, (leave, 5, MEMBERS)),
        (_wire.transfer_state_builder, (leave, str)),
        (_wire.transfer_state_builder, (leave,)),
        (_wire.datagram_parser, (leave, str, str)),
        (_wire.datagram_parser, (leave,)),
    ],
)
def test_what_a_function_is_made_of_is_checked(maker: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        maker(*arguments)


def test_a_whitelist_that_is_changed_later_changes_nothing() -> None:
    types = dict(ph._TYPES)
    build = _wire.put_header_builder(leave, types, *LIMITS[1:])
    types.clear()
    assert build(FIELDS) == ph.build_put_header_in_python(FIELDS)


def test_limits_that_do_not_fit_let_nothing_pass() -> None:
    assert _wire.put_header_builder(leave, *LIMITS[:2], 2**70, ph.MAX_TTL_MS)(FIELDS) == LEFT
    assert _wire.put_header_builder(leave, *LIMITS[:2], 1024, 2**70)(FIELDS) == LEFT
    assert _wire.put_header_builder(leave, *LIMITS[:2], -1, -1)(FIELDS) == LEFT


def test_without_the_extension_the_twins_are_the_functions() -> None:
    script = (
        "import sys; sys.modules['raptor_s3.wire._wire'] = None\n"
        "from raptor_s3.wire import datagram as dg, put_header as ph, transfer_state as ts\n"
        "assert ph.build_put_header is ph.build_put_header_in_python\n"
        "assert ph.split_put_object is ph.split_put_object_in_python\n"
        "assert ts.build_transfer_state is ts.build_transfer_state_in_python\n"
        "assert ts.parse_transfer_state is ts.parse_transfer_state_in_python\n"
        "assert dg.parse_datagram is dg.parse_datagram_in_python\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
