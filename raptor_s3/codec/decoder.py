"""An object from its encoding symbols, in any order, with duplicates and surplus (RFC 6330 4.4, 5.4).

Invariant: memory grows with the symbols received, never with what a packet merely claims; `data()` is the encoder's object or there is none.
"""

from __future__ import annotations


from typing import TYPE_CHECKING

from raptor_s3.codec.oti import MAX_ESI, DegreeTable, ObjectTransmissionInformation
from raptor_s3.codec.parameters import block_parameters
from raptor_s3.errors import MalformedPacket

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Block:
    __slots__ = ("data", "length", "missing", "symbols", "wanted")

    def __init__(self, wanted: int, length: int) -> None:
        self.wanted = wanted  # K
        self.length = length
        self.missing = wanted
        self.symbols: dict[int, bytes] = {}
        self.data: bytes | None = None


class ObjectDecoder:
    """Collects the symbols of one object. Not to be shared between threads."""

    def __init__(self, oti: ObjectTransmissionInformation, degree_table: DegreeTable = DegreeTable.RFC6330) -> None:
        self._oti = oti
        self._table = degree_table
        self._blocks: dict[int, _Block] = {}
        self._decoded = 0

    def _block(self, sbn: int) -> _Block:
        block = self._blocks.get(sbn)
        if block is None:
            block = self._blocks[sbn] = _Block(self._oti.block_symbols(sbn), self._oti.block_range(sbn)[1])
        return block

    def add(self, sbn: int, esi: int, symbol: Buffer) -> bool:
        """Take a copy of one symbol; True if its ESI is new. Decodes the block as soon as that can succeed.

        MalformedPacket: sbn >= Z, esi not in 0..2^24-1, or not exactly T octets.
        """
        view = memoryview(symbol)
        if view.nbytes != self._oti.symbol_size:
            raise MalformedPacket(f"a symbol of {view.nbytes} octets where T is {self._oti.symbol_size}")
        if not 0 <= esi <= MAX_ESI:
            raise MalformedPacket(f"encoding symbol id {esi} is not in 0..{MAX_ESI}")
        block = self._block(sbn)
        if esi in block.symbols:
            return False
        block.symbols[esi] = bytes(view)
        if block.data is None:
            block.missing = max(block.missing - 1, 0)
            if not block.missing:
                self._decode(block)
        return True

    def _decode(self, block: _Block) -> None:
        k, size = block.wanted, self._oti.symbol_size
        held = block.symbols
        if any(esi not in held for esi in range(k)):
            import numpy as np

            from raptor_s3.codec import inactivation

            parameters = block_parameters(k)
            padding = parameters.padded_symbols - k
            isis = [esi if esi < k else esi + padding for esi in held] + list(range(k, k + padding))
            symbols = np.frombuffer(b"".join(held.values()) + bytes(padding * size), np.uint8).reshape(-1, size)
            intermediate = inactivation.solve(parameters, self._table, isis, symbols)
            if intermediate is None:
                block.missing = 1
                return
            lost = [esi for esi in range(k) if esi not in held]
            restored = inactivation.encode(parameters, self._table, lost, intermediate)
            held = held | {esi: restored[i].tobytes() for i, esi in enumerate(lost)}
        block.data = b"".join(held[esi] for esi in range(k))[: block.length]
        block.symbols = dict.fromkeys(block.symbols, b"")
        self._decoded += 1

    def received(self, sbn: int) -> int:
        """Distinct symbols received of source block `sbn`. MalformedPacket if sbn >= Z."""
        return len(self._block(sbn).symbols)

    def missing(self, sbn: int) -> int:
        """How many more symbols the block needs at least; 0 when it is decoded. MalformedPacket if sbn >= Z."""
        return self._block(sbn).missing

    @property
    def is_complete(self) -> bool:
        """Whether every source block is decoded."""
        return self._decoded == self._oti.source_blocks

    def data(self) -> bytes:
        """The object, exactly F octets. ValueError when it is not complete."""
        if not self.is_complete:
            raise ValueError(f"{self._decoded} of {self._oti.source_blocks} source blocks are decoded")
        return b"".join(self._blocks[sbn].data or b"" for sbn in range(self._oti.source_blocks))
