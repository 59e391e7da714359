"""Nonces for sending: a counter that may be shared between processes (whitepaper 5.4.6, docs/wireguard.md).

A session of one process counts from 0 to REJECT_AFTER_MESSAGES. A session in the session store is used by several
processes at once, so each takes its counters from ranges reserved ahead in the store. The receiver's window is only
8,128 wide, and a process that slept on its range while others sent would be refused: a range is therefore good only
until `valid_until`, and then the store says whether it still is.

Invariant: no counter is given out twice, by this or any other range of the same session, wherever `take` is interrupted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from raptor_s3.errors import SessionExpired
from raptor_s3.wireguard.constants import REJECT_AFTER_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable


class Reservation(NamedTuple):
    """Counters `next` up to, not including, `end`, to be used before `valid_until` (the clock of `now`)."""

    next: int
    end: int
    valid_until: float


class CounterRange:
    """Counters to send with.

    `reserve(held, count, now)` returns the same or another range with at least `count` left, or raises
    SessionExpired.
    """

    __slots__ = ("__weakref__", "_reserve", "_valid_until", "end", "next")

    def __init__(
        self,
        next: int = 0,  # noqa: A002 - the name of the interface
        end: int = REJECT_AFTER_MESSAGES,
        *,
        valid_until: float = math.inf,
        reserve: Callable[[Reservation, int, float], Reservation] | None = None,
    ) -> None:
        self.next = next
        self.end = end
        self._valid_until = valid_until
        self._reserve = reserve

    def take(self, count: int, now: float) -> int:
        """The first of `count` consecutive counters. Raises SessionExpired when there are no more to be had."""
        first = self.next
        if first + count > self.end or now >= self._valid_until:
            if self._reserve is None:
                raise SessionExpired("no counters left under these keys")
            first, end, valid_until = self._reserve(Reservation(first, self.end, self._valid_until), count, now)
            # In this order: what lies between the old range and the end of the new one may be others'.
            self.next = first + count
            self.end, self._valid_until = end, valid_until
            return first
        self.next = first + count
        return first

    @property
    def is_shared(self) -> bool:
        """True if counters come from reservations, False if this range is the only one of its session."""
        return self._reserve is not None

    @property
    def is_revoked(self) -> bool:
        return self.next >= REJECT_AFTER_MESSAGES

    def revoke(self) -> None:
        """Give out nothing any more, e.g. in the child of a fork, whose parent goes on with the same range."""
        self.next = self.end = REJECT_AFTER_MESSAGES
        self._reserve = None
