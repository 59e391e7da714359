"""How large a stranger may make an object's parts, which every receiver checks first; and the limits of a Collector.

Invariant: an OTI that `check_bounds` let pass costs at most `MAX_OBJECT_BYTES` of storage and `MAX_BLOCK_BYTES` of one decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from raptor_s3.errors import MalformedPacket

if TYPE_CHECKING:
    from raptor_s3.codec import ObjectTransmissionInformation

MAX_OBJECT_BYTES: Final = 128 << 20
"""A little over 255 source blocks of 512 KiB, the most that the datagram's rule for T and Z can describe."""
MAX_BLOCK_BYTES: Final = 1 << 20
MAX_BLOCK_SYMBOLS: Final = 4096
"""The sender's rule gives at most 2,048 (docs/wire.md)."""


@dataclass(frozen=True, slots=True)
class CollectorLimits:
    """Bounds of one Collector. Sizes in octets (of objects being collected or written), times in seconds."""

    max_object_bytes: int = 64 << 20
    max_bytes_per_peer: int = 128 << 20
    max_bytes: int = 512 << 20
    max_transfers_per_peer: int = 4096
    max_tombstones: int = 500_000
    """With the transfers that will leave one. A peer has as many as there are free places, hence half of them if it is alone."""
    idle_s: float = 60.0
    """How long a transfer may stay short of symbols while no new ones come; `DISPLACE_S` where others need its memory."""
    path_ttl_s: float = 900.0
    """Time to live of transfers without a put header."""
    tombstone_s: float = 30.0
    """How long a finished put answers, and late symbols can't revive it; twice its time to live if that is longer.

    A peer that needs the place has its oldest ones go earlier, when their own time to live has passed.
    """
    path_tombstone_s: float = 1.0
    """The same without a put header, where the object id is a path and may rightly come again."""


def check_bounds(oti: ObjectTransmissionInformation) -> None:
    """Raises MalformedPacket for an object, a block or a K larger than any sender of ours makes."""
    symbols = -(-oti.source_symbols // oti.source_blocks)
    if oti.transfer_length > MAX_OBJECT_BYTES:
        raise MalformedPacket(f"object of {oti.transfer_length} octets is larger than {MAX_OBJECT_BYTES}")
    if symbols > MAX_BLOCK_SYMBOLS or symbols * oti.symbol_size > MAX_BLOCK_BYTES:
        raise MalformedPacket(f"source block of {symbols} symbols of {oti.symbol_size} octets")
