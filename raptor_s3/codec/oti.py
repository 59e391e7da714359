"""FEC Object Transmission Information and the cut of an object into source blocks (RFC 6330 3.3, 4.4.1.2).

F, T and Z come from the wire. Everything that the codec allocates or plans is derived from them, so they are checked here, once, before anything else
happens. N is 1 and Al does not appear: this codec codes bytes, and every T is a multiple of 1.

Invariant: an `ObjectTransmissionInformation` that exists describes an object that RFC 6330 can carry.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from raptor_s3.errors import MalformedPacket

MAX_BLOCK_SYMBOLS = 56_403  # K'_max, RFC 6330 5.1.2
MAX_ESI = (1 << 24) - 1  # RFC 6330 3.2
_MAX_TRANSFER_LENGTH = (1 << 40) - 1  # u40, RFC 6330 3.3.2


class DegreeTable(enum.Enum):
    """Which degree distribution the LT rows are drawn from."""

    RFC6330 = 0
    RFC5053 = 1  # the published raptor CLI and backend (docs/errata.md, C1)


@dataclass(frozen=True, slots=True)
class ObjectTransmissionInformation:
    """F, T and Z of one object (RFC 6330 3.3.2, 3.3.3).

    `transfer_length` and `symbol_size` in octets. An empty object (F = 0) is one block of one symbol.
    Raises MalformedPacket when a field is out of its range, or when Z blocks can't hold the object at 56,403 symbols each.

    >>> oti = ObjectTransmissionInformation(transfer_length=10, symbol_size=2, source_blocks=2)
    >>> oti.block_symbols(0), oti.block_symbols(1), oti.block_range(1)
    (3, 2, (6, 4))
    """

    transfer_length: int
    symbol_size: int
    source_blocks: int

    def __post_init__(self) -> None:
        length, size, blocks = self.transfer_length, self.symbol_size, self.source_blocks
        if not 0 <= length <= _MAX_TRANSFER_LENGTH:
            raise MalformedPacket(f"transfer length {length} is not in 0..2^40-1")
        if not 1 <= size <= 0xFFFF:
            raise MalformedPacket(f"symbol size {size} is not in 1..65535")
        symbols = -(-length // size) or 1
        if not 1 <= blocks <= 255 or blocks > symbols:
            raise MalformedPacket(f"{blocks} source blocks for {symbols} symbols (1..255, at most one per symbol)")
        if -(-symbols // blocks) > MAX_BLOCK_SYMBOLS:
            raise MalformedPacket(f"{-(-symbols // blocks)} symbols in a source block, more than {MAX_BLOCK_SYMBOLS}")

    def block_symbols(self, sbn: int) -> int:
        """K of source block `sbn`: Partition[ceil(F/T), Z] (RFC 6330 4.4.1.2). Raises MalformedPacket unless 0 <= sbn < Z."""
        if not 0 <= sbn < self.source_blocks:
            raise MalformedPacket(f"source block number {sbn} of {self.source_blocks} blocks")
        short, longer = divmod(-(-self.transfer_length // self.symbol_size) or 1, self.source_blocks)
        return short + (sbn < longer)

    def block_range(self, sbn: int) -> tuple[int, int]:
        """(offset, length) of source block `sbn` in the object, octets; the last block's padding is not counted."""
        symbols = self.block_symbols(sbn)
        short, longer = divmod(-(-self.transfer_length // self.symbol_size) or 1, self.source_blocks)
        offset = (sbn * short + min(sbn, longer)) * self.symbol_size
        return offset, min(symbols * self.symbol_size, self.transfer_length - offset)
