"""Inactivation decoding (RFC 6330 5.4.2) in numpy: the twin of _solver.c.

    A * C = D      A: S LDPC rows, one LT row per symbol held, H HDPC rows; C: L intermediate symbols; D: zeros and the symbols

1. Peel. A binary row with one active column makes that column a pivot, known once the others are. With no such row, a
   column is made inactive.
2. Each pivot is now a sum of earlier pivots and of the inactive columns. Put into the rows left over, that gives a
   dense binary system.
3. Eliminate it. At most H columns stay free. They are carried along as extra octets of every symbol: value ||
   coefficients of the free columns.
4. The H HDPC rows, applied to all columns by Horner's rule (MT * GAMMA is a running sum times alpha), are H equations
   over GF(256) in the free columns.

The HDPC rows, which are dense and the only ones over GF(256), thus cost one pass over C.

Invariant: the result is C, or else how many more symbols are needed at least, exactly when the rank of A is below L.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from raptor_s3.codec.gf256 import Octets, double, eliminate
from raptor_s3.codec.rows import Code, hdpc_taps, ldpc_rows, lt_row

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_INACTIVE = 4096  # honest symbols leave about 550 at K'_max; a crafted set must not buy a cubic elimination


class _Peeling:
    """Phase 1, and the rows and columns that it divides."""

    def __init__(self, rows: list[list[int]], lt_columns: int) -> None:
        self.rows = rows
        self.active = [[column for column in row if column < lt_columns] for row in rows]
        self.users: list[list[int]] = [[] for _ in range(lt_columns)]
        for number, row in enumerate(self.active):
            for column in row:
                self.users[column].append(number)
        self.weight = [len(row) for row in self.active]
        self.ready = [number for number, weight in enumerate(self.weight) if weight == 1]
        self.pairs = [number for number, weight in enumerate(self.weight) if weight == 2]
        self.gone = [False] * lt_columns
        self.pivots: dict[int, int] = {}  # row: column, in the order in which they become known
        self.inactive: list[int] = []

    def run(self) -> bool:
        """False when a crafted set of symbols leaves too many columns inactive."""
        while len(self.pivots) + len(self.inactive) < len(self.gone):
            if self.ready:
                number = self.ready.pop()
                if self.weight[number] == 1 and number not in self.pivots:
                    self.pivots[number] = next(column for column in self.active[number] if not self.gone[column])
                    self._leave(self.pivots[number])
            elif len(self.inactive) >= MAX_INACTIVE:
                return False
            else:
                self.inactive.append(self._choose_inactive())
                self._leave(self.inactive[-1])
        return True

    def _leave(self, column: int) -> None:
        self.gone[column] = True
        for number in self.users[column]:
            self.weight[number] -= 1
            if self.weight[number] == 1:
                self.ready.append(number)
            elif self.weight[number] == 2:
                self.pairs.append(number)

    def _choose_inactive(self) -> int:
        """The column that most rows of weight 2 share: without it they all become pivots.

        Without such rows, one of a lightest row; else any.
        """
        self.pairs = [number for number in self.pairs if self.weight[number] == 2]
        votes: dict[int, int] = {}
        for number in self.pairs:
            for column in self.active[number]:
                if not self.gone[column]:
                    votes[column] = votes.get(column, 0) + 1
        if votes:
            return max(votes, key=votes.__getitem__)
        lightest = min(
            (number for number, weight in enumerate(self.weight) if weight > 1), key=self.weight.__getitem__, default=None
        )
        if lightest is None:
            return self.gone.index(False)
        return next(column for column in self.active[lightest] if not self.gone[column])


def _reduce(equations: list[tuple[int, Octets]], unknowns: int) -> tuple[dict[int, tuple[int, Octets]], list[int]]:
    """Phase 3, Gauss-Jordan over GF(2): (pivot column -> its row reduced to free columns, free columns).

    An equation is (bits of the inactive columns, value). Surplus equations only confirm what is known and are dropped.
    """
    solved: dict[int, tuple[int, Octets]] = {}
    for bits, value in equations:
        for column, (row, row_value) in solved.items():
            if bits >> column & 1:
                bits ^= row
                value = value ^ row_value
        if not bits:
            continue
        pivot = bits.bit_length() - 1
        for column, (row, row_value) in solved.items():
            if row >> pivot & 1:
                solved[column] = (row ^ bits, row_value ^ value)
        solved[pivot] = (bits, value)
    return solved, [column for column in range(unknowns) if column not in solved]


def _apply_hdpc(code: Code, rows: Octets) -> Octets:
    """The H HDPC rows applied to L rows (RFC 6330 5.3.3.3: MT * GAMMA | I_H)."""
    checks = np.zeros((code.hdpc, rows.shape[1]), np.uint8)
    running = np.zeros(rows.shape[1], np.uint8)
    taps = hdpc_taps(code)
    for column, (first, second) in enumerate(taps):
        running = double(running) ^ rows[column]
        checks[first] ^= running
        checks[second] ^= running
    running = double(running) ^ rows[len(taps)]
    for i in range(code.hdpc):
        checks[i] ^= running ^ rows[len(taps) + 1 + i]
        running = double(running)
    return checks


class Solution(NamedTuple):
    """Intermediate symbol c is values[c] plus the rows of `free` that in_column[c] marks."""

    values: Octets  # L x size: the symbols with the free columns zero
    in_column: Octets  # L x f, zeros and ones
    free: Octets  # f x size: the free columns

    def symbols(self) -> Octets:
        """The L intermediate symbols."""
        result = self.values.copy()
        for place, value in enumerate(self.free):
            result[self.in_column[:, place] == 1] ^= value
        return result


def solve(code: Code, isis: Sequence[int], symbols: Octets) -> tuple[Solution | None, int]:
    """(solution, 0) from encoding symbols `symbols[i]` with ISI `isis[i]`, padding symbols included.

    (None, how many more symbols are needed at least) when these do not determine the intermediate symbols.
    """
    if len(isis) < code.padded:
        return None, code.padded - len(isis)
    total, size = code.total, symbols.shape[1]
    rows = ldpc_rows(code) + [lt_row(code, isi) for isi in isis]
    values = np.zeros((len(rows), size), np.uint8)
    values[code.ldpc :] = symbols
    peeling = _Peeling(rows, code.lt)
    if not peeling.run():
        return None, 1
    inactive = [*peeling.inactive, *range(code.lt, total)]

    bits = [0] * total  # of each column: the inactive columns in it
    known = np.zeros((total, size), np.uint8)
    for i, column in enumerate(inactive):
        bits[column] = 1 << i

    def combine(number: int, skip: int) -> tuple[int, Octets]:
        mask = 0
        others = [column for column in rows[number] if column != skip]
        for column in others:
            mask ^= bits[column]
        value: Octets = values[number] ^ np.bitwise_xor.reduce(known[others], axis=0)
        return mask, value

    for number, column in peeling.pivots.items():
        bits[column], known[column] = combine(number, column)
    equations = [combine(number, -1) for number in range(len(rows)) if number not in peeling.pivots]
    solved, free = _reduce(equations, len(inactive))
    if len(free) > code.hdpc:
        return None, len(free) - code.hdpc

    full = np.zeros((total, size + len(free)), np.uint8)  # value || coefficients of the free columns
    for place, index in enumerate(free):
        full[inactive[index], size + place] = 1
    for index, (row, value) in solved.items():
        full[inactive[index], :size] = value
        full[inactive[index], size:] = [row >> other & 1 for other in free]
    for number, column in peeling.pivots.items():
        full[column] = np.bitwise_xor.reduce(full[[other for other in rows[number] if other != column]], axis=0)
        full[column, :size] ^= values[number]

    checks = _apply_hdpc(code, full)
    system = np.ascontiguousarray(np.concatenate([checks[:, size:], checks[:, :size]], axis=1))
    rank = eliminate(system, len(free))
    if rank < len(free):
        return None, len(free) - rank
    return Solution(full[:, :size], full[:, size:], system[: len(free), len(free) :]), 0


def encode(code: Code, isis: Sequence[int], intermediate: Octets) -> Octets:
    """Encoding symbols `isis` from the intermediate symbols: Enc[] (RFC 6330 5.3.5.3)."""
    out = np.empty((len(isis), intermediate.shape[1]), np.uint8)
    for at in range(0, len(isis), 64):  # at a time, for the rows that are summed are copied first
        rows = [lt_row(code, isi) for isi in isis[at : at + 64]]
        starts = np.cumsum([0, *map(len, rows[:-1])])
        np.bitwise_xor.reduceat(intermediate[list(chain(*rows))], starts, axis=0, out=out[at : at + 64])
    return out
