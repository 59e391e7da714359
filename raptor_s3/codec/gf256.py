"""GF(256) of RFC 6330 5.7 (x^8 + x^4 + x^3 + x^2 + 1, generator 2) over numpy: the arithmetic of the codec where the C kernel is not built.

Symbols are rows of uint8 arrays. Imported only by the numpy twin, so that a process with the C kernel never pays for numpy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Octets = npt.NDArray[np.uint8]


def _tables() -> tuple[Octets, Octets]:
    exp = np.zeros(510, np.uint8)
    log = np.zeros(256, np.int64)
    value = 1
    for power in range(255):
        exp[power] = exp[power + 255] = value
        log[value] = power
        value = (value << 1) ^ (0x11D if value & 0x80 else 0)
    product = exp[log[:, None] + log[None, :]]
    product[0, :] = product[:, 0] = 0
    inverse = np.zeros(256, np.uint8)
    inverse[1:] = exp[255 - log[1:]]
    return product, inverse


PRODUCT, INVERSE = _tables()  # PRODUCT[a, b] = a * b; INVERSE[a] = 1 / a, INVERSE[0] = 0
POWERS = [int(PRODUCT[1, 1])]
for _ in range(254):
    POWERS.append(int(PRODUCT[2, POWERS[-1]]))  # alpha^i


def eliminate(matrix: Octets, columns: int) -> bool:
    """Bring the first `columns` columns of `matrix` to the identity by row operations, in place; False if their rank is less."""
    for column in range(columns):
        candidates = np.flatnonzero(matrix[column:, column])
        if not candidates.size:
            return False
        pivot = column + int(candidates[0])
        if pivot != column:
            matrix[[column, pivot]] = matrix[[pivot, column]]
        matrix[column] = PRODUCT[INVERSE[matrix[column, column]], matrix[column]]
        factors = matrix[:, column].copy()
        factors[column] = 0
        for row in np.flatnonzero(factors):
            matrix[row] ^= PRODUCT[factors[row], matrix[column]]
    return True
