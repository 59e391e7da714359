"""The header of a plan: the parameters of K' and the RFC's tables, as octets that the kernels read (RFC 6330 5.3.3.3, 5.6).

Native u32 words: K' J S H W P1, the upper limit of a degree, how many degrees; 31 times (degree, bound); padding; V0..V3. The C
kernel reads the same (_code.c).

Invariant: a header depends on K' and the degree table only, and has `HEADER_SIZE` octets.
"""

from __future__ import annotations

import sys

from raptor_s3.codec.oti import DegreeTable
from raptor_s3.codec.tables import RAND_TABLES, RFC5053_DEGREES, RFC6330_DEGREES, SYSTEMATIC_INDICES

_DEGREES = 31
_NUMBERS = 8 + 2 * _DEGREES + 2
HEADER_SIZE = 4 * _NUMBERS + len(RAND_TABLES)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def table_row(symbols: int) -> int:
    """The row of Table 2 whose K' is the least not below K = `symbols` (RFC 6330 5.3.1). ValueError unless 1 <= K <= 56,403."""
    if not 1 <= symbols <= SYSTEMATIC_INDICES[-1][0]:
        raise ValueError(f"{symbols} source symbols is not in 1..{SYSTEMATIC_INDICES[-1][0]}")
    low, high = 0, len(SYSTEMATIC_INDICES) - 1
    while low < high:
        middle = (low + high) // 2
        if SYSTEMATIC_INDICES[middle][0] < symbols:
            low = middle + 1
        else:
            high = middle
    return low


def plan_header(symbols: int, table: DegreeTable = DegreeTable.RFC6330) -> bytes:
    """The header of the plan for K = `symbols`: a plan in its own right, without a generator.

    ValueError unless 1 <= K <= 56,403.
    """
    padded, index, s, h, w = SYSTEMATIC_INDICES[table_row(symbols)]
    prime = padded + s + h - w  # P1, the smallest prime >= P (RFC 6330 5.3.3.3)
    while not _is_prime(prime):
        prime += 1
    if table is DegreeTable.RFC6330:
        limit, degrees = w - 2, RFC6330_DEGREES
    else:
        limit, degrees = 0xFFFFFFFF, RFC5053_DEGREES
    numbers = [padded, index, s, h, w, prime, limit, len(degrees), *(number for pair in degrees for number in pair)]
    numbers += [0] * (_NUMBERS - len(numbers))
    octets = b"".join([number.to_bytes(4, "little") for number in numbers]) + RAND_TABLES
    if sys.byteorder == "big":
        octets = b"".join([octets[at : at + 4][::-1] for at in range(0, len(octets), 4)])
    return octets
