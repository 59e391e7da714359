"""Inactivation decoding (RFC 6330 5.4.2) in numpy: the twin of the C kernel's sparse solver.

    A * C = D      A: S LDPC rows, one LT row per symbol held, H HDPC rows; C: L intermediate symbols; D: zeros and the symbols

1. Peel. Take a binary row with one active column: that column is its pivot, known once the others are. With no such row, inactivate a column.
2. Each pivot is now a sum of earlier pivots and of the u inactive columns. Put that into the rows left over: a dense binary system in the u columns.
3. Eliminate it. At most H columns stay free. Carry them along as extra octets of every symbol: value || coefficients of the free columns.
4. The H HDPC rows, evaluated over all columns by Horner's rule (MT * GAMMA is a running sum times alpha), give H equations over GF(256) in the free columns.

The HDPC rows, which are dense and the only ones over GF(256), thus cost one pass. Nothing here depends on the values of the symbols.

Invariant: the result is C, or None exactly when A's rank is below L.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raptor_s3.codec.gf256 import POWERS, PRODUCT, Octets, eliminate
from raptor_s3.codec.oti import DegreeTable
from raptor_s3.codec.parameters import BlockParameters, hdpc_taps, ldpc_rows, lt_row


def _peel(rows: list[list[int]], lt_columns: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Phase 1: the pivots (row, column) in the order in which they become known, and the LT columns that were inactivated."""
    active = [[column for column in row if column < lt_columns] for row in rows]
    users: list[list[int]] = [[] for _ in range(lt_columns)]
    for number, row in enumerate(active):
        for column in row:
            users[column].append(number)
    weight = [len(row) for row in active]
    pivots: list[tuple[int, int]] = []
    inactive: list[int] = []
    gone = [False] * lt_columns
    used = [False] * len(rows)
    ready = [number for number, row in enumerate(active) if len(row) == 1]
    pairs = [number for number, row in enumerate(active) if len(row) == 2]

    def leave(column: int) -> None:
        gone[column] = True
        for number in users[column]:
            weight[number] -= 1
            if weight[number] == 1:
                ready.append(number)
            elif weight[number] == 2:
                pairs.append(number)

    while len(pivots) + len(inactive) < lt_columns:
        if ready:
            number = ready.pop()
            if weight[number] == 1 and not used[number]:
                column = next(column for column in active[number] if not gone[column])
                used[number] = True
                pivots.append((number, column))
                leave(column)
            continue
        pairs = [number for number in pairs if weight[number] == 2]
        inactive.append(_column_to_inactivate(active, gone, pairs, weight))
        leave(inactive[-1])
    return pivots, inactive


def _column_to_inactivate(active: list[list[int]], gone: list[bool], pairs: list[int], weight: list[int]) -> int:
    """The column that most rows of weight 2 share: without it they all become pivots. Else any column of a lightest row."""
    votes: dict[int, int] = {}
    for number in pairs:
        for column in active[number]:
            if not gone[column]:
                votes[column] = votes.get(column, 0) + 1
    if votes:
        return max(votes, key=votes.__getitem__)
    candidates = [number for number in range(len(active)) if weight[number] > 1]
    if candidates:
        lightest = min(candidates, key=weight.__getitem__)
        return next(column for column in active[lightest] if not gone[column])
    return gone.index(False)  # a column that no row has left


def _reduce(equations: list[tuple[int, Octets]], unknowns: int) -> tuple[dict[int, tuple[int, Octets]], list[int]]:
    """Phase 3: Gauss-Jordan over GF(2). (pivot column -> its row reduced to free columns, free columns).

    An equation is (bits of the inactive columns, value). Surplus equations only confirm what is known and are dropped.
    """
    solved: dict[int, tuple[int, Octets]] = {}
    for bits, value in equations:
        rest = bits
        for column, (row, row_value) in solved.items():
            if rest >> column & 1:
                rest ^= row
                value = value ^ row_value
        if not rest:
            continue
        pivot = rest.bit_length() - 1
        for column, (row, row_value) in solved.items():
            if row >> pivot & 1:
                solved[column] = (row ^ rest, row_value ^ value)
        solved[pivot] = (rest, value)
    return solved, [column for column in range(unknowns) if column not in solved]


def solve(parameters: BlockParameters, table: DegreeTable, isis: Sequence[int], symbols: Octets) -> Octets | None:
    """The L intermediate symbols from encoding symbols `symbols[i]` with ISI `isis[i]` (padding symbols included); None if they don't determine them."""
    padded, _, s, h, w, _, _ = parameters
    total, size = parameters.intermediate_symbols, symbols.shape[1]
    rows = ldpc_rows(parameters) + [lt_row(parameters, isi, table) for isi in isis]
    values = np.zeros((len(rows), size), np.uint8)
    values[s:] = symbols
    pivots, inactive = _peel(rows, w)
    inactive += range(w, total)
    bit_of = {column: 1 << i for i, column in enumerate(inactive)}

    bits = [0] * total  # of each column: the inactive columns in it
    known = np.zeros((total, size), np.uint8)
    for column, bit in bit_of.items():
        bits[column] = bit

    def combine(number: int, skip: int) -> tuple[int, Octets]:
        mask, value = 0, values[number].copy()
        for column in rows[number]:
            if column != skip:
                mask ^= bits[column]
                value ^= known[column]
        return mask, value

    for number, column in pivots:
        bits[column], known[column] = combine(number, column)
    pivot_rows = {number for number, _ in pivots}
    reduced = _reduce([combine(number, -1) for number in range(len(rows)) if number not in pivot_rows], len(inactive))
    solved, free = reduced
    if len(free) > h:
        return None

    full = np.zeros((total, size + len(free)), np.uint8)  # value || coefficients of the free columns
    for place, index in enumerate(free):
        full[inactive[index], size + place] = 1
    for index, (row, value) in solved.items():
        full[inactive[index], :size] = value
        full[inactive[index], size:] = [row >> other & 1 for other in free]
    for number, column in pivots:
        full[column, :size] = values[number]
        for other in rows[number]:
            if other != column:
                full[column] ^= full[other]

    checks = np.zeros((h, size + len(free)), np.uint8)
    running = np.zeros(size + len(free), np.uint8)
    for column, (first, second) in enumerate(hdpc_taps(parameters)):
        running = PRODUCT[2][running] ^ full[column]
        checks[first] ^= running
        checks[second] ^= running
    running = PRODUCT[2][running] ^ full[padded + s - 1]
    for i in range(h):
        checks[i] ^= PRODUCT[POWERS[i]][running] ^ full[padded + s + i]
    system = np.ascontiguousarray(np.concatenate([checks[:, size:], checks[:, :size]], axis=1))
    if not eliminate(system, len(free)):
        return None
    result = np.ascontiguousarray(full[:, :size])
    for place in range(len(free)):
        result[full[:, size + place] == 1] ^= system[place, len(free) :]
    return result


def encode(parameters: BlockParameters, table: DegreeTable, isis: Sequence[int], intermediate: Octets) -> Octets:
    """Encoding symbols `isis` from the intermediate symbols: Enc[] (RFC 6330 5.3.5.3)."""
    out = np.empty((len(isis), intermediate.shape[1]), np.uint8)
    for i, isi in enumerate(isis):
        out[i] = np.bitwise_xor.reduce(intermediate[lt_row(parameters, isi, table)], axis=0)
    return out
