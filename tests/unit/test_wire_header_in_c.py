"""Put headers in C: what C does itself, and what it leaves to its Python twin."""

from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest
from wire_rig import FIELDS, LEFT, Number, Text, Words, build_put_header, split_put_object

from raptor_s3.wire import put_header as ph

PLAIN_FIELDS: list[dict[str, Any]] = [
    FIELDS,
    dict(reversed(FIELDS.items())),
    FIELDS | {"TtlMs": 1},
    FIELDS | {"TtlMs": ph.MAX_TTL_MS},
    FIELDS | {"ContentType": "", "CacheControl": "\x7f\x80\u00e9\u2028\uffff\U0001f600"},
    FIELDS | {"IfMatch": '"abc"', "ContentDisposition": 'attachment; filename="\\\\a\\b"'},
    FIELDS | {"BucketKeyEnabled": True},
    FIELDS | {"BucketKeyEnabled": False},
    FIELDS | {"Key": "k" * ph.MAX_KEY_BYTES},
    FIELDS | {"Key": "\u00fc" * (ph.MAX_KEY_BYTES // 2)},
    FIELDS | {"Metadata": {}},
    FIELDS | {"Metadata": {"a": "b", "": '"', "caf\u00e9": "\u00fc"}},
    FIELDS | {"ContentType": "x" * 1900},
]
LEFT_FIELDS: list[Any] = [
    {},
    None,
    5,
    [],
    Words(FIELDS),
    OrderedDict(FIELDS),
    MappingProxyType(FIELDS),
    *({name: value for name, value in FIELDS.items() if name != lacking} for lacking in FIELDS),
    *(FIELDS | {name: ""} for name in ("Bucket", "Key", "ChecksumCRC32")),
    FIELDS | {"Bucket": "arn:aws:s3:::b"},
    FIELDS | {"Key": "k" * (ph.MAX_KEY_BYTES + 1)},
    FIELDS | {"Key": "\u00fc" * (ph.MAX_KEY_BYTES // 2) + "k"},
    *(FIELDS | {"TtlMs": ttl} for ttl in (0, -1, ph.MAX_TTL_MS + 1, 2**63, -(2**63) - 1, 2**200, True, "4000", 4e3, Number.ONE)),
    *(FIELDS | {"ContentType": text} for text in ("\n", "\x00", "\x1f", "\ud800", "a\udfffb", Text("a"), b"a", None, 1, [], {})),
    *(FIELDS | {name: "\ud800"} for name in ("Bucket", "Key")),
    FIELDS | {"ACL": "public-read"},
    FIELDS | {"key": "a"},
    {**FIELDS, Text("ContentType"): "a"},
    {**FIELDS, 5: "a"},
    *(FIELDS | {"BucketKeyEnabled": value} for value in (0, 1, None, "true")),
    *(FIELDS | {"Metadata": value} for value in (None, [], "", Words(), {"a": 1}, {1: "a"}, {"a": {}}, {Text(): "a"})),
    *(FIELDS | {"Metadata": value} for value in ({"a": Text()}, {"a": "\ud800"}, {"\ud800": "a"}, {"a": "\n"})),
    FIELDS | {"ContentType": "x" * 5000},
    FIELDS | {"ContentType": "x" * 70_000},
    FIELDS | {"Metadata": {str(number): "x" * 90 for number in range(50)}},
]


@pytest.mark.parametrize("fields", PLAIN_FIELDS)
def test_plain_put_headers(fields: dict[str, Any]) -> None:
    built = build_put_header(fields)
    assert built == ph.build_put_header_in_python(fields)
    split, body = split_put_object(built + b"body")
    assert split == fields
    assert list(split) == list(fields)
    assert [type(value) for value in split.values()] == [type(value) for value in fields.values()]
    assert bytes(body) == b"body"


@pytest.mark.parametrize("fields", LEFT_FIELDS, ids=lambda fields: repr(fields)[-60:])
def test_put_headers_left_to_python(fields: Any) -> None:
    assert build_put_header(fields) == LEFT


def test_every_name_of_the_whitelist_is_plain() -> None:
    samples = {str: "text", dict: {"a": "b"}, bool: True, int: 5}
    fields = {name: samples[type_] for name, type_ in ph._TYPES.items()}
    built = build_put_header(fields)
    assert built == ph.build_put_header_in_python(fields)
    assert split_put_object(built) == (fields, memoryview(b""))


def test_a_header_may_fill_the_room_to_the_last_octet() -> None:
    """The twins meet where C's room ends."""
    sizes = set()
    for length in range(1900, 4200):
        fields = FIELDS | {"ContentType": "x" * length}
        built = build_put_header(fields)
        if built != LEFT:
            assert built == ph.build_put_header_in_python(fields)
            sizes.add(len(built))
        assert ph.build_put_header(fields) == ph.build_put_header_in_python(fields)
    assert len(sizes) > 50


def framed(text: str | bytes) -> bytes:
    header = text if isinstance(text, bytes) else text.encode()
    return len(header).to_bytes(2, "big") + header


REST = ',"Key":"k","ChecksumCRC32":"c","TtlMs":1}'


@pytest.mark.parametrize(
    "text",
    [
        '{"Bucket":"b"' + REST,
        '{"Bucket":"\\"\\\\\\/\\b\\f\\n\\r\\t"' + REST,
        '{"Metadata":{},"Bucket":"b"' + REST,
        '{"Metadata":{"a":"b","c":"\x7f\u00e9"},"Bucket":"b"' + REST,
        '{"Bucket":"' + "b" * 30_000 + '"' + REST,
    ],
)
@pytest.mark.parametrize("body", [b"", b"x", bytes(5000)])
def test_plain_put_objects(text: str, body: bytes) -> None:
    data = framed(text) + body
    if len(text) > 30_000:  # a bucket's name of any length is Python's to take
        assert split_put_object(data) == LEFT
        return
    fields, rest = split_put_object(data)
    expected, expected_rest = ph.split_put_object_in_python(data)
    assert (fields, list(fields), rest) == (expected, list(expected), expected_rest)
    assert (type(rest), rest.obj is data, rest.readonly, rest.format) == (memoryview, True, True, "B")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"\0\0", b"\0\1", b"\0\2{}", b"\0\1{", b"\0\2[]", b"\0\4null", b"\xff\xff{", b"\0\3{}",
        framed('{"Bucket":"b"' + REST)[:-1],
        framed('{"Bucket":"b"' + REST + " "), framed(' {"Bucket":"b"' + REST), framed('{"Bucket": "b"' + REST),
        framed('{"Bucket":"b","Bucket":"b"' + REST), framed('{"Bucket":"b","Key":"k"' + REST),
        framed('{"Bucket":"b","Metadata":{"a":"","a":""}' + REST), framed('{"Bucket":"b","Metadata":{"a":{}}' + REST),
        framed('{"Bucket":"b","Metadata":{"a":1}' + REST), framed('{"Bucket":"b","Metadata":[]' + REST),
        framed('{"Bucket":"\\u0062"' + REST), framed('{"Bucket":"\\x"' + REST), framed('{"Bucket":"\n"' + REST),
        framed(b'{"Bucket":"\xff"' + REST.encode()), framed(b'{"Bucket":"\xed\xa0\x80"' + REST.encode()),
        framed(b'{"Bucket":"\xc0\xaf"' + REST.encode()), framed('{"Bucket":"a:b"' + REST), framed('{"Bucket":""' + REST),
        framed('{"Bucket":"b"' + REST.replace("1}", "01}")), framed('{"Bucket":"b"' + REST.replace("1}", "1.0}")),
        framed('{"Bucket":"b"' + REST.replace("1}", "-1}")), framed('{"Bucket":"b"' + REST.replace("1}", "1e3}")),
        framed('{"Bucket":"b"' + REST.replace("1}", "0}")), framed('{"Bucket":"b"' + REST.replace("1}", "true}")),
        framed('{"Bucket":"b"' + REST.replace("1}", "9" * 30 + "}")), framed('{"Bucket":"b","ACL":"x"' + REST),
        framed('{"Bucket":"b",' + REST), framed('{"Bucket"' + REST), framed("{" + REST),
        framed('{"Bucket":"b"' + REST[:-1] + ",}"),
        bytearray(framed('{"Bucket":"b"' + REST)), memoryview(framed('{"Bucket":"b"' + REST)), None, 7, "text",
    ],
)  # fmt: skip
def test_put_objects_left_to_python(data: Any) -> None:
    assert split_put_object(data) == LEFT


@pytest.mark.parametrize("left", range(12))
def test_an_empty_text_where_few_octets_are_left(left: int) -> None:
    """Its two quotes may not fit. What is written beyond the buffer, AddressSanitizer sees; here, that the result is right."""
    metadata: dict[str, str] = {}
    fields = FIELDS | {"Metadata": metadata}
    while room := 4096 - left - len(ph.build_put_header_in_python(fields)[2:-2] + b',"zz":'):
        member = 9 if metadata else 8  # quotes, colon, name, comma
        size = min(room - member, room // 3)  # no text may take more than half of what there is
        size -= max(9 - (room - member - size), 0) if room > member + size else 0
        metadata[f"{len(metadata):03d}"] = "x" * max(size, 0)
    metadata["zz"] = ""
    expected = ph.build_put_header_in_python(fields)
    assert len(expected) == 2 + 4096 - left + len('""}}')
    assert build_put_header(fields) == (expected if left >= 4 else LEFT)
