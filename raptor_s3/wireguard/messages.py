"""The four WireGuard messages (whitepaper 5.4.2, 5.4.3, 5.4.6, 5.4.7): bytes to values and back.

Integers are little-endian here, unlike everywhere else in this project. The type octet is followed by three reserved
zero octets, so both are read as one u32. The Noise parts (ephemeral, encrypted static, timestamp, empty) are kept as
one field: the handshake consumes them whole.

Invariant: every input either parses or raises MalformedPacket; sizes are exact.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raptor_s3.errors import MalformedPacket

if TYPE_CHECKING:
    from typing_extensions import Buffer

TYPE_INITIATION: Final = 1
TYPE_RESPONSE: Final = 2
TYPE_COOKIE_REPLY: Final = 3
TYPE_TRANSPORT: Final = 4

_INITIATION = struct.Struct("<II108s16s16s")
_RESPONSE = struct.Struct("<III48s16s16s")
_COOKIE_REPLY = struct.Struct("<II24s32s")
TRANSPORT_HEADER: Final = struct.Struct("<IIQ")
# What all four begin with: the type and an index, the sender's in types 1 and 2, the receiver's in 3 and 4.
HEAD: Final = struct.Struct("<II")
# Whitepaper 5.4.6: the nonce is 32 zero bits and the counter.
NONCE: Final = struct.Struct("<4xQ")

INITIATION_SIZE: Final = _INITIATION.size
RESPONSE_SIZE: Final = _RESPONSE.size
COOKIE_REPLY_SIZE: Final = _COOKIE_REPLY.size

_MACS_SIZE = 32


class Initiation(NamedTuple):
    sender_index: int
    noise: bytes  # 32 ephemeral, 48 encrypted static, 28 encrypted timestamp
    mac1: bytes
    mac2: bytes


class Response(NamedTuple):
    sender_index: int
    receiver_index: int
    noise: bytes  # 32 ephemeral, 16 encrypted nothing
    mac1: bytes
    mac2: bytes


class CookieReply(NamedTuple):
    receiver_index: int
    nonce: bytes
    encrypted_cookie: bytes


def message_type(message: Buffer) -> int:
    """Type of a message (1..4). Raises MalformedPacket for any other, for reserved bits, and for fewer than four octets."""
    header = bytes(memoryview(message)[:4])
    if len(header) != 4 or not 1 <= header[0] <= 4 or header[1:] != b"\0\0\0":
        raise MalformedPacket("not a WireGuard message")
    return header[0]


def parse_initiation(message: Buffer) -> Initiation:
    """Read a handshake initiation (148 octets). Raises MalformedPacket."""
    sender_index, noise, mac1, mac2 = _unpack(_INITIATION, TYPE_INITIATION, message)
    return Initiation(sender_index, noise, mac1, mac2)


def parse_response(message: Buffer) -> Response:
    """Read a handshake response (92 octets). Raises MalformedPacket."""
    sender_index, receiver_index, noise, mac1, mac2 = _unpack(_RESPONSE, TYPE_RESPONSE, message)
    return Response(sender_index, receiver_index, noise, mac1, mac2)


def parse_cookie_reply(message: Buffer) -> CookieReply:
    """Read a cookie reply (64 octets). Raises MalformedPacket."""
    receiver_index, nonce, encrypted_cookie = _unpack(_COOKIE_REPLY, TYPE_COOKIE_REPLY, message)
    return CookieReply(receiver_index, nonce, encrypted_cookie)


def build_initiation(sender_index: int, noise: bytes) -> bytes:
    """A handshake initiation up to, not including, mac1: 116 octets."""
    return struct.pack("<II108s", TYPE_INITIATION, sender_index, noise)


def build_response(sender_index: int, receiver_index: int, noise: bytes) -> bytes:
    """A handshake response up to, not including, mac1: 60 octets."""
    return struct.pack("<III48s", TYPE_RESPONSE, sender_index, receiver_index, noise)


def build_cookie_reply(receiver_index: int, nonce: bytes, encrypted_cookie: bytes) -> bytes:
    return _COOKIE_REPLY.pack(TYPE_COOKIE_REPLY, receiver_index, nonce, encrypted_cookie)


def before_mac1(message: Buffer) -> bytes:
    """What mac1 covers: msg_alpha of the whitepaper, 5.4.4."""
    return bytes(memoryview(message)[:-_MACS_SIZE])


def before_mac2(message: Buffer) -> bytes:
    """What mac2 covers: msg_beta of the whitepaper, 5.4.4."""
    return bytes(memoryview(message)[: -_MACS_SIZE // 2])


def _unpack(layout: struct.Struct, expected: int, message: Buffer) -> tuple[Any, ...]:
    view = memoryview(message)
    if len(view) != layout.size:
        raise MalformedPacket(f"message of {len(view)} octets, type {expected} has {layout.size}")
    fields = layout.unpack(view)
    if fields[0] != expected:
        raise MalformedPacket(f"message type {fields[0]:#x}, expected {expected}")
    return fields[1:]
