"""The transfer state: what a receiver tells the sender of one transfer (docs/wire.md).

    u32 magic 'rapt' | u8 type | u16 data | u8 SBN | u8 id_length | object_id | JSON (optional)

COMPLETE is the only success: the object is in S3, and the JSON holds PutObject's response fields. FAILED carries Code, Message
and StatusCode. FAILED, CANCELLED and the JSON go only to transfers with a put header, because published clients take any other
non-zero type for a success.

Both functions are C where it was built (`_wire.c`), which leaves all but the plain cases to these here, its twins.

Invariant: every input either parses or raises MalformedPacket.
"""

from __future__ import annotations

import enum
import json
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raptor_s3.errors import MalformedPacket
from raptor_s3.wire.compact_json import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Buffer

try:
    from raptor_s3.wire import _wire
except ImportError:  # built without a C compiler
    _wire = None  # type: ignore[assignment]

MAGIC: Final = 0x72617074
MAX_RECEIVED: Final = 0xFFFF

_HEAD: Final = struct.Struct(">IBHBB")
_HEAD_SIZE: Final = _HEAD.size
_unpack_head: Final = _HEAD.unpack_from
_DECODER: Final = json.JSONDecoder()


class StateType(enum.IntEnum):
    PACKETS = 0
    """Packets arrived; `received` counts the block's distinct symbols."""
    ENOUGH_PACKETS = 1
    """The block has enough packets: no more are needed."""
    BLOCK_COMPLETE = 2
    COMPLETE = 3
    """The object is in S3."""
    FAILED = 0x80
    CANCELLED = 0x81
    """Nothing was and nothing will be written."""


FINAL_TYPES: Final = frozenset((StateType.COMPLETE, StateType.FAILED, StateType.CANCELLED))

_TYPES: Final = {int(member): member for member in StateType}


class TransferState(NamedTuple):
    """One state of one transfer. The wire caps `received` at 65,535; `fields` is the JSON object, None where there is none."""

    type: StateType
    object_id: str
    sbn: int = 0
    received: int = 0
    fields: Mapping[str, Any] | None = None

    @property
    def is_final(self) -> bool:
        return self.type in FINAL_TYPES


def build_transfer_state_in_python(state: TransferState) -> bytes:
    """Raises ValueError for an object id that is empty or longer than 255 octets, and for an SBN out of range."""
    type_, object_id, sbn, received, fields = state
    encoded_id = object_id.encode()
    if not 0 < len(encoded_id) <= 0xFF or not 0 <= sbn <= 0xFF:
        raise ValueError(f"object id of {len(encoded_id)} octets or SBN {sbn} out of range")
    if not 0 <= received <= MAX_RECEIVED:
        received = min(max(received, 0), MAX_RECEIVED)
    head = _HEAD.pack(MAGIC, type_, received, sbn, len(encoded_id))
    return head + encoded_id if fields is None else b"".join((head, encoded_id, encode(fields).encode()))


def parse_transfer_state_in_python(data: Buffer) -> TransferState:
    """Raises MalformedPacket when octets are missing, for another magic, an unknown type, or JSON that is not an object."""
    message = data if type(data) is bytes else bytes(data)
    if len(message) < _HEAD_SIZE:
        raise MalformedPacket(f"transfer state of {len(message)} octets has no room for its header")
    magic, number, received, sbn, id_length = _unpack_head(message)
    if magic != MAGIC:
        raise MalformedPacket("not a transfer state")
    state_type = _TYPES.get(number)
    if state_type is None:
        raise MalformedPacket(f"unknown transfer state {number:#04x}")
    end = _HEAD_SIZE + id_length
    if id_length == 0 or len(message) < end:
        raise MalformedPacket("transfer state has no object id")
    fields = None
    try:
        object_id = message[_HEAD_SIZE:end].decode()
        if len(message) > end:
            fields = decode(message[end:].decode(), _DECODER)
    except (ValueError, RecursionError) as error:
        raise MalformedPacket(f"transfer state does not parse: {error}") from None
    if fields is not None and not isinstance(fields, dict):
        raise MalformedPacket("transfer state's JSON is not an object")
    return TransferState(state_type, object_id, sbn, received, fields)


build_transfer_state: Callable[[TransferState], bytes] = build_transfer_state_in_python
parse_transfer_state: Callable[[Buffer], TransferState] = parse_transfer_state_in_python
if _wire is not None:
    build_transfer_state = _wire.transfer_state_builder(build_transfer_state_in_python, TransferState)
    _members = tuple(_TYPES.get(number) for number in range(256))
    parse_transfer_state = _wire.transfer_state_parser(parse_transfer_state_in_python, TransferState, _members)
