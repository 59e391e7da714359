"""The put header: PutObject parameters that travel in front of the body, inside the coded object (docs/wire.md).

    u16 header_length | header: UTF-8 JSON, one object | body

Field names are boto3's. The whitelist below is the only one in the project: the sender routes a call with any other
parameter to HTTPS, and every receiver checks it again.

Both functions are C where it was built (`_wire.c`), which leaves all but the plain cases to these here, its twins.

Invariant: what `split_put_object` returns has a bucket by its name, a key, a CRC-32 and a time to live, and no field outside the
whitelist; all of it can be encoded.
"""

from __future__ import annotations

import binascii
import json
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import MalformedPacket
from raptor_s3.wire.compact_json import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Buffer

try:
    from raptor_s3.wire import _wire
except ImportError:  # built without a C compiler
    _wire = None  # type: ignore[assignment]

CARRIED: Final[Mapping[str, type]] = {
    "Bucket": str,
    "Key": str,
    "CacheControl": str,
    "ContentDisposition": str,
    "ContentEncoding": str,
    "ContentLanguage": str,
    "ContentMD5": str,
    "ContentType": str,
    "ChecksumAlgorithm": str,
    "ChecksumCRC32": str,
    "ChecksumCRC32C": str,
    "ChecksumCRC64NVME": str,
    "ChecksumSHA1": str,
    "ChecksumSHA256": str,
    "ExpectedBucketOwner": str,
    "Expires": str,  # an HTTP date (RFC 9110 5.6.7)
    "IfMatch": str,
    "IfNoneMatch": str,
    "Metadata": dict,
    "ServerSideEncryption": str,
    "StorageClass": str,
    "WebsiteRedirectLocation": str,
}
"""PutObject parameters that any receiver carries out, with the JSON type of each."""

POLICY_GATED: Final[Mapping[str, type]] = {
    "Tagging": str,
    "SSEKMSKeyId": str,
    "SSEKMSEncryptionContext": str,
    "BucketKeyEnabled": bool,
}
"""Parameters that a receiver carries out only where its policy for the peer says so."""

TIME_TO_LIVE: Final = "TtlMs"
"""Ours: from the first datagram's arrival, after this many milliseconds the receiver refuses to write."""

MAX_HEADER: Final = 0xFFFF
TELLING_BYTES: Final = 24
"""Two writers may well put the same octets, if there are fewer than this; a time or a UUID is longer."""
MAX_KEY_BYTES: Final = 1024
MAX_TTL_MS: Final = 3_600_000

_TYPES: Final[Mapping[str, type]] = {**CARRIED, **POLICY_GATED, TIME_TO_LIVE: int}
_REQUIRED: Final = ("Bucket", "Key", "ChecksumCRC32", TIME_TO_LIVE)
_MAX_SHAPES: Final = 256
_good_shapes: set[tuple[object, ...]] = set()
"""Names and types of headers that were in order, each looked at once. Full, it is left as it is."""


def build_put_header_in_python(fields: Mapping[str, Any]) -> bytes:
    """`header_length` and `header` for these PutObject parameters; the body follows them.

    Raises ValueError for parameters outside the whitelist, of the wrong type, or longer than 65,535 octets together.
    """
    if reason := _objection(fields):
        raise ValueError(reason)
    try:
        header = encode(fields).encode()
    except UnicodeEncodeError:
        raise ValueError(_not_unicode(fields)) from None
    if len(header) > MAX_HEADER:
        raise ValueError(f"put header of {len(header)} octets is longer than {MAX_HEADER}")
    return len(header).to_bytes(2, "big") + header


