"""GF(256) of RFC 6330 5.7 (x^8 + x^4 + x^3 + x^2 + 1, generator 2) over numpy: the arithmetic where the C kernel is not built.

Symbols are rows of uint8 arrays. Imported only by the numpy twin, so that a process with the C kernel never pays for numpy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Octets = npt.NDArray[np.uint8]

_EIGHT_FROM = 128  # rows of a binary product from which tables of 256 sums pay better than tables of 16


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
    return (values << np.uint8(1)) ^ ((values >> np.uint8(7)) * np.uint8(0x1D))


def eliminate(matrix: Octets, columns: int) -> int:
    """Gauss-Jordan on the first `columns` columns, in place: the identity on top if their rank, which is returned, is full."""
    rank = 0
    for column in range(columns):
        candidates = np.flatnonzero(matrix[rank:, column])
        if not candidates.size:
            continue
        pivot = rank + int(candidates[0])
        if pivot != rank:
            matrix[[rank, pivot]] = matrix[[pivot, rank]]
        scaled = PRODUCT[INVERSE[matrix[rank, column]]][matrix[rank]]
        factors = matrix[:, column].copy()
        matrix ^= PRODUCT[factors[:, None], scaled]
        matrix[rank] = scaled
        rank += 1
    return rank


def product(coefficients: Octets, rows: Octets) -> Octets:
    """The matrix product of (n x terms) coefficients and (terms x size) rows.

    The coefficients' bit planes are eight binary matrices over the same rows. For each group of rows, all its 2^k sums
    are made once (Four Russians) and each plane of each coefficient row picks one. Then the planes are joined by
    Horner's rule.
    """
    count, terms = coefficients.shape
    size = rows.shape[1]
    group = 8 if 8 * count >= _EIGHT_FROM else 4
    groups = -(-terms // group)
    padded = np.zeros((count, groups * group), np.uint8)
    padded[:, :terms] = coefficients
    planes = (
        np.unpackbits(padded[:, :, None], axis=2).transpose(2, 0, 1).reshape(8 * count, groups, group)
    )  # the highest bit first
    picks = np.packbits(planes, axis=2)[:, :, 0] >> (8 - group)
    picks = np.ascontiguousarray(picks.T, dtype=np.intp)

    sums = np.zeros((1 << group, size), np.uint8)
    picked = np.empty((8 * count, size), np.uint8)
    total = np.zeros((8 * count, size), np.uint8)
    for number in range(groups):
        for i in range(group):
            at = group * number + group - 1 - i
            if at < terms:
                np.bitwise_xor(sums[: 1 << i], rows[at], out=sums[1 << i : 2 << i])
            else:
                sums[1 << i : 2 << i] = sums[: 1 << i]
        np.take(sums, picks[number], axis=0, out=picked, mode="clip")
        total ^= picked
    result = total[:count]
    for plane in range(1, 8):
        result = double(result) ^ total[plane * count : (plane + 1) * count]
    return result
