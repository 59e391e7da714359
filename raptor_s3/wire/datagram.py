"""The symbol datagram: one RFC 6330 encoding symbol with all that makes it intelligible on its own (docs/wire.md).

    u8 id_length | object_id | u40 F | u8 flags | u16 T | u8 Z | u16 N | u8 Al | u8 SBN | u24 ESI | symbol (T octets)

F to Al are the Object Transmission Information (RFC 6330 3.3; `flags` is its reserved octet), SBN and ESI the FEC Payload ID
(3.2). Everything before the payload id is the same in all datagrams of a transfer: the *prefix*. A cancel carries the prefix
and a payload id of zero, and no symbol. All integers are big-endian.

`parse_datagram` is C where it was built (`_wire.c`), which leaves all but good datagrams to its twin here.

Invariant: every input either parses or raises MalformedPacket.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from raptor_s3.codec import DegreeTable, ObjectTransmissionInformation
from raptor_s3.errors import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

try:
    from raptor_s3.wire import _wire
except ImportError:  # built without a C compiler
    _wire = None  # type: ignore[assignment]

FLAG_PUT_HEADER: Final = 0x01
FLAG_RFC6330_REPAIR: Final = 0x02
FLAG_CANCEL: Final = 0x04
KNOWN_FLAGS: Final = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR | FLAG_CANCEL

MAX_DATAGRAM: Final = 1400
MAX_SYMBOL: Final = 1280
MAX_BLOCK_BYTES: Final = 512 * 1024
MAX_SOURCE_BLOCKS: Final = 255
MAX_OBJECT_ID: Final = 255

_SUB_BLOCKS: Final = 1
_ALIGNMENT: Final = 4

_OTI: Final = struct.Struct(">BIBHBHB")  # F is its first two fields: u40 = u8, u32
PREFIX_TAIL: Final = _OTI.size
"""Octets of a prefix after the object id."""
_OTI_AND_PAYLOAD_ID: Final = struct.Struct(">BIBHBHBI")  # SBN and ESI are the last field: u8, u24
OVERHEAD: Final = 1 + _OTI_AND_PAYLOAD_ID.size
"""Octets of a datagram beside the object id and the symbol."""

_TRANSFER_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}")


class Datagram(NamedTuple):
    """One parsed datagram. `symbol` has exactly `oti.symbol_size` octets, none in a cancel."""

    object_id: str
    oti: ObjectTransmissionInformation
    flags: int
    sbn: int
    esi: int
    symbol: Buffer

    @property
    def has_put_header(self) -> bool:
        return bool(self.flags & FLAG_PUT_HEADER)

    @property
    def is_cancel(self) -> bool:
        return bool(self.flags & FLAG_CANCEL)

    @property
    def degree_table(self) -> DegreeTable:
        """Which table the sender drew its repair symbols' degrees from."""
        return DegreeTable.RFC6330 if self.flags & FLAG_RFC6330_REPAIR else DegreeTable.RFC5053


