"""Inactivation decoding (RFC 6330 5.4.2) in numpy: the twin of _peeling.c and _solver.c.

    A * C = D      A: S LDPC rows, one LT row per symbol held, H HDPC rows; C: L intermediate symbols; D: zeros and the symbols

1. Peel. A binary row with one active column makes that column a pivot, known once the others are. With no such row, a
   column is made inactive.
2. Each pivot is now a sum of earlier pivots and of the inactive columns. Put into the rows left over, that gives a
   dense binary system.
3. Eliminate it. At most H columns stay free.
4. The H HDPC rows, applied to the free columns' share of all columns by Horner's rule (MT * GAMMA is a running sum times
   alpha), are H equations over GF(256) in the free columns.

All this is structure; it depends on the ISIs alone. Then come the values, of whole symbols or of a part of each.

The HDPC rows, which are dense and the only ones over GF(256), thus cost one pass over C.

Invariant: there is a structure exactly when the rank of A is L; else it is known how many more symbols are needed at least.
"""

from __future__ import annotations

from functools import reduce
from itertools import chain
from operator import xor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from raptor_s3.codec.gf256 import Octets, binary_product, double, eliminate, product
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
        best, most = None, 0
        for number in self.pairs:
            for column in self.active[number]:
                if not self.gone[column]:
                    votes[column] = votes.get(column, 0) + 1
                    if votes[column] > most:
                        best, most = column, votes[column]
        if best is not None:
            return best
        lightest = min(
            (number for number, weight in enumerate(self.weight) if weight > 1), key=self.weight.__getitem__, default=None
        )
        if lightest is None:
            return self.gone.index(False)
        return next(column for column in self.active[lightest] if not self.gone[column])


def _reduce(equations: list[tuple[int, int]], unknowns: int) -> tuple[dict[int, tuple[int, int]], list[int]]:
    """Phase 3, Gauss-Jordan over GF(2): (pivot column -> its equation reduced to free columns, free columns).

    An equation is (bits of the inactive columns, bits of the rows left over that it adds up). Those that the ones before
    imply are dropped. The columns are the leftmost that will do.
    """
    solved: dict[int, tuple[int, int]] = {}
    for bits, mix in equations:
        for column, (other_bits, other_mix) in solved.items():
            if bits >> column & 1:
                bits ^= other_bits
                mix ^= other_mix
        if not bits:
            continue
        pivot = (bits & -bits).bit_length() - 1
        for column, (other_bits, other_mix) in solved.items():
            if other_bits >> pivot & 1:
                solved[column] = (other_bits ^ bits, other_mix ^ mix)
        solved[pivot] = (bits, mix)
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


