"""How much of a `raptor send` is under way at once, and how long each of its files may wait for the others.

    has_room(size) -> enter(number, size) -> seconds -> leave(number)

The engine sends small files before larger ones, and else in their order. So a file waits for what is under way when it enters,
and a larger one also for small files that enter later.

Invariant: whatever is sent before a file is in the seconds that `enter` gave it, at SLOW_LINK_BPS.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SLOW_LINK_BPS: Final = 1e6
MAX_IN_FLIGHT: Final = 256
WINDOW_BYTES: Final = 8 << 20
"""Enough for 100 Mbit/s, a round trip of 300 ms and as long for S3. What is under way is one file more than that at most."""
FIRST_WINDOW_BYTES: Final = 512 << 10
"""As long as nothing has come of any file: on a way that leads nowhere nobody should wait for long."""
SMALL_BYTES: Final = 24 << 10
"""A file that is longer has more datagrams than the engine's `sender.SMALL`, whatever their size: it never goes before others."""
LARGE_BYTES: Final = 4 << 10
"""One that is not longer has fewer, whatever their size: small files that enter later don't go before it."""
_NEVER: Final = float("inf")


class _Entry(NamedTuple):
    size: int
    patience: float
    """Up to how many octets of small files may have entered while this one is here."""


class Window:
    """What is under way, by number."""

    def __init__(self, small_bytes_to_come: int) -> None:
        """`small_bytes_to_come`: octets of all the small files that may enter (`small`)."""
        self._to_come = small_bytes_to_come
        self._limit = FIRST_WINDOW_BYTES
        self._small_bytes = 0
        self._bytes = 0
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def open(self) -> None:
        """Something has come of a file."""
        self._limit = WINDOW_BYTES

    def has_room(self, size: int) -> bool:
        entries = self._entries
        if not entries:
            return True
        if len(entries) >= MAX_IN_FLIGHT or self._bytes >= self._limit:
            return False
        return not small(size) or self._small_bytes + size <= min(entry.patience for entry in entries.values())

    def enter(self, number: int, size: int) -> float:
        """File `number` is under way from now on: how many seconds it may wait for others."""
        self._small_bytes += small(size)
        later = min(self._limit, max(self._to_come - self._small_bytes, 0)) if size > LARGE_BYTES else 0
        seconds = (self._bytes + later) * 8 / SLOW_LINK_BPS
        self._entries[number] = _Entry(size, self._small_bytes + later if size > LARGE_BYTES else _NEVER)
        self._bytes += size
        return seconds

    def wait_again(self, number: int) -> float:
        """How many seconds a file that is submitted again may wait for others: all of them may be before it."""
        entry = self._entries[number]
        later = entry.patience - self._small_bytes if entry.patience < _NEVER else 0
        return (self._bytes - entry.size + later) * 8 / SLOW_LINK_BPS

    def leave(self, number: int) -> None:
        self._bytes -= self._entries.pop(number).size


def small(size: int) -> int:
    """The octets of a file that may go before larger ones, 0 of any other."""
    return size if size <= SMALL_BYTES else 0