def split_put_object_in_python(data: Buffer) -> tuple[dict[str, Any], memoryview]:
    """The put header's fields, and the body as a view of `data`.

    Raises MalformedPacket when the header is cut short, is not one JSON object, lacks Bucket, Key, ChecksumCRC32 or TtlMs, or
    holds a parameter outside the whitelist or of the wrong type.
    """
    view = memoryview(data)
    if len(view) < 2:
        raise MalformedPacket("object has no room for a put header")
    end = 2 + (view[0] << 8 | view[1])
    if len(view) < end:
        raise MalformedPacket(f"put header of {end - 2} octets in an object of {len(view)}")
    try:
        text = str(view[2:end], "utf-8")
        fields = decode(text, _DECODER)
    except (ValueError, RecursionError) as error:
        raise MalformedPacket(f"put header is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise MalformedPacket("put header is not a JSON object")
    if reason := _objection(fields):
        raise MalformedPacket(reason)
    # UTF-8 has no lone surrogates, only an escape can bring one in.
    if "\\u" in text and (reason := _not_unicode(fields)):
        raise MalformedPacket(reason)
    return fields, view[end:]


def tells_writers_apart(fields: Mapping[str, Any], size_bytes: int) -> bool:
    """Whether an object with this metadata and content, found in the way of a conditional put, may be taken for its own.

    A lock that says "locked", or nothing at all, is anybody's.
    """
    return size_bytes >= TELLING_BYTES or bool(fields.get("Metadata"))


def crc32_field(body: Buffer) -> str:
    """The value of ChecksumCRC32 for this body: base64 of the big-endian CRC-32, as S3 writes it."""
    return binascii.b2a_base64(binascii.crc32(body).to_bytes(4, "big"), newline=False).decode()


def _objection(fields: Mapping[str, Any]) -> str:
    shape = (*fields, *map(type, fields.values()))
    if shape not in _good_shapes:
        if reason := _shape_objection(fields):
            return reason
        if len(_good_shapes) < _MAX_SHAPES:
            _good_shapes.add(shape)
    bucket, key, ttl_ms = fields["Bucket"], fields["Key"], fields[TIME_TO_LIVE]
    if not (bucket and key and ttl_ms and fields["ChecksumCRC32"]):
        return f"put header lacks {next(name for name in _REQUIRED if not fields[name])}"
    if ":" in bucket:
        return "Bucket is an ARN: a policy names buckets only"
    if len(key) > MAX_KEY_BYTES or (not key.isascii() and len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES):
        return f"key is longer than {MAX_KEY_BYTES} octets"
    if not 0 < ttl_ms <= MAX_TTL_MS:
        return f"{TIME_TO_LIVE} of {ttl_ms} is not within 1..{MAX_TTL_MS}"
    if "Metadata" in fields and not all(isinstance(value, str) for value in fields["Metadata"].values()):
        return "Metadata has a value that is not a string"
    return ""


def _shape_objection(fields: Mapping[str, Any]) -> str:
    """What is wrong with the names and types: the same for many puts."""
    for name, value in fields.items():
        expected = _TYPES.get(name)
        if expected is None:
            return f"{name!r} can't travel in a put header"
        if type(value) is not expected:
            return f"{name} is {type(value).__name__}, expected {expected.__name__}"
    lacking = next((name for name in _REQUIRED if name not in fields), None)
    return f"put header lacks {lacking}" if lacking else ""


def _not_unicode(fields: Mapping[str, Any]) -> str:
    """What holds a lone surrogate (JSON's \\ud800): nothing can send that. "" for nothing."""
    for name, value in fields.items():
        texts = [text for item in value.items() for text in item] if isinstance(value, dict) else [value]
        if not all(_is_unicode(text) for text in texts if isinstance(text, str)):
            return f"{name} is no Unicode text"
    return ""


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or text.encode() is not None
    except UnicodeEncodeError:
        return False


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object_of_pairs, parse_constant=_no_constant)

build_put_header: Callable[[Mapping[str, Any]], bytes] = build_put_header_in_python
split_put_object: Callable[[Buffer], tuple[dict[str, Any], memoryview]] = split_put_object_in_python
if _wire is not None:
    build_put_header = _wire.put_header_builder(build_put_header_in_python, _TYPES, _REQUIRED, MAX_KEY_BYTES, MAX_TTL_MS)
    split_put_object = _wire.put_object_splitter(split_put_object_in_python, _TYPES, _REQUIRED, MAX_KEY_BYTES, MAX_TTL_MS)
