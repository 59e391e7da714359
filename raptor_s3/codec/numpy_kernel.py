"""The codec's arithmetic in numpy: the twin of the C kernel (_kernel.c), with the same functions, results and bounds.

`plan` is a header or a header with a generator (plans.py). A source block is `length` octets of `data` from `start` on,
cut into `symbols` = K symbols of `size` = T octets, of which the last may be short.

Invariant: every function returns the octets that the C kernel returns. ValueError where an argument is out of bounds.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from raptor_s3.codec import gf256, inactivation
from raptor_s3.codec.header import HEADER_SIZE
from raptor_s3.codec.rows import Code, code_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from raptor_s3.codec.gf256 import Octets, Rows

    Integers = npt.NDArray[np.int64]

_MAX_ESI = 0xFFFFFF


def _octets(data: Buffer) -> Octets:
    return np.frombuffer(memoryview(data).cast("B"), np.uint8)


class _Generator:
    """The part of a plan after its header (_raptorq.h tells its layout)."""

    def __init__(self, plan: Buffer, code: Code) -> None:
        octets = _octets(plan)
        packed = -(-code.padded // 64) * 8
        at, parts = HEADER_SIZE, []
        for count, width in ((code.total, 2), (code.total, packed), (code.hdpc, code.padded), (8 * code.hdpc, packed)):
            parts.append(octets[at : at + count * width].reshape(count, width))
            at += count * width
        self.code = code
        self.masks, self.bits, self.frees, self.planes = parts

    @staticmethod
    def of(plan: Buffer, code: Code) -> _Generator | None:
        return _Generator(plan, code) if memoryview(plan).nbytes > HEADER_SIZE else None

    def rows(self, isis: list[int]) -> tuple[Octets, Octets]:
        """Encoding symbols in source symbols (n x K') and in free columns (n x H), zeros and ones."""
        bits = np.unpackbits(inactivation.encode(self.code, isis, self.bits), axis=1, count=self.code.padded, bitorder="little")
        masks = inactivation.encode(self.code, isis, self.masks).view(np.uint16)
        marks = masks >> np.arange(self.code.hdpc, dtype=np.uint16) & np.uint16(1)
        return bits, marks.astype(np.uint8)

    def apply(self, bits: Octets, marks: Octets, source: Rows) -> Octets:
        """Their values for source symbols (K x T)."""
        count, terms = len(bits), len(source)
        if count <= self.code.hdpc:
            return gf256.product((bits ^ gf256.binary_product(marks, self.frees))[:, :terms], source)
        planes = np.unpackbits(self.planes, axis=1, count=terms, bitorder="little")
        sums = gf256.binary_product(np.concatenate([bits[:, :terms], planes]), source)
        by_bit = sums[count:].reshape(self.code.hdpc, 8, -1).transpose(1, 0, 2)
        return sums[:count] ^ gf256.binary_product(marks, gf256.join_planes(by_bit))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _source(code: Code, data: Buffer, start: int, length: int, symbols: int, size: int) -> Octets:
    """The K x T source symbols, the last one padded."""
    octets = _octets(data)
    _require(0 <= start <= octets.size and 0 <= length <= octets.size - start, "the source block is outside the data")
    _require(1 <= symbols <= code.padded and 1 <= size <= 0xFFFF, "K or T is out of range")
    _require((symbols - 1) * size <= length <= symbols * size, "the source block is not of K symbols")
    if length == symbols * size:
        return octets[start : start + length].reshape(symbols, size)
    source = np.zeros((symbols, size), np.uint8)
    source.reshape(-1)[:length] = octets[start : start + length]
    return source


def _source_structure(code: Code) -> inactivation.Structure:
    structure, _ = inactivation.analyse(code, range(code.padded))
    if structure is None:
        raise ValueError("A is singular")
    return structure


def make_plan(header: Buffer, /) -> bytes:
    """The plan with a generator for the K' of `header`. ValueError if A is singular."""
    header = bytes(header)
    code = code_of(header)
    structure = _source_structure(code)
    values = structure.binary(list(np.eye(code.padded, dtype=np.uint8)), slice(code.padded))
    free = structure.free(values)
    in_column = np.zeros((code.total, 16), np.uint8)
    in_column[:, : code.hdpc] = structure.in_column
    masks = np.packbits(in_column, axis=1, bitorder="little").view("<u2").astype(np.uint16)
    planes = np.unpackbits(free[:, :, None], axis=2, bitorder="little").transpose(0, 2, 1)
    parts = (masks, _packed(values), free, _packed(planes.reshape(8 * code.hdpc, code.padded)))
    return header + b"".join(part.tobytes() for part in parts)


def _packed(bits: Octets) -> Octets:
    """Rows of zeros and ones as rows of bits, padded to a multiple of eight octets."""
    padded = np.zeros((len(bits), -(-bits.shape[1] // 64) * 64), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1, bitorder="little")


def make_intermediate(plan: Buffer, data: Buffer, start: int, length: int, symbols: int, size: int, /) -> bytes:
    """The L intermediate symbols of a source block, back to back."""
    code = code_of(bytes(plan))
    source = _source(code, data, start, length, symbols, size)
    return _source_structure(code).intermediate([*source, *[None] * (code.padded - symbols)], slice(size)).tobytes()


def write_packets(
    plan: Buffer,
    intermediate: Buffer,
    data: Buffer,
    start: int,
    length: int,
    symbols: int,
    size: int,
    arena: Buffer,
    offset: int,
    stride: int,
    prefix: Buffer,
    sbn: int,
    first_esi: int,
    count: int,
    /,
) -> int:
    """Write prefix || payload id || symbol at offset, offset + stride, ...; the offset after the last slot.

    `intermediate` is read only where the plan has no generator; b'' elsewhere.
    """
    code = code_of(bytes(plan))
    source = _source(code, data, start, length, symbols, size)
    target = memoryview(arena).cast("B")
    head = bytes(prefix)
    slot = len(head) + 4 + size
    _require(0 <= sbn <= 255 and 0 <= first_esi <= _MAX_ESI and 0 <= count <= _MAX_ESI + 1 - first_esi, "payload id out of range")
    _require(0 <= offset <= len(target) and stride >= slot, "slots too short")
    _require(not count or offset + (count - 1) * stride + slot <= len(target), "slots exceed the arena")
    if not count:
        return offset
    octets = np.frombuffer(target, np.uint8)
    slots = np.lib.stride_tricks.as_strided(octets[offset:], (count, slot), (stride, 1))
    esis = np.arange(first_esi, first_esi + count)
    slots[:, : len(head)] = np.frombuffer(head, np.uint8)
    slots[:, len(head)] = sbn
    for i, shift in enumerate((16, 8, 0)):
        slots[:, len(head) + 1 + i] = esis >> shift & 255
    own = max(min(symbols - first_esi, count), 0)  # source symbols among them
    slots[:own, slot - size :] = source[first_esi : first_esi + own]
    if own < count:
        isis = [esi + code.padded - symbols for esi in range(first_esi + own, first_esi + count)]
        generator = _Generator.of(plan, code)
        if generator is not None:
            slots[own:, slot - size :] = generator.apply(*generator.rows(isis), source)
        else:
            _require(len(intermediate) == code.total * size, "neither a generator nor intermediate symbols")  # type: ignore[arg-type]
            slots[own:, slot - size :] = inactivation.encode(code, isis, _octets(intermediate).reshape(-1, size))
    return offset + count * stride


def decode(
    plan: Buffer,
    last_plan: Buffer,
    received: Buffer,
    offset: int,
    stride: int,
    count: int,
    esis: list[int] | None,
    blocks: int,
    size: int,
    length: int,
    /,
) -> tuple[tuple[int, ...], int, bytes | None]:
    """(distinct symbols of each source block, how many more are needed at least, the object or None).

    `count` symbols lie at offset, offset + stride, ... `esis` holds one number per symbol of the only block, and `received` is
    writable and may be overwritten; with None, the four octets before each symbol are its payload id, and symbols of blocks
    that don't exist are skipped. `plan` is the first block's, `last_plan` the last one's.
    """
    octets = _octets(received)
    _require(esis is None or not memoryview(received).readonly, "the symbols are read-only")
    _require(1 <= blocks <= (255 if esis is None else 1) and 1 <= size <= 0xFFFF and length >= 0, "Z, T or F out of range")
    least, longer = divmod(-(-length // size) or 1, blocks)
    codes = [code_of(bytes(plan))] * longer + [code_of(bytes(last_plan))] * (blocks - longer)
    _require(1 <= least <= codes[-1].padded and least + (longer > 0) <= code_of(bytes(plan)).padded, "source blocks out of range")
    _require(
        stride >= 1 and 0 <= count <= blocks << 24 and (0 if esis is not None else 4) <= offset <= octets.size, "no such symbols"
    )
    _require(not count or offset + (count - 1) * stride + size <= octets.size, "symbols exceed the buffer")
    ids = np.zeros(0, np.int64)  # SBN and ESI
    if count and esis is not None:
        _require(len(esis) == count and min(esis) >= 0 and max(esis) <= _MAX_ESI, "not one ESI per symbol")
        ids = np.array(esis, np.int64)
    elif count:
        four = np.lib.stride_tricks.as_strided(octets[offset - 4 :], (count, 4), (stride, 1))
        ids = four @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
    ids, slot_of = np.unique(ids, return_index=True)  # of duplicates, the first counts
    starts = np.searchsorted(ids, np.arange(blocks + 1) << 24).tolist()
    distinct = tuple(end - start for start, end in pairwise(starts))
    wanted = [least + (sbn < longer) for sbn in range(blocks)]
    missing = sum(max(symbols - held, 0) for symbols, held in zip(wanted, distinct, strict=True))
    if missing:
        return distinct, missing, None
    slots = np.lib.stride_tricks.as_strided(octets[offset:], (count, size), (stride, 1), writeable=esis is not None)
    rows: list[Octets] = []  # the object, without a copy of what is held
    for sbn, (symbols, code) in enumerate(zip(wanted, codes, strict=True)):
        of_block = slice(starts[sbn], starts[sbn + 1])
        block = [slots[i] for i in slot_of[of_block].tolist()]
        generator = _Generator.of(plan if sbn < longer else last_plan, code)
        missing = _restore(code, generator, block, ids[of_block] & _MAX_ESI, symbols)
        if missing:
            return distinct, missing, None
        rows += block
    rows[-1] = rows[-1][: length - (len(rows) - 1) * size]
    return distinct, 0, b"".join([row.data for row in rows])


def _restore(code: Code, generator: _Generator | None, block: list[Octets], esis: Integers, symbols: int) -> int:
    """Make the symbols `esis` of `block`, which ascend, its source symbols; 0, or how many more are needed."""
    own = int(np.searchsorted(esis, symbols))
    repaired = block[own:]
    isis = (esis[own:] + (code.padded - symbols)).tolist()
    del block[own:]
    if own == symbols:
        return 0
    held = esis[:own].tolist()
    lost = sorted(set(range(symbols)).difference(held))
    if generator is None or len(lost) > 48 + symbols // 16:  # as in _decode.c
        restored, missing = _restore_sparse(code, held, lost, isis, block, repaired)
    else:
        restored, missing = _restore_dense(generator, held, lost, isis, block, repaired)
    for esi, row in zip(lost, restored, strict=not missing):  # ascending, so that each finds its place
        block.insert(esi, row)
    return missing


def _restore_dense(
    generator: _Generator, held: list[int], lost: list[int], isis: list[int], block: list[Octets], repaired: list[Octets]
) -> tuple[Rows, int]:
    """The lost symbols, or none and how many more are needed.

    Repair rows = A * lost + B * held. A few: the inverse of A times (B | 1) is one product with what is at hand. Many share the
    free columns: first what is held is subtracted, then the inverse of A applied.
    """
    bits, marks = generator.rows(isis)
    coefficients = bits ^ gf256.binary_product(marks, generator.frees)
    few = len(isis) <= generator.code.hdpc
    kept = coefficients[:, held] if few else coefficients[:, :0]
    system = np.concatenate([coefficients[:, lost], kept, np.eye(len(isis), dtype=np.uint8)], axis=1)
    rank = gf256.eliminate(system, len(lost))
    if rank < len(lost):
        return [], len(lost) - rank
    system = np.ascontiguousarray(system[:rank, rank:])
    if few:
        return gf256.product(system, block + repaired), 0
    source = list(block)
    zeros = np.zeros(len(repaired[0]), np.uint8)
    for esi in lost:
        source.insert(esi, zeros)
    return gf256.product(system, generator.apply(bits, marks, source) ^ np.stack(repaired)), 0


def _restore_sparse(
    code: Code, held: list[int], lost: list[int], isis: list[int], block: list[Octets], repaired: list[Octets]
) -> tuple[Rows, int]:
    """The same by inactivation decoding. Some octets of each symbol at a time, and into the repair symbols' memory if it may
    be overwritten: the intermediate symbols take as much as the block.
    """
    padding = code.padded - len(held) - len(lost)
    structure, needed = inactivation.analyse(code, [*held, *range(code.padded - padding, code.padded), *isis])
    if structure is None:
        return [], needed
    size = len(repaired[0])
    restored = repaired[: len(lost)] if repaired[0].flags.writeable else list(np.empty((len(lost), size), np.uint8))
    width = max(-(-size // 3), 64)
    symbols = [*block, *[None] * padding, *repaired]
    for part in [slice(at, at + width) for at in range(0, size, width)]:
        for row, value in zip(restored, inactivation.encode(code, lost, structure.intermediate(symbols, part)), strict=True):
            row[part] = value
    return restored, 0


def product(coefficients: Buffer, rows: Buffer, terms: int, size: int, /) -> bytes:
    """The matrix product over GF(256) of (n x terms) coefficients and (terms x size) rows."""
    left, right = _octets(coefficients), _octets(rows)
    _require(
        1 <= terms <= 56_403 and 1 <= size <= 0xFFFF and left.size % terms == 0 and right.size == terms * size, "out of shape"
    )
    return gf256.product(left.reshape(-1, terms), right.reshape(terms, size)).tobytes()
