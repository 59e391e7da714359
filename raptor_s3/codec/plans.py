"""Plans: all that coding a source block of K' symbols needs to know, made once and kept (RFC 6330 5.3.3).

A plan is octets that the kernels read and any thread may share (_raptorq.h tells the layout): a header, which holds the
parameters of K' and the RFC's tables, and, up to `DENSE_SYMBOLS`, the generator: how each of the L intermediate symbols is
made of the source symbols. Larger blocks get the header alone, and are solved each time by inactivation decoding.

Invariant: a plan depends on K' and the degree table only. The caches are bounded: three times `_KEPT` plans of at most 0.7 MB.
"""

from __future__ import annotations

from functools import lru_cache

from raptor_s3.codec import kernel
from raptor_s3.codec.header import plan_header, table_row
from raptor_s3.codec.oti import DegreeTable
from raptor_s3.codec.tables import SYSTEMATIC_INDICES

DENSE_SYMBOLS = 2048  # the largest K with a generator in its plan

_KEPT = 16


@lru_cache(maxsize=_KEPT)
def _plan_of(row: int, table: DegreeTable) -> bytes:
    padded = SYSTEMATIC_INDICES[row][0]
    header = plan_header(padded, table)
    return kernel.active.make_plan(header) if padded <= DENSE_SYMBOLS else header


# By K and one per table: a look-up that hits is a single C call.
@lru_cache(maxsize=_KEPT)
def rfc6330_plan(symbols: int) -> bytes:
    """The plan for K = `symbols`, from the cache if it is there. ValueError unless 1 <= K <= 56,403."""
    return _plan_of(table_row(symbols), DegreeTable.RFC6330)


@lru_cache(maxsize=_KEPT)
def rfc5053_plan(symbols: int) -> bytes:
    """The same for the degree table of the published CLI."""
    return _plan_of(table_row(symbols), DegreeTable.RFC5053)


def forget_plans() -> None:
    """Empty the caches: for tests and benchmarks of cold plans."""
    for cache in (_plan_of, rfc6330_plan, rfc5053_plan):
        cache.cache_clear()
