"""Encoding symbols of an object, one at a time or as datagrams laid out for UDP GSO (RFC 6330 4.4, 5.3).

Invariant: symbol (SBN, ESI) is the same octets whoever asks, in whatever order, with whichever kernel.
"""

from __future__ import annotations

from raptor_s3.codec import kernel
from raptor_s3.codec.oti import DegreeTable
from raptor_s3.codec.plans import HEADER_SIZE, plan_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from raptor_s3.codec.oti import ObjectTransmissionInformation

_RFC6330 = DegreeTable.RFC6330


class ObjectEncoder:
    """Encoder of `data` cut as `oti` says. Keeps a reference to `data`, which must not change meanwhile.

    Threads may share it. ValueError when len(data) != F; TypeError or BufferError when `data` is not a contiguous buffer.
    """

    __slots__ = ("_blocks", "_data", "_intermediate", "_oti", "_size", "_table")

    def __init__(self, data: Buffer, oti: ObjectTransmissionInformation, degree_table: DegreeTable = _RFC6330) -> None:
        view = data if type(data) is bytes else memoryview(data).cast("B")
        if len(view) != oti.transfer_length:
            raise ValueError(f"{len(view)} octets of data, but the transfer length is {oti.transfer_length}")
        self._data = view
        self._oti = oti
        self._size = oti.symbol_size
        self._table = degree_table
        self._blocks: dict[int, tuple[bytes, int, int, int]] = {}  # SBN: plan, offset, length, K
        self._intermediate: dict[int, bytes] = {}

    def symbol(self, sbn: int, esi: int) -> bytes:
        """Encoding symbol `esi` of source block `sbn`: exactly T octets; the object's last source symbol is padded with zeros.

        MalformedPacket unless sbn < Z; ValueError unless 0 <= esi < 2^24.
        """
        slot = bytearray(4 + self._size)
        self.packets_into(slot, 0, len(slot), b"", sbn, esi, 1)
        return bytes(slot[4:])

    def packets_into(self, arena: Buffer, offset: int, stride: int, prefix: bytes, sbn: int, first_esi: int, count: int) -> int:
        """Write datagrams `prefix || SBN u8 || ESI u24 || symbol` of `count` successive ESIs at offset, offset + stride, ...

        Returns the offset after the last slot, offset + count * stride. Octets of a slot beyond its datagram are left
        alone, and the last slot need not be longer than its datagram. `arena` must not overlap the object's data.

        MalformedPacket unless sbn < Z; ValueError when an ESI is not in 0..2^24-1, the stride is shorter than a
        datagram, or the slots exceed the arena.
        """
        plan, start, length, symbols = self._blocks.get(sbn) or self._open(sbn)
        intermediate = b""
        if first_esi + count > symbols and len(plan) == HEADER_SIZE:
            intermediate = self._solved(sbn)
        return kernel.active.write_packets(
            plan,
            intermediate,
            self._data,
            start,
            length,
            symbols,
            self._size,
            arena,
            offset,
            stride,
            prefix,
            sbn,
            first_esi,
            count,
        )

    def _open(self, sbn: int) -> tuple[bytes, int, int, int]:
        symbols = self._oti.block_symbols(sbn)
        block = self._blocks[sbn] = (plan_for(symbols, self._table), *self._oti.block_range(sbn), symbols)
        return block

    def _solved(self, sbn: int) -> bytes:
        """The intermediate symbols of a block too large for a generator."""
        if sbn not in self._intermediate:
            plan, start, length, symbols = self._blocks[sbn]
            self._intermediate[sbn] = kernel.active.make_intermediate(plan, self._data, start, length, symbols, self._size)
        return self._intermediate[sbn]
