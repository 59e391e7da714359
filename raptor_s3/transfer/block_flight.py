"""One source block at the sender. Values only."""

from __future__ import annotations

from bisect import bisect_right


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
