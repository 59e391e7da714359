"""Sliding window over received counters (RFC 6479; whitepaper 5.4.6).

A ring of 2^13 bits, cleared one 64-bit block at a time as the window moves, so at least 8,128 counters behind the
greatest one are remembered and nothing is ever shifted. `is_fresh` asks before decryption, `mark` records after the
tag has verified: a forged counter never moves the window.

A window is its own memory, so that `open_fresh` in C asks and marks the same one:

    1,024 octets  the ring: counter N is bit N mod 8 of octet N / 8 mod 1,024
    u64           one more than the greatest counter received
    u64           the first counter that may be received; both little-endian
"""

from __future__ import annotations

import struct
from typing import Final

from raptor_s3.wireguard.constants import WINDOW_BITS, WINDOW_BLOCK_BITS, WINDOW_SIZE

_RING_SIZE: Final = WINDOW_BITS // 8
_BLOCK_SIZE: Final = WINDOW_BLOCK_BITS // 8
_BLOCKS: Final = WINDOW_BITS // WINDOW_BLOCK_BITS
_BOUNDS: Final = struct.Struct("<QQ")
_END: Final = struct.Struct("<Q")


class ReplayWindow(bytearray):
    """Which counters were received, of those below 2^64 - 1. `floor`: this one and all below count as received (-1: none)."""

    __slots__ = ()

    def __init__(self, floor: int = -1) -> None:
        super().__init__(_RING_SIZE + _BOUNDS.size)
        if floor >= 0:
            _BOUNDS.pack_into(self, _RING_SIZE, floor + 1, floor + 1)

    @property
    def greatest(self) -> int:
        """The greatest counter received, or the floor."""
        end: int = _END.unpack_from(self, _RING_SIZE)[0]
        return end - 1

    def is_fresh(self, counter: int) -> bool:
        """True if `counter` is neither marked nor too old to know."""
        end, first = _BOUNDS.unpack_from(self, _RING_SIZE)
        if counter >= end:
            return True
        if counter < first or end - counter > WINDOW_SIZE:
            return False
        return not self[counter // 8 % _RING_SIZE] >> counter % 8 & 1

    def mark(self, counter: int) -> None:
        """Record an authenticated `counter` for which `is_fresh` was true."""
        (end,) = _END.unpack_from(self, _RING_SIZE)
        if counter >= end:
            self[_RING_SIZE : _RING_SIZE + _END.size] = _END.pack(counter + 1)
            first_block, last_block = -(-end // WINDOW_BLOCK_BITS), counter // WINDOW_BLOCK_BITS
            if first_block <= last_block:
                self._clear(first_block, last_block)
        self[counter // 8 % _RING_SIZE] |= 1 << counter % 8

    def _clear(self, first_block: int, last_block: int) -> None:
        if last_block - first_block + 1 >= _BLOCKS:
            self[:_RING_SIZE] = bytes(_RING_SIZE)
            return
        for block in range(first_block, last_block + 1):
            start = block % _BLOCKS * _BLOCK_SIZE
            self[start : start + _BLOCK_SIZE] = bytes(_BLOCK_SIZE)
