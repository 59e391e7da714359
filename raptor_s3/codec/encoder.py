"""Encoding symbols of an object, one at a time or as datagrams laid out for UDP GSO (RFC 6330 4.4, 5.3).

Invariant: symbol (SBN, ESI) is the same bytes whoever asks, in whatever order, with whichever kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptor_s3.codec.oti import MAX_ESI, DegreeTable, ObjectTransmissionInformation
from raptor_s3.codec.parameters import block_parameters

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from raptor_s3.codec.gf256 import Octets


class ObjectEncoder:
    """Encoder of `data` cut as `oti` says. Keeps a reference to `data`, which must not change meanwhile.

    ValueError when len(data) != F.
    """

    def __init__(self, data: Buffer, oti: ObjectTransmissionInformation, degree_table: DegreeTable = DegreeTable.RFC6330) -> None:
        self._data = memoryview(data).cast("B")
        if len(self._data) != oti.transfer_length:
            raise ValueError(f"{len(self._data)} octets of data, but the transfer length is {oti.transfer_length}")
        self._oti = oti
        self._table = degree_table
        self._intermediate: dict[int, Octets] = {}

    def symbol(self, sbn: int, esi: int) -> bytes:
        """Encoding symbol `esi` of source block `sbn`: exactly T octets; the object's last source symbol is padded with zeros.

        MalformedPacket unless sbn < Z; ValueError unless 0 <= esi < 2^24.
        """
        if not 0 <= esi <= MAX_ESI:
            raise ValueError(f"encoding symbol id {esi} is not in 0..{MAX_ESI}")
        symbols, size = self._oti.block_symbols(sbn), self._oti.symbol_size
        offset, length = self._oti.block_range(sbn)
        if esi < symbols:
            at = offset + esi * size
            return bytes(self._data[at : min(at + size, offset + length)]).ljust(size, b"\0")

        import numpy as np

        from raptor_s3.codec import inactivation

        parameters = block_parameters(symbols)
        if sbn not in self._intermediate:
            source = np.zeros((parameters.padded_symbols, size), np.uint8)
            source.reshape(-1)[:length] = np.frombuffer(self._data[offset : offset + length], np.uint8)
            solved = inactivation.solve(parameters, self._table, range(parameters.padded_symbols), source)
            assert solved is not None, "A is invertible for every K' (RFC 6330 5.6)"
            self._intermediate[sbn] = solved
        isi = esi + parameters.padded_symbols - symbols
        return inactivation.encode(parameters, self._table, [isi], self._intermediate[sbn]).tobytes()

    def packets_into(self, arena: Buffer, offset: int, stride: int, prefix: bytes, sbn: int, first_esi: int, count: int) -> int:
        """Write `count` datagrams `prefix || SBN u8 || ESI u24 || symbol` at offset, offset + stride, ...; the offset after the last slot.

        Octets of a slot beyond the datagram are left alone. ValueError when the stride is shorter than a datagram or the slots exceed the arena.
        """
        slot = len(prefix) + 4 + self._oti.symbol_size
        target = memoryview(arena).cast("B")
        end = offset + count * stride
        if stride < slot or offset < 0 or count < 0 or end > len(target):
            raise ValueError(f"{count} slots of {slot} octets, {stride} apart from {offset}, in an arena of {len(target)}")
        for i in range(count):
            at, esi = offset + i * stride, first_esi + i
            target[at : at + slot] = prefix + bytes((sbn,)) + esi.to_bytes(3, "big") + self.symbol(sbn, esi)
        return end
