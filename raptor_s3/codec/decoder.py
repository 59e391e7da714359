"""An object from its encoding symbols, in any order, with duplicates and surplus (RFC 6330 4.4, 5.4).

Invariant: memory grows with the symbols received, never with what a packet merely claims; `data()` is the encoder's object
or there is none.
"""

from __future__ import annotations

from raptor_s3.codec import kernel
from raptor_s3.codec.oti import MAX_ESI, DegreeTable
from raptor_s3.codec.plans import rfc5053_plan, rfc6330_plan
from raptor_s3.errors import MalformedPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from raptor_s3.codec.oti import ObjectTransmissionInformation

_RFC6330 = DegreeTable.RFC6330


class _Block:
    """The symbols of a source block, in order of arrival."""

    __slots__ = ("failures", "length", "missing", "received", "seen", "store", "symbols")

    def __init__(self, symbols: int, length: int) -> None:
        self.symbols = symbols  # K
        self.length = length
        self.missing = symbols  # how many more are needed at least
        self.seen: dict[int, None] = {}  # their ESIs, distinct
        self.store = bytearray()  # and they themselves, back to back
        self.received = 0  # distinct ones that never were in `seen`
        self.failures = 0


class ObjectDecoder:
    """Collects the symbols of one object. Not to be shared between threads.

    `is_complete` is whether every source block is decoded.
    """

    __slots__ = ("_blocks", "_in_batch", "_oti", "_parts", "_plan_for", "_whole", "is_complete")

    is_complete: bool

    def __init__(self, oti: ObjectTransmissionInformation, degree_table: DegreeTable = _RFC6330) -> None:
        self._oti = oti
        self._plan_for = rfc6330_plan if degree_table is _RFC6330 else rfc5053_plan
        self._blocks: dict[int, _Block] = {}
        self._parts: dict[int, bytes] = {}  # of each SBN, the source block once it is decoded
        self._whole: bytes | None = None  # the object
        self._in_batch: tuple[int, ...] = ()  # distinct symbols of each block, where one batch held the object
        self.is_complete = False

    def add(self, sbn: int, esi: int, symbol: Buffer) -> bool:
        """Take a copy of one symbol; True if its ESI is new. Decodes the block as soon as that can succeed.

        MalformedPacket: sbn >= Z, esi not in 0..2^24-1, or not exactly T octets.
        """
        block = self._blocks.get(sbn) or self._open(sbn)
        size = len(symbol) if type(symbol) is bytes else memoryview(symbol).nbytes
        if size != self._oti.symbol_size:
            raise MalformedPacket(f"a symbol of {size} octets where T is {self._oti.symbol_size}")
        seen = block.seen
        if esi in seen:
            return False
        if not 0 <= esi <= MAX_ESI:
            raise MalformedPacket(f"encoding symbol id {esi} is not in 0..{MAX_ESI}")
        if block.missing:
            block.store += symbol
            seen[esi] = None
            block.missing -= 1
            if not block.missing:
                self._decode(sbn, block)
        elif len(seen) < 2 * block.symbols + 64:  # counted for the sender's loss estimate, within bounds
            seen[esi] = None
        return True

    def add_packets(self, arena: Buffer, offset: int, stride: int, count: int) -> int:
        """Take `count` symbols, each behind its payload id (SBN u8, ESI u24) at offset, offset + stride, ...; how many were new.

        The way in for a whole batch, such as GRO delivers, and the way back from ObjectEncoder.packets_into. A first batch
        that holds enough of the object is decoded where it lies, without a copy of its symbols.

        MalformedPacket as for `add`; ValueError when the symbols exceed the arena.
        """
        oti = self._oti
        symbols = oti.source_symbols
        if count >= symbols and not self._blocks and self._whole is None:
            blocks = oti.source_blocks
            last_plan = plan = self._plan_for(symbols // blocks)
            if blocks > 1:
                plan = self._plan_for(-(-symbols // blocks))
            distinct, _, data = kernel.active.decode(
                plan, last_plan, arena, offset + 4, stride, count, None, blocks, oti.symbol_size, oti.transfer_length
            )
            if data is not None:
                self._whole, self._in_batch, self.is_complete = data, distinct, True
                return sum(distinct)
        return self._add_each(arena, offset, stride, count)

    def _add_each(self, arena: Buffer, offset: int, stride: int, count: int) -> int:
        octets = memoryview(arena).cast("B")
        size = self._oti.symbol_size
        if offset < 0 or count < 0 or stride < 1 or (count and offset + (count - 1) * stride + 4 + size > len(octets)):
            raise ValueError(f"{count} symbols of {size} octets, {stride} apart from {offset}, in an arena of {len(octets)}")
        new = 0
        for at in range(offset, offset + count * stride, stride):
            new += self.add(octets[at], int.from_bytes(octets[at + 1 : at + 4], "big"), octets[at + 4 : at + 4 + size])
        return new

    def _decode(self, sbn: int, block: _Block) -> None:
        plan, esis = self._plan_for(block.symbols), list(block.seen)
        _, missing, data = kernel.active.decode(
            plan, plan, block.store, 0, self._oti.symbol_size, len(esis), esis, 1, self._oti.symbol_size, block.length
        )
        if data is None:
            # A crafted run of dependent symbols must not buy an attempt each: after three, wait twice as long each time.
            block.failures += 1
            block.missing = max(missing, 1 << max(block.failures - 3, 0))
        else:
            block.store = bytearray()
            self._parts[sbn] = data
            self.is_complete = len(self._parts) == self._oti.source_blocks

    def _open(self, sbn: int) -> _Block:
        symbols, _, length = self._oti.block(sbn)
        block = self._blocks[sbn] = _Block(symbols, length)
        if self._in_batch:
            block.missing = 0
            block.received = self._in_batch[sbn]
        return block

    def received(self, sbn: int) -> int:
        """Distinct symbols received of source block `sbn`. MalformedPacket if sbn >= Z."""
        block = self._blocks.get(sbn) or self._open(sbn)
        return block.received + len(block.seen)

    def missing(self, sbn: int) -> int:
        """How many more symbols the block needs at least; 0 when it is decoded. MalformedPacket if sbn >= Z."""
        return (self._blocks.get(sbn) or self._open(sbn)).missing

    def data(self) -> bytes:
        """The object, exactly F octets. ValueError when it is not complete."""
        if not self.is_complete:
            raise ValueError(f"{len(self._parts)} of {self._oti.source_blocks} source blocks are decoded")
        if self._whole is None:
            parts = self._parts
            self._whole = parts[0] if len(parts) == 1 else b"".join([parts[sbn] for sbn in range(len(parts))])
            parts.clear()
        return self._whole
