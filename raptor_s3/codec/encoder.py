"""Encoding symbols of an object, one at a time or as datagrams laid out for UDP GSO (RFC 6330 4.4, 5.3).

Invariant: symbol (SBN, ESI) is the same octets whoever asks, in whatever order, with whichever kernel.
"""

from __future__ import annotations

from raptor_s3.codec import kernel
from raptor_s3.codec.header import HEADER_SIZE
from raptor_s3.codec.oti import DegreeTable
from raptor_s3.codec.plans import rfc5053_plan, rfc6330_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from raptor_s3.codec.oti import ObjectTransmissionInformation

_RFC6330 = DegreeTable.RFC6330


class ObjectEncoder:
    """Encoder of `data` cut as `oti` says. Keeps a reference to `data`, which must not change meanwhile.

    Threads may share it. ValueError when len(data) != F; TypeError or BufferError when `data` is not a contiguous buffer.
    """

    __slots__ = ("_data", "_intermediate", "_oti", "_plan_for")

    def __init__(self, data: Buffer, oti: ObjectTransmissionInformation, degree_table: DegreeTable = _RFC6330) -> None:
        view = data if type(data) is bytes else memoryview(data).cast("B")
        if len(view) != oti.transfer_length:
            raise ValueError(f"{len(view)} octets of data, but the transfer length is {oti.transfer_length}")
        self._data = view
        self._oti = oti
        self._plan_for = rfc6330_plan if degree_table is _RFC6330 else rfc5053_plan
        self._intermediate: dict[int, bytes] | None = None  # of each SBN, where the block is too large for a generator

    def symbol(self, sbn: int, esi: int) -> bytes:
        """Encoding symbol `esi` of source block `sbn`: exactly T octets; the object's last source symbol is padded with zeros.

        MalformedPacket unless sbn < Z; ValueError unless 0 <= esi < 2^24.
        """
        slot = bytearray(4 + self._oti.symbol_size)
        self.packets_into(slot, 0, len(slot), b"", sbn, esi, 1)
        return bytes(slot[4:])

    def packets_into(self, arena: Buffer, offset: int, stride: int, prefix: bytes, sbn: int, first_esi: int, count: int) -> int:
        """Write datagrams `prefix || SBN u8 || ESI u24 || symbol` of `count` successive ESIs at offset, offset + stride, ...

        Returns the offset after the last slot, offset + count * stride. Octets of a slot beyond its datagram are left
        alone, and the last slot need not be longer than its datagram. `arena` must not overlap the object's data.

        MalformedPacket unless sbn < Z; ValueError when an ESI is not in 0..2^24-1, the stride is shorter than a
        datagram, or the slots exceed the arena.
        """
        oti = self._oti
        if sbn == 0 and oti.source_blocks == 1:
            symbols, start, length = oti.source_symbols, 0, oti.transfer_length
        else:
            symbols, start, length = oti.block(sbn)
        plan = self._plan_for(symbols)
        intermediate = b""
        if len(plan) == HEADER_SIZE and first_esi + count > symbols:
            intermediate = self._solved(sbn, plan)
        return kernel.active.write_packets(
            plan,
            intermediate,
            self._data,
            start,
            length,
            symbols,
            oti.symbol_size,
            arena,
            offset,
            stride,
            prefix,
            sbn,
            first_esi,
            count,
        )

    def _solved(self, sbn: int, plan: bytes) -> bytes:
        if self._intermediate is None:
            self._intermediate = {}
        if sbn not in self._intermediate:
            symbols, start, length = self._oti.block(sbn)
            self._intermediate[sbn] = kernel.active.make_intermediate(
                plan, self._data, start, length, symbols, self._oti.symbol_size
            )
        return self._intermediate[sbn]