def plan_object(size_bytes: int, object_id_bytes: int, max_datagram: int = MAX_DATAGRAM) -> ObjectTransmissionInformation:
    """Cut an object of `size_bytes` octets: the rule for T and Z of docs/wire.md.

    K is the smallest power of two for which ceil(size / K) fits both 1,280 octets and the room that the object id leaves in a
    datagram of `max_datagram` octets; T = ceil(size / K). Objects over 512 KiB get ceil(size / 512 KiB) source blocks.

    >>> plan_object(10_240, 22)
    ObjectTransmissionInformation(transfer_length=10240, symbol_size=1280, source_blocks=1)

    Raises ValueError for an object that needs more than 255 source blocks, or an object id that leaves no room for a symbol.
    """
    room = min(MAX_SYMBOL, max_datagram - OVERHEAD - object_id_bytes)
    if not 0 < object_id_bytes <= MAX_OBJECT_ID or room < 1:
        raise ValueError(f"an object id of {object_id_bytes} octets leaves no room in a datagram of {max_datagram}")
    if size_bytes < 0:
        raise ValueError("an object can't have fewer than 0 octets")
    source_blocks = max(1, -(-size_bytes // MAX_BLOCK_BYTES))
    if source_blocks > MAX_SOURCE_BLOCKS:
        raise ValueError(f"{size_bytes} octets are more than {MAX_SOURCE_BLOCKS} source blocks of {MAX_BLOCK_BYTES}")
    symbols = 1
    while -(-size_bytes // symbols) > room:
        symbols *= 2
    return _checked_oti(size_bytes, max(1, -(-size_bytes // symbols)), source_blocks)


def datagram_prefix(object_id: str, oti: ObjectTransmissionInformation, flags: int) -> bytes:
    """All octets of a transfer's datagrams before the FEC payload id.

    Raises ValueError for an object id that is empty or longer than 255 octets of UTF-8, and for unknown flags.
    """
    encoded_id = object_id.encode()
    if not 0 < len(encoded_id) <= MAX_OBJECT_ID:
        raise ValueError(f"an object id has 1 to {MAX_OBJECT_ID} octets, not {len(encoded_id)}")
    if flags & ~KNOWN_FLAGS:
        raise ValueError(f"unknown flags {flags:#04x}")
    high, low = divmod(oti.transfer_length, 1 << 32)
    fields = _OTI.pack(high, low, flags, oti.symbol_size, oti.source_blocks, _SUB_BLOCKS, _ALIGNMENT)
    return bytes((len(encoded_id),)) + encoded_id + fields


def build_datagram(datagram: Datagram) -> bytes:
    """Raises ValueError where a field does not fit its width or the symbol is not T octets (none in a cancel)."""
    symbol = bytes(datagram.symbol)
    if len(symbol) != (0 if datagram.is_cancel else datagram.oti.symbol_size):
        raise ValueError(f"a symbol of {len(symbol)} octets where T is {datagram.oti.symbol_size}")
    if not (0 <= datagram.sbn < 1 << 8 and 0 <= datagram.esi < 1 << 24):
        raise ValueError(f"SBN {datagram.sbn} or ESI {datagram.esi} out of range")
    payload_id = (datagram.sbn << 24 | datagram.esi).to_bytes(4, "big")
    return datagram_prefix(datagram.object_id, datagram.oti, datagram.flags) + payload_id + symbol


def prefix_length(data: Buffer) -> int:
    """How many octets of this datagram are its prefix; receivers use it to recognise the datagrams of one transfer.

    Raises MalformedPacket for an empty datagram.
    """
    view = memoryview(data)
    if not view:
        raise MalformedPacket("empty datagram")
    length: int = view[0]
    return 1 + length + _OTI.size


def parse_datagram_in_python(data: Buffer) -> Datagram:
    """Read one datagram; its symbol is a view of `data`.

    Raises MalformedPacket when octets are missing or left over, for unknown flags, for N or Al other than 1 and 4, for an OTI
    out of RFC 6330's bounds, an SBN not below Z, and for an object id that is empty, not UTF-8 or, with a put header, not a
    transfer id of 22 base64url letters.
    """
    view = memoryview(data)
    if not view:
        raise MalformedPacket("empty datagram")
    id_end = 1 + view[0]
    symbol_start = id_end + _OTI_AND_PAYLOAD_ID.size
    if len(view) < symbol_start or id_end == 1:
        raise MalformedPacket(f"datagram of {len(view)} octets has no room for its header")
    high, low, flags, symbol_size, source_blocks, sub_blocks, alignment, payload_id = _OTI_AND_PAYLOAD_ID.unpack_from(
        view, id_end
    )
    if flags & ~KNOWN_FLAGS:
        raise MalformedPacket(f"unknown flags {flags:#04x}")
    if sub_blocks != _SUB_BLOCKS or alignment != _ALIGNMENT:
        raise MalformedPacket(f"N = {sub_blocks}, Al = {alignment}, expected 1 and 4")
    symbol = view[symbol_start:]
    if len(symbol) != (0 if flags & FLAG_CANCEL else symbol_size):
        raise MalformedPacket(f"symbol of {len(symbol)} octets where T is {symbol_size}")
    try:
        object_id = str(view[1:id_end], "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedPacket(f"object id is not UTF-8: {error.reason}") from None
    if flags & FLAG_PUT_HEADER and not _TRANSFER_ID.fullmatch(object_id):
        raise MalformedPacket("object id of a put is not a transfer id")
    oti = _checked_oti(high << 32 | low, symbol_size, source_blocks)
    sbn = payload_id >> 24
    if sbn >= source_blocks:
        raise MalformedPacket(f"SBN {sbn} where Z is {source_blocks}")
    return Datagram(object_id, oti, flags, sbn, payload_id & 0xFFFFFF, symbol)


@lru_cache(maxsize=4096)
def _checked_oti(transfer_length: int, symbol_size: int, source_blocks: int) -> ObjectTransmissionInformation:
    """All datagrams of a transfer, and many transfers, share one: the checks are made once."""
    return ObjectTransmissionInformation(transfer_length, symbol_size, source_blocks)


parse_datagram: Callable[[Buffer], Datagram] = parse_datagram_in_python
if _wire is not None:
    parse_datagram = _wire.datagram_parser(parse_datagram_in_python, Datagram, _checked_oti)
