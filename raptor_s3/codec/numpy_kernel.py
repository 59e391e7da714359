"""The codec's arithmetic in numpy: the twin of the C kernel (_kernel.c), with the same functions, results and bounds.

`plan` is a header or a header with a generator (plans.py). A source block is `length` octets of `data` from `start` on,
cut into `symbols` = K symbols of `size` = T octets, of which the last may be short.

Invariant: every function returns the octets that the C kernel returns. ValueError where an argument is out of bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raptor_s3.codec import gf256, inactivation
from raptor_s3.codec.plans import HEADER_SIZE
from raptor_s3.codec.rows import Code, code_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from raptor_s3.codec.gf256 import Octets, Rows

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


def _solve_source(code: Code, source: Octets) -> inactivation.Solution:
    padded = np.zeros((code.padded, source.shape[1]), np.uint8)
    padded[: len(source)] = source
    solution, _ = inactivation.solve(code, range(code.padded), padded)
    if solution is None:
        raise ValueError("A is singular")
    return solution


def make_plan(header: Buffer, /) -> bytes:
    """The plan with a generator for the K' of `header`. ValueError if A is singular."""
    header = bytes(header)
    code = code_of(header)
    solution = _solve_source(code, np.eye(code.padded, dtype=np.uint8))
    in_column = np.zeros((code.total, 16), np.uint8)
    in_column[:, : code.hdpc] = solution.in_column
    masks = np.packbits(in_column, axis=1, bitorder="little").view("<u2").astype(np.uint16)
    planes = np.unpackbits(solution.free[:, :, None], axis=2, bitorder="little").transpose(0, 2, 1)
    parts = (masks, _packed(solution.values), solution.free, _packed(planes.reshape(8 * code.hdpc, code.padded)))
    return header + b"".join(part.tobytes() for part in parts)


def _packed(bits: Octets) -> Octets:
    """Rows of zeros and ones as rows of bits, padded to a multiple of eight octets."""
    padded = np.zeros((len(bits), -(-bits.shape[1] // 64) * 64), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1, bitorder="little")


def make_intermediate(plan: Buffer, data: Buffer, start: int, length: int, symbols: int, size: int, /) -> bytes:
    """The L intermediate symbols of a source block, back to back."""
    code = code_of(bytes(plan))
    return _solve_source(code, _source(code, data, start, length, symbols, size)).symbols().tobytes()


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
    received: Buffer,
    offset: int,
    stride: int,
    count: int,
    esis: list[int] | None,
    sbn: int,
    symbols: int,
    size: int,
    length: int,
    /,
) -> tuple[int, int, bytes | None]:
    """(distinct symbols, how many more are needed at least, the source block or None).

    `count` symbols lie at offset, offset + stride, ... `esis` holds one number per symbol, and `received` is
    writable and may be overwritten; with None, the four octets before each symbol are its payload id, and other blocks'
    symbols are skipped.
    """
    code = code_of(bytes(plan))
    octets = _octets(received)
    _require(esis is None or not memoryview(received).readonly, "the symbols are read-only")
    _require(1 <= symbols <= code.padded and 1 <= size <= 0xFFFF and 0 <= sbn <= 255, "K, T or SBN out of range")
    _require((symbols - 1) * size <= length <= symbols * size, "the source block is not of K symbols")
    _require(
        stride >= 1 and 0 <= count <= _MAX_ESI + 1 and (0 if esis is not None else 4) <= offset <= octets.size, "no such symbols"
    )
    _require(not count or offset + (count - 1) * stride + size <= octets.size, "symbols exceed the buffer")
    esi_of = np.zeros(0, np.int64)  # of each symbol that counts
    at = np.arange(count)
    if count and esis is not None:
        _require(len(esis) == count and min(esis) >= 0 and max(esis) <= _MAX_ESI, "not one ESI per symbol")
        esi_of = np.array(esis, np.int64)
    elif count:
        ids = np.lib.stride_tricks.as_strided(octets[offset - 4 :], (count, 4), (stride, 1)).astype(np.int64)
        at = at[ids[:, 0] == sbn]
        esi_of = ids[at] @ np.array([0, 1 << 16, 1 << 8, 1])
    held, first = np.unique(esi_of, return_index=True)  # of duplicates, the first counts
    if len(held) < symbols:
        return len(held), symbols - len(held), None
    slots = np.lib.stride_tricks.as_strided(octets[offset:], (count, size), (stride, 1))
    own = int(np.searchsorted(held, symbols))
    rows = [np.zeros(size, np.uint8)] * symbols  # the block, without a copy of what is held
    for esi, i in zip(held[:own].tolist(), at[first[:own]].tolist(), strict=True):
        rows[esi] = slots[i]
    if own < symbols:
        generator = _Generator.of(plan, code)
        is_lost = np.ones(symbols, np.bool_)
        is_lost[held[:own]] = False
        lost = np.flatnonzero(is_lost).tolist()
        repaired = slots[at[first[own:]]]
        isis = (held[own:] + (code.padded - symbols)).tolist()
        if generator is None or len(lost) > 48 + symbols // 16:  # as in _block.c
            missing = _restore_sparse(code, rows, lost, isis, repaired)
        else:
            missing = _restore_dense(generator, rows, lost, isis, repaired)
        if missing:
            return len(held), missing, None
    rows[-1] = rows[-1][: length - (symbols - 1) * size]
    return len(held), 0, b"".join([row.data for row in rows])


def _restore_dense(generator: _Generator, block: list[Octets], lost: list[int], isis: list[int], repaired: Octets) -> int:
    """Fill in the lost rows of `block` (zero before) from repair symbols; 0, or how many more are needed."""
    bits, marks = generator.rows(isis)
    coefficients = bits[:, lost] ^ gf256.binary_product(marks, generator.frees[:, lost])
    system = np.concatenate([coefficients, np.eye(len(isis), dtype=np.uint8)], axis=1)
    rank = gf256.eliminate(system, len(lost))
    if rank < len(lost):
        return len(lost) - rank
    syndromes = generator.apply(bits, marks, block) ^ repaired
    restored = gf256.product(np.ascontiguousarray(system[: len(lost), len(lost) :]), syndromes)
    for esi, row in zip(lost, restored, strict=True):
        block[esi] = row
    return 0


def _restore_sparse(code: Code, block: list[Octets], lost: list[int], isis: list[int], repaired: Octets) -> int:
    missing = set(lost)
    kept = [esi for esi in range(len(block)) if esi not in missing]
    padding = range(len(block), code.padded)
    symbols = np.stack([*(block[esi] for esi in kept), *(block[lost[0]] for _ in padding), *repaired])
    solution, needed = inactivation.solve(code, [*kept, *padding, *isis], symbols)
    if solution is None:
        return needed
    for esi, row in zip(lost, inactivation.encode(code, lost, solution.symbols()), strict=True):
        block[esi] = row
    return 0


def product(coefficients: Buffer, rows: Buffer, terms: int, size: int, /) -> bytes:
    """The matrix product over GF(256) of (n x terms) coefficients and (terms x size) rows."""
    left, right = _octets(coefficients), _octets(rows)
    _require(
        1 <= terms <= 56_403 and 1 <= size <= 0xFFFF and left.size % terms == 0 and right.size == terms * size, "out of shape"
    )
    return gf256.product(left.reshape(-1, terms), right.reshape(terms, size)).tobytes()
