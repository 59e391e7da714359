"""An object from its encoding symbols, in any order, with duplicates and surplus (RFC 6330 4.4, 5.4).

Invariant: memory grows with the symbols received, never with what a packet merely claims; `data()` is the encoder's
object or there is none.
"""

from __future__ import annotations

from struct import pack

from raptor_s3.codec import kernel
from raptor_s3.codec.oti import MAX_ESI, DegreeTable
from raptor_s3.codec.plans import plan_for, plan_header
from raptor_s3.errors import MalformedPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from raptor_s3.codec.oti import ObjectTransmissionInformation

_RFC6330 = DegreeTable.RFC6330


class _Block:
    """One source block: its symbols as they came, then its octets."""

    __slots__ = ("data", "failures", "length", "missing", "seen", "store", "symbols")

    def __init__(self, symbols: int, length: int) -> None:
        self.symbols = symbols  # K
        self.length = length
        self.missing = symbols  # how many more are needed at least
        self.seen: dict[int, None] = {}  # distinct ESIs in order of arrival
        self.store = bytearray()  # their symbols, back to back
        self.failures = 0
        self.data: bytes | None = None


class ObjectDecoder:
    """Collects the symbols of one object. Not to be shared between threads.

    `is_complete` is whether every source block is decoded.
    """

    __slots__ = ("_blocks", "_decoded", "_oti", "_size", "_table", "is_complete")

    def __init__(self, oti: ObjectTransmissionInformation, degree_table: DegreeTable = _RFC6330) -> None:
        self._oti = oti
        self._size = oti.symbol_size
        self._table = degree_table
        self._blocks: dict[int, _Block] = {}
        self._decoded = 0
        self.is_complete = False

    def _open(self, sbn: int) -> _Block:
        block = self._blocks[sbn] = _Block(self._oti.block_symbols(sbn), self._oti.block_range(sbn)[1])
        return block

    def add(self, sbn: int, esi: int, symbol: Buffer) -> bool:
        """Take a copy of one symbol; True if its ESI is new. Decodes the block as soon as that can succeed.

        MalformedPacket: sbn >= Z, esi not in 0..2^24-1, or not exactly T octets.
        """
        block = self._blocks.get(sbn) or self._open(sbn)
        size = len(symbol) if type(symbol) is bytes else memoryview(symbol).nbytes
        if size != self._size:
            raise MalformedPacket(f"a symbol of {size} octets where T is {self._size}")
        if not 0 <= esi <= MAX_ESI:
            raise MalformedPacket(f"encoding symbol id {esi} is not in 0..{MAX_ESI}")
        seen = block.seen
        if esi in seen:
            return False
        if block.data is None:
            block.store += symbol
            seen[esi] = None
            block.missing -= 1
            if not block.missing:
                self._decode(block)
        elif len(seen) < 2 * block.symbols + 64:  # counted for the sender's loss estimate, within bounds
            seen[esi] = None
        return True

    def _decode(self, block: _Block) -> None:
        symbols, seen = block.symbols, block.seen
        plan = plan_header(symbols, self._table) if max(seen) < symbols else plan_for(symbols, self._table)
        _, missing, data = kernel.active.decode(
            plan, block.store, 0, self._size, len(seen), pack(f"={len(seen)}I", *seen), 0, symbols, self._size, block.length
        )
        if data is None:
            # A crafted run of dependent symbols must not buy an attempt each: after three, wait twice as long each time.
            block.failures += 1
            block.missing = max(missing, 1 << max(block.failures - 3, 0))
        else:
            self._finish(block, data)

    def _finish(self, block: _Block, data: bytes) -> None:
        block.data = data
        block.missing = 0
        block.store = bytearray()
        self._decoded += 1
        self.is_complete = self._decoded == self._oti.source_blocks

    def received(self, sbn: int) -> int:
        """Distinct symbols received of source block `sbn`. MalformedPacket if sbn >= Z."""
        return len((self._blocks.get(sbn) or self._open(sbn)).seen)

    def missing(self, sbn: int) -> int:
        """How many more symbols the block needs at least; 0 when it is decoded. MalformedPacket if sbn >= Z."""
        return (self._blocks.get(sbn) or self._open(sbn)).missing

    def data(self) -> bytes:
        """The object, exactly F octets. ValueError when it is not complete."""
        if not self.is_complete:
            raise ValueError(f"{self._decoded} of {self._oti.source_blocks} source blocks are decoded")
        if self._decoded == 1:
            return self._blocks[0].data or b""
        return b"".join(self._blocks[sbn].data or b"" for sbn in range(self._decoded))
