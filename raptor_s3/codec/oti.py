"""FEC Object Transmission Information and the cut of an object into source blocks (RFC 6330 3.3, 4.4.1.2).

F, T and Z come from the wire. Everything that the codec allocates or plans is derived from them, so they are checked
here, once, before anything else happens. N is 1 and Al does not appear: this codec works on octets, so any T will do
(docs/errata.md, C2).

Invariant: an `ObjectTransmissionInformation` that exists describes an object that RFC 6330 can carry.
"""

from __future__ import annotations

import enum

from raptor_s3.errors import MalformedPacket

MAX_BLOCK_SYMBOLS = 56_403  # K'_max, RFC 6330 5.1.2
MAX_ESI = (1 << 24) - 1  # RFC 6330 3.2
_MAX_TRANSFER_LENGTH = (1 << 40) - 1  # u40, RFC 6330 3.3.2

_set = object.__setattr__


class DegreeTable(enum.Enum):
    """Which degree distribution the LT rows are drawn from."""

    RFC6330 = 0
    RFC5053 = 1  # the published raptor CLI and backend (docs/errata.md, C1)


class ObjectTransmissionInformation:
    """F, T and Z of one object (RFC 6330 3.3.2, 3.3.3): a frozen value.

    `transfer_length` and `symbol_size` in octets. An empty object (F = 0) is one block of one symbol.
    Raises MalformedPacket when a field is out of its range, or when Z blocks can't hold the object at 56,403 symbols each.

    >>> oti = ObjectTransmissionInformation(transfer_length=10, symbol_size=2, source_blocks=2)
    >>> oti.block_symbols(0), oti.block_symbols(1), oti.block_range(1)
    (3, 2, (6, 4))
    """

    # By hand: importing `dataclasses` costs more than the whole codec, and a receiver makes one of these per datagram.
    __slots__ = ("source_blocks", "source_symbols", "symbol_size", "transfer_length")
    __match_args__ = ("transfer_length", "symbol_size", "source_blocks")

    transfer_length: int
    symbol_size: int
    source_blocks: int
    source_symbols: int  # Kt = ceil(F / T), or 1, of all blocks together

    def __init__(self, transfer_length: int, symbol_size: int, source_blocks: int) -> None:
        if not 0 <= transfer_length <= _MAX_TRANSFER_LENGTH:
            raise MalformedPacket(f"transfer length {transfer_length} is not in 0..2^40-1")
        if not 1 <= symbol_size <= 0xFFFF:
            raise MalformedPacket(f"symbol size {symbol_size} is not in 1..65535")
        symbols = -(-transfer_length // symbol_size) or 1
        if not (1 <= source_blocks <= 255 and source_blocks <= symbols):
            raise MalformedPacket(f"{source_blocks} source blocks for {symbols} symbols (1..255, at most one per symbol)")
        if symbols > source_blocks * MAX_BLOCK_SYMBOLS:
            raise MalformedPacket(f"{-(-symbols // source_blocks)} symbols in a source block, more than {MAX_BLOCK_SYMBOLS}")
        _set(self, "transfer_length", transfer_length)
        _set(self, "symbol_size", symbol_size)
        _set(self, "source_blocks", source_blocks)
        _set(self, "source_symbols", symbols)

    def block(self, sbn: int) -> tuple[int, int, int]:
        """(K, offset, length) of source block `sbn`: Partition[ceil(F/T), Z] (RFC 6330 4.4.1.2).

        Offset and length in octets of the object; the last block's padding is not counted.
        Raises MalformedPacket unless 0 <= sbn < Z.
        """
        blocks = self.source_blocks
        if not 0 <= sbn < blocks:
            raise MalformedPacket(f"source block number {sbn} of {blocks} blocks")
        if blocks == 1:
            return self.source_symbols, 0, self.transfer_length
        short, longer = divmod(self.source_symbols, blocks)
        symbols = short + (sbn < longer)
        offset = (sbn * short + min(sbn, longer)) * self.symbol_size
        return symbols, offset, min(symbols * self.symbol_size, self.transfer_length - offset)

    def block_symbols(self, sbn: int) -> int:
        """K of source block `sbn`. Raises MalformedPacket unless 0 <= sbn < Z."""
        return self.block(sbn)[0]

    def block_range(self, sbn: int) -> tuple[int, int]:
        """(offset, length) of source block `sbn` in the object, octets. Raises MalformedPacket unless 0 <= sbn < Z."""
        return self.block(sbn)[1:]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not ObjectTransmissionInformation:
            return NotImplemented
        return self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self.transfer_length, self.symbol_size, self.source_blocks))

    def __reduce__(self) -> tuple[type[ObjectTransmissionInformation], tuple[int, int, int]]:
        return type(self), (self.transfer_length, self.symbol_size, self.source_blocks)

    def __repr__(self) -> str:
        return (
            f"ObjectTransmissionInformation(transfer_length={self.transfer_length}, symbol_size={self.symbol_size}, "
            f"source_blocks={self.source_blocks})"
        )
