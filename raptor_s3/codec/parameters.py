"""The parameters of a source block and the rows of its LT code (RFC 6330 5.3.3, 5.3.5).

K source symbols are padded to K', the next size of Table 2; K' fixes everything else: L = K' + S + H intermediate symbols, of which the first W are LT
symbols and the last P = L - W permanently inactivated ones.

Invariant: pure arithmetic on small integers; the same K gives the same parameters for ever.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from raptor_s3.codec.oti import MAX_BLOCK_SYMBOLS, DegreeTable
from raptor_s3.codec.tables import RAND_TABLES, RFC5053_DEGREES, RFC6330_DEGREES, SYSTEMATIC_INDICES


class BlockParameters(NamedTuple):
    """RFC 6330 5.3.3.3, and the two numbers that the tuple generator needs (5.3.5.4)."""

    padded_symbols: int  # K'
    systematic_index: int  # J(K')
    ldpc_symbols: int  # S
    hdpc_symbols: int  # H
    lt_symbols: int  # W
    pi_symbols: int  # P
    pi_prime: int  # P1, the smallest prime >= P

    @property
    def intermediate_symbols(self) -> int:
        """L = K' + S + H = W + P."""
        return self.lt_symbols + self.pi_symbols


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


@lru_cache(maxsize=64)
def block_parameters(symbols: int) -> BlockParameters:
    """The parameters for a block of `symbols` = K source symbols. ValueError unless 1 <= K <= 56,403."""
    if not 1 <= symbols <= MAX_BLOCK_SYMBOLS:
        raise ValueError(f"{symbols} source symbols is not in 1..{MAX_BLOCK_SYMBOLS}")
    padded, index, s, h, w = SYSTEMATIC_INDICES[bisect_left(SYSTEMATIC_INDICES, (symbols,))]
    pi_symbols = padded + s + h - w
    prime = pi_symbols
    while not _is_prime(prime):
        prime += 1
    return BlockParameters(padded, index, s, h, w, pi_symbols, prime)


def rand(y: int, i: int, m: int) -> int:
    """Rand[y, i, m] (RFC 6330 5.3.5.1)."""
    word = 0
    for table in range(4):
        at = 1024 * table + 4 * (((y >> (8 * table)) + i) & 0xFF)
        word ^= int.from_bytes(RAND_TABLES[at : at + 4], "little")
    return word % m


def _degree(value: int, lt_symbols: int, table: DegreeTable) -> int:
    """Deg[v] (RFC 6330 5.3.5.2), or RFC 5053's (5.4.4.2), which the published CLI does not limit to W - 2."""
    if table is DegreeTable.RFC6330:
        return min(next(d for d, bound in RFC6330_DEGREES if value < bound), lt_symbols - 2)
    return next(d for d, bound in RFC5053_DEGREES if value < bound)


def lt_row(parameters: BlockParameters, isi: int, table: DegreeTable) -> list[int]:
    """The intermediate symbols whose sum is encoding symbol `isi`: Tuple[K', X] and Enc[] (RFC 6330 5.3.5.3, 5.3.5.4).

    Ascending, without those that occur an even number of times (RFC 5053's degree 40 wraps round where W < 40).
    """
    _, j, _, _, w, p, p1 = parameters
    a = 53591 + j * 997
    a += 1 - a % 2
    y = (10267 * (j + 1) + isi * a) & 0xFFFFFFFF
    degree = _degree(rand(y, 0, 1 << 20), w, table)
    step = 1 + rand(y, 1, w - 1)
    at = rand(y, 2, w)
    pi_degree = 2 + rand(isi, 3, 2) if degree < 4 else 2
    pi_step = 1 + rand(isi, 4, p1 - 1)
    pi_at = rand(isi, 5, p1)

    columns: set[int] = set()
    for _ in range(degree):
        columns ^= {at}
        at = (at + step) % w
    for _ in range(pi_degree):
        while pi_at >= p:
            pi_at = (pi_at + pi_step) % p1
        columns ^= {w + pi_at}
        pi_at = (pi_at + pi_step) % p1
    return sorted(columns)


def ldpc_rows(parameters: BlockParameters) -> list[list[int]]:
    """The S rows G_LDPC,1 | I_S | G_LDPC,2 of A (RFC 6330 5.3.3.3)."""
    _, _, s, _, w, p, _ = parameters
    rows: list[set[int]] = [{w - s + i} for i in range(s)]
    for column in range(w - s):
        step = 1 + column // s
        for hop in range(3):
            rows[(column + hop * step) % s] ^= {column}
    for i, row in enumerate(rows):
        row ^= {w + i % p}
        row ^= {w + (i + 1) % p}
    return [sorted(row) for row in rows]


def hdpc_taps(parameters: BlockParameters) -> list[tuple[int, int]]:
    """For each column of MT but the last, the two rows that hold a one (RFC 6330 5.3.3.3)."""
    padded, _, s, h, *_ = parameters
    taps = []
    for column in range(1, padded + s):
        first = rand(column, 6, h)
        taps.append((first, (first + rand(column, 7, h - 1) + 1) % h))
    return taps
