"""GF(256) of RFC 6330 5.7 (x^8 + x^4 + x^3 + x^2 + 1, generator 2) over numpy: the arithmetic where the C kernel is not built.

Symbols are rows of uint8 arrays. Imported only by the numpy twin, so that a process with the C kernel never pays for numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Octets = npt.NDArray[np.uint8]
Rows = Octets | Sequence[Octets]  # symbols: a matrix, or one array each

_SCRATCH = 1 << 17  # octets that fit the second-level cache


def _tables() -> tuple[Octets, Octets]:
    exponent = np.zeros(510, np.uint8)
    logarithm = np.zeros(256, np.int64)
    value = 1
    for power in range(255):
        exponent[power] = exponent[power + 255] = value
        logarithm[value] = power
        value = (value << 1) ^ (0x11D if value & 0x80 else 0)
    products = exponent[logarithm[:, None] + logarithm[None, :]]
    products[0, :] = products[:, 0] = 0
    inverse = np.zeros(256, np.uint8)
    inverse[1:] = exponent[255 - logarithm[1:]]
    return products, inverse


PRODUCT, INVERSE = _tables()  # PRODUCT[a, b] = a * b; INVERSE[a] = 1 / a, INVERSE[0] = 0


def double(values: Octets) -> Octets:
    """2 * values."""
    carry = (values.view(np.int8) < 0).view(np.uint8)
    carry *= np.uint8(0x1D)
    carry ^= values + values
    return carry


def eliminate(matrix: Octets, columns: int) -> int:
    """Gauss-Jordan on the first `columns` columns, in place: the identity on top if their rank, which is returned, is full.

    Rows keep their order but for the pivots, so that of dependent rows the first ones count.
    """
    rank = 0
    for column in range(columns):
        candidates = np.flatnonzero(matrix[rank:, column])
        if not candidates.size:
            continue
        pivot = rank + int(candidates[0])
        if pivot != rank:
            matrix[rank : pivot + 1] = np.roll(matrix[rank : pivot + 1], 1, axis=0)
        scaled = PRODUCT[INVERSE[matrix[rank, column]]][matrix[rank]]
        factors = matrix[:, column].copy()
        matrix ^= PRODUCT[factors[:, None], scaled]
        matrix[rank] = scaled
        rank += 1
    return rank


def binary_product(bits: Octets, rows: Rows) -> Octets:
    """The sums of `rows` (terms x size) that each row of `bits` (n x terms, zeros and ones) picks.

    Four Russians: of each four rows the sixteen sums are made once, and each row of bits picks one of them.
    """
    count, terms = bits.shape
    size = len(rows[0])
    packed = np.packbits(bits, axis=1, bitorder="little").T
    picks = np.stack([packed & 15, packed >> 4], axis=1, dtype=np.intp).reshape(-1, count)

    groups = -(-terms // 4)
    at_once = min(groups, max(_SCRATCH // (16 * size), 1))
    sums = np.zeros((at_once, 16, size), np.uint8)
    picked = np.empty((count, size), np.uint8)
    total = np.zeros((count, size), np.uint8)
    for start in range(0, groups, at_once):
        four = np.zeros((at_once, 4, size), np.uint8)
        part = rows[4 * start : 4 * (start + at_once)]
        np.concatenate(part, out=four.reshape(-1)[: len(part) * size], axis=None)
        for i in range(4):
            np.bitwise_xor(sums[:, : 1 << i], four[:, i : i + 1], out=sums[:, 1 << i : 2 << i])
        for number in range(start, min(start + at_once, groups)):
            sums[number - start].take(picks[number], axis=0, out=picked, mode="clip")
            total ^= picked
    return total


def join_planes(planes: Octets) -> Octets:
    """From (8 x n x size) multiples of 1, 2, 4, ... 128, their sum (n x size), by Horner's rule."""
    result: Octets = planes[7]
    for bit in range(6, -1, -1):
        result = double(result) ^ planes[bit]
    return result


def product(coefficients: Octets, rows: Rows) -> Octets:
    """The matrix product of (n x terms) coefficients and (terms x size) rows: eight binary products at once."""
    count, terms = coefficients.shape
    planes = np.unpackbits(coefficients[None], axis=0, bitorder="little").reshape(8 * count, terms)
    return join_planes(binary_product(planes, rows).reshape(8, count, -1))
