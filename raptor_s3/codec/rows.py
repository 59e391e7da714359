"""What a K' fixes: Rand, Tuple, the LT and LDPC rows and the taps of the HDPC rows (RFC 6330 5.3.3.3, 5.3.5).

The twin of _code.c.

Invariant: pure arithmetic on small integers; a plan's header gives the same rows for ever, their columns in the same order as
in C, for what is made of symbols that contradict each other depends on it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from raptor_s3.codec.header import HEADER_SIZE
from raptor_s3.codec.tables import RAND_TABLES

_RAND: tuple[int, ...] = struct.unpack("<1024I", RAND_TABLES)


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """The header of a plan, read (RFC 6330 5.3.3.3, 5.3.5.4). Equal only to itself: `read_header` keeps one per header."""

    padded: int  # K'
    systematic_index: int  # J(K')
    ldpc: int  # S
    hdpc: int  # H
    lt: int  # W
    pi_prime: int  # P1
    degree_limit: int
    degrees: tuple[tuple[int, int], ...]  # (degree, bound)

    @property
    def total(self) -> int:
        """L = K' + S + H, the number of intermediate symbols."""
        return self.padded + self.ldpc + self.hdpc

    @property
    def pi(self) -> int:
        """P = L - W, the permanently inactivated ones among them."""
        return self.total - self.lt


@lru_cache(maxsize=32)
def read_header(header: bytes) -> Code:
    """The code that `header` (header.plan_header) describes."""
    words = struct.unpack(f"={HEADER_SIZE // 4}I", header)
    padded, index, ldpc, hdpc, lt, prime, limit, count = words[:8]
    degrees = tuple((words[8 + 2 * i], words[9 + 2 * i]) for i in range(count))
    return Code(padded, index, ldpc, hdpc, lt, prime, limit, degrees)


def code_of(plan: bytes) -> Code:
    """The code of a plan, with or without its generator."""
    return read_header(plan[:HEADER_SIZE])


def rand(y: int, i: int, m: int) -> int:
    """Rand[y, i, m] (RFC 6330 5.3.5.1)."""
    return (
        _RAND[(y + i) & 255]
        ^ _RAND[256 + ((y >> 8) + i & 255)]
        ^ _RAND[512 + ((y >> 16) + i & 255)]
        ^ _RAND[768 + ((y >> 24) + i & 255)]
    ) % m


_columns: list[int] = []


def _shared(columns: list[int], total: int) -> list[int]:
    """The same numbers, as objects that all rows share: theirs would take more memory than small symbols."""
    if len(_columns) < total:
        _columns.extend(range(len(_columns), total))
    return [_columns[column] for column in columns]


@lru_cache(maxsize=8192)
def lt_row(code: Code, isi: int) -> list[int]:
    """The intermediate symbols whose sum is encoding symbol `isi`: Tuple[K', X] and Enc[] (RFC 6330 5.3.5.3, 5.3.5.4).

    Without those that occur an even number of times (RFC 5053's degree 40 wraps round where W < 40).
    """
    w, p, p1 = code.lt, code.pi, code.pi_prime
    y = (10267 * (code.systematic_index + 1) + isi * ((53591 + code.systematic_index * 997) | 1)) & 0xFFFFFFFF
    value = rand(y, 0, 1 << 20)
    degree = min(next(degree for degree, bound in code.degrees if value < bound), code.degree_limit)
    step = 1 + rand(y, 1, w - 1)
    at = rand(y, 2, w)
    pi_degree = 2 + rand(isi, 3, 2) if degree < 4 else 2
    pi_step = 1 + rand(isi, 4, p1 - 1)
    pi_at = rand(isi, 5, p1)

    columns: list[int] = []
    for _ in range(degree):
        if degree > w and at in columns:
            columns[columns.index(at)] = columns[-1]
            columns.pop()
        else:
            columns.append(at)
        at = (at + step) % w
    for _ in range(pi_degree):
        while pi_at >= p:
            pi_at = (pi_at + pi_step) % p1
        columns.append(w + pi_at)
        pi_at = (pi_at + pi_step) % p1
    return _shared(columns, code.total)


def ldpc_rows(code: Code) -> list[list[int]]:
    """The S rows G_LDPC,1 | I_S | G_LDPC,2 of A (RFC 6330 5.3.3.3)."""
    s, w, p = code.ldpc, code.lt, code.pi
    rows: list[list[int]] = [[] for _ in range(s)]
    for column in range(w - s):
        step = 1 + column // s
        for hop in range(3):
            rows[(column + hop * step) % s].append(column)
    for i, row in enumerate(rows):
        row += [w - s + i, w + i % p, w + (i + 1) % p]
    return [_shared(row, code.total) for row in rows]


def hdpc_taps(code: Code) -> list[tuple[int, int]]:
    """For each column of MT but the last, the two rows that hold a one (RFC 6330 5.3.3.3)."""
    h = code.hdpc
    taps = []
    for column in range(1, code.padded + code.ldpc):
        first = rand(column, 6, h)
        taps.append((first, (first + rand(column, 7, h - 1) + 1) % h))
    return taps
