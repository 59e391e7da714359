"""Plans: all that coding a source block of K' symbols needs to know, made once and kept (RFC 6330 5.3.3).

A plan is octets that the kernels read and any thread may share (_raptorq.h tells the layout): a header, which holds the
parameters of K' and the RFC's tables, and, up to `DENSE_SYMBOLS`, the generator: how each of the L intermediate symbols is
made of the source symbols. Larger blocks get the header alone, and are solved each time by inactivation decoding.

Invariant: a plan depends on K' and the degree table only. The caches are bounded: three times `_KEPT` plans of at most 0.7 MB.
"""

from __future__ import annotations

import sys
from functools import lru_cache

from raptor_s3.codec import kernel
from raptor_s3.codec.oti import DegreeTable
from raptor_s3.codec.tables import RAND_TABLES, RFC5053_DEGREES, RFC6330_DEGREES, SYSTEMATIC_INDICES

DENSE_SYMBOLS = 2048  # the largest K with a generator in its plan

_KEPT = 16
_DEGREES = 31
_NUMBERS = 8 + 2 * _DEGREES + 2  # K' J S H W P1, degree limit, degrees; (degree, bound)...; padding. V0..V3 follow
HEADER_SIZE = 4 * _NUMBERS + len(RAND_TABLES)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _row_of(symbols: int) -> int:
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
    padded, index, s, h, w = SYSTEMATIC_INDICES[_row_of(symbols)]
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


@lru_cache(maxsize=_KEPT)
def _plan_of(row: int, table: DegreeTable) -> bytes:
    padded = SYSTEMATIC_INDICES[row][0]
    header = plan_header(padded, table)
    return kernel.active.make_plan(header) if padded <= DENSE_SYMBOLS else header


# By K and one per table: a look-up that hits is a single C call.
@lru_cache(maxsize=_KEPT)
def rfc6330_plan(symbols: int) -> bytes:
    """The plan for K = `symbols`, from the cache if it is there. ValueError unless 1 <= K <= 56,403."""
    return _plan_of(_row_of(symbols), DegreeTable.RFC6330)


@lru_cache(maxsize=_KEPT)
def rfc5053_plan(symbols: int) -> bytes:
    """The same for the degree table of the published CLI."""
    return _plan_of(_row_of(symbols), DegreeTable.RFC5053)


def forget_plans() -> None:
    """Empty the caches: for tests and benchmarks of cold plans."""
    for cache in (_plan_of, rfc6330_plan, rfc5053_plan):
        cache.cache_clear()