def _bits_of(masks: list[int], width: int) -> Octets:
    """Each mask as a row of `width` zeros and ones."""
    octets = -(-width // 8)
    packed = np.frombuffer(b"".join([mask.to_bytes(octets, "little") for mask in masks]), np.uint8)
    return np.unpackbits(packed.reshape(len(masks), octets), axis=1, count=width, bitorder="little")


class Structure(NamedTuple):
    """How A * C = D is solved, whatever D holds."""

    code: Code
    rows: list[list[int]]
    pivots: list[tuple[int, int]]  # (row, column) in the order in which they become known
    left: list[int]  # rows that are no pivot's
    solved: list[int]  # inactive columns that are sums of rows left over
    mix: Octets  # which ones: solved x left, zeros and ones
    in_column: Octets  # L x f, zeros and ones: the free columns in each column
    recover: Octets  # f x H: the free columns from the checks

    def binary(self, symbols: Sequence[Octets | None], part: slice) -> Octets:
        """The L intermediate symbols, `part` of each, with the free columns zero. `symbols`: one per ISI, None for zeros."""
        size = next(len(symbol[part]) for symbol in symbols if symbol is not None)
        known = np.zeros((self.code.total, size), np.uint8)

        def add_up(number: int, skip: int) -> Octets:
            value: Octets = np.bitwise_xor.reduce(known[[column for column in self.rows[number] if column != skip]], axis=0)
            symbol = symbols[number - self.code.ldpc] if number >= self.code.ldpc else None
            return value if symbol is None else value ^ symbol[part]

        for number, column in self.pivots:
            known[column] = add_up(number, column)
        left = np.empty((len(self.left), size), np.uint8)
        for place, number in enumerate(self.left):
            left[place] = add_up(number, -1)
        known[self.solved] = binary_product(self.mix, left)
        for number, column in self.pivots:
            known[column] = 0
            known[column] = add_up(number, -1)
        return known

    def free(self, known: Octets) -> Octets:
        """The free columns, f x size, from the columns with the free ones zero."""
        return product(self.recover, _apply_hdpc(self.code, known))

    def intermediate(self, symbols: Sequence[Octets | None], part: slice) -> Octets:
        """The L intermediate symbols, `part` of each."""
        known = self.binary(symbols, part)
        for place, value in enumerate(self.free(known)):
            known[self.in_column[:, place] == 1] ^= value
        return known


def analyse(code: Code, isis: Sequence[int]) -> tuple[Structure | None, int]:
    """(structure, 0) for encoding symbols with these ISIs, those of padding symbols included.

    (None, how many more symbols are needed at least) when these do not determine the intermediate symbols.
    """
    if len(isis) < code.padded:
        return None, code.padded - len(isis)
    rows = ldpc_rows(code) + [lt_row(code, isi) for isi in isis]
    peeling = _Peeling(rows, code.lt)
    if not peeling.run():
        return None, 1
    inactive, pivots = [*peeling.inactive, *range(code.lt, code.total)], list(peeling.pivots.items())
    left = [number for number in range(len(rows)) if number not in peeling.pivots]
    del peeling

    def add_up(of_column: list[int], number: int, skip: int) -> int:
        return reduce(xor, [of_column[column] for column in rows[number] if column != skip], 0)

    bits = [0] * code.total  # of each column: the inactive columns in it
    for place, column in enumerate(inactive):
        bits[column] = 1 << place
    for number, column in pivots:
        bits[column] = add_up(bits, number, column)
    solved, free = _reduce([(add_up(bits, number, -1), 1 << place) for place, number in enumerate(left)], len(inactive))
    if len(free) > code.hdpc:
        return None, len(free) - code.hdpc

    marks = [0] * code.total  # of each column: the free columns in it
    for place, index in enumerate(free):
        marks[inactive[index]] = 1 << place
    for index, (row, _) in solved.items():
        marks[inactive[index]] = sum((row >> other & 1) << place for place, other in enumerate(free))
    for number, column in pivots:
        marks[column] = add_up(marks, number, column)
    in_column = _bits_of(marks, len(free))
    system = np.concatenate([_apply_hdpc(code, in_column), np.eye(code.hdpc, dtype=np.uint8)], axis=1)
    rank = eliminate(system, len(free))
    if rank < len(free):
        return None, len(free) - rank
    recover = np.ascontiguousarray(system[:rank, rank:])
    mix = _bits_of([mix for _, mix in solved.values()], len(left))
    return Structure(code, rows, pivots, left, [inactive[index] for index in solved], mix, in_column, recover), 0


def encode(code: Code, isis: Sequence[int], intermediate: Octets) -> Octets:
    """Encoding symbols `isis` from the intermediate symbols: Enc[] (RFC 6330 5.3.5.3)."""
    out = np.empty((len(isis), intermediate.shape[1]), np.uint8)
    for at in range(0, len(isis), 16):  # at a time, for the rows that are summed are copied first
        rows = [lt_row(code, isi) for isi in isis[at : at + 16]]
        starts = np.cumsum([0, *map(len, rows[:-1])])
        np.bitwise_xor.reduceat(intermediate[list(chain(*rows))], starts, axis=0, out=out[at : at + 16])
    return out
