"""One source block at the sender: what was sent of it, what is known of it, what to ask for. Values only."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from raptor_s3.transfer.loss import flight_size

if TYPE_CHECKING:
    from collections.abc import Iterable

QUESTION: Final = 2
"""Symbols sent on the first silence: enough to make the receiver answer, few enough for a full queue."""
MAX_QUESTION: Final = 8
MAX_REPAIR: Final = 64
_NEVER: Final = float("inf")


class BlockFlight:
    """One source block: what has been sent, what is planned, what the receiver has reported."""

    __slots__ = ("done", "firsts", "flight", "highest", "index", "next_esi", "received", "settled", "symbols", "target", "times")

    def __init__(self, symbols: int, flight: int) -> None:
        self.symbols = symbols  # K
        self.next_esi = 0
        self.flight = flight
        self.target = flight
        self.received = 0
        self.index = 0  # datagrams sent up to the one that the last report spoke of
        self.highest = -1  # ESI that any report spoke of
        self.settled = 0  # the same, or given up as lost
        self.done = False
        self.firsts: list[int] = []
        self.times: list[float] = []  # when the runs that begin with `firsts` left

    def sent_at(self, esi: int) -> float:
        return self.times[bisect_right(self.firsts, esi) - 1]

    def sent_before(self, time: float) -> int:
        """How many had left when those of `time` were to leave."""
        position = bisect_right(self.times, time)
        return self.firsts[position] if position < len(self.firsts) else self.next_esi

    def account(self, received: int, index: int) -> tuple[int, int, float]:
        """The receiver has `received` of the first `index`: what is delivered and lost beyond that, and since when."""
        delivered = received - self.received
        lost = index - self.index - delivered
        since = self.sent_at(self.index) if lost > 0 else _NEVER
        self.received, self.index = received, index
        return delivered, lost, since

    def question(self, silences: int, loss: float) -> int:
        """How many fresh symbols to send after so many silences: those that seem to be missing, or a few to get an answer."""
        if not self.received:
            return min(QUESTION << (silences - 1), MAX_QUESTION)
        arrived = self.received + int((self.next_esi - self.index) * (1 - loss))
        return max(min(flight_size(self.symbols - arrived, loss), MAX_REPAIR), QUESTION)


def tally(blocks: Iterable[BlockFlight]) -> tuple[int, int, int]:
    """Symbols that have left, how many of them source symbols, and how many after the first flight."""
    sent = source = resent = 0
    for block in blocks:
        sent += block.next_esi
        source += min(block.next_esi, block.symbols)
        resent += max(block.next_esi - block.flight, 0)
    return sent, source, resent
