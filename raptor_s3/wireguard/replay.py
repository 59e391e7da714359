"""Sliding window over received counters (RFC 6479; whitepaper 5.4.6).

A ring of 2^13 bits, cleared one 64-bit block at a time as the window moves, so at least 8,128 counters behind the
greatest one are remembered and nothing is ever shifted. `is_fresh` asks before decryption, `mark` records after the
tag has verified: a forged counter never moves the window.
"""

from __future__ import annotations

from raptor_s3.wireguard.constants import WINDOW_BITS, WINDOW_BLOCK_BITS, WINDOW_SIZE

_BYTES = WINDOW_BITS // 8
_BLOCK_BYTES = WINDOW_BLOCK_BITS // 8
_BLOCKS = WINDOW_BITS // WINDOW_BLOCK_BITS
_EMPTY_BLOCK = bytes(_BLOCK_BYTES)


class ReplayWindow:
    """Which counters were received. `floor`: this one and all below count as received (-1: none)."""

    __slots__ = ("_bits", "_floor", "greatest")

    def __init__(self, floor: int = -1) -> None:
        self._bits = bytearray(_BYTES)
        self._floor = floor
        self.greatest = floor

    def is_fresh(self, counter: int) -> bool:
        """True if `counter` is neither marked nor too old to know."""
        if counter > self.greatest:
            return True
        if counter <= self._floor or counter + WINDOW_SIZE <= self.greatest:
            return False
        return not self._bits[counter >> 3 & _BYTES - 1] >> (counter & 7) & 1

    def mark(self, counter: int) -> None:
        """Record an authenticated `counter` for which `is_fresh` was true."""
        greatest = self.greatest
        if counter > greatest:
            block, last_block = counter // WINDOW_BLOCK_BITS, greatest // WINDOW_BLOCK_BITS
            if block != last_block:
                self._clear(last_block + 1, block)
            self.greatest = counter
        self._bits[counter >> 3 & _BYTES - 1] |= 1 << (counter & 7)

    def _clear(self, first_block: int, last_block: int) -> None:
        if last_block - first_block + 1 >= _BLOCKS:
            self._bits = bytearray(_BYTES)
            return
        for block in range(first_block, last_block + 1):
            start = block % _BLOCKS * _BLOCK_BYTES
            self._bits[start : start + _BLOCK_BYTES] = _EMPTY_BLOCK
