"""The longest datagram that the path takes, as far as is known (RFC 8899), for an hour: a path may become wider.

Invariant: `octets` is one of DATAGRAM_SIZES; it falls where the kernel says so, or when two puts in a row had to be sent again in
smaller datagrams (one may have met with an outage), and rises when a longer one has arrived, or with time.
"""

from __future__ import annotations

from typing import Final

from raptor_s3.wire.datagram import MAX_DATAGRAM

DATAGRAM_SIZES: Final = (MAX_DATAGRAM, 1200, 900, 508)
"""Sizes to try when datagrams don't fit the path. 508, and WireGuard's octets, fit what any IPv4 host must take (RFC 791)."""
LEAST: Final = DATAGRAM_SIZES[-1]
REMEMBER_SIZE_S: Final = 3600.0
_NEVER: Final = float("inf")


def next_below(size: int) -> int:
    """The next size to try for datagrams of `size` octets that don't arrive."""
    return next((smaller for smaller in DATAGRAM_SIZES if smaller < size), LEAST)


class DatagramSize:
    """What is known of one endpoint's path; `until`, in Unix seconds, is when that is to be forgotten.

    `suspected`: what one put's datagrams had to be cut to, 0 for none.
    """

    def __init__(self, octets: int = MAX_DATAGRAM, until: float = _NEVER, suspected: int = 0) -> None:
        self.octets = octets
        self.until = until
        self.suspected = suspected
        self._suspected_at = -_NEVER

    def forget_in_time(self, unix_time: float) -> None:
        if unix_time >= self.until:
            self.octets, self.until, self.suspected = MAX_DATAGRAM, _NEVER, 0

    def limit(self, octets: int, unix_time: float) -> None:
        """Longer ones than these don't arrive."""
        if octets < self.octets:
            self.octets, self.until = octets, unix_time + REMEMBER_SIZE_S

    def suspect(self, octets: int, started_at: float, now: float, unix_time: float) -> None:
        """A put that began at `started_at` was heard with these, by `now`, and not with longer ones."""
        if self.suspected == octets and started_at > self._suspected_at:
            self.suspected = 0
            self.limit(octets, unix_time)
        else:
            self.suspected, self._suspected_at = octets, now

    def allow(self, octets: int) -> None:
        """One of a transfer cut for these has arrived."""
        self.suspected = 0
        if octets > self.octets:
            self.octets = octets
            if octets == MAX_DATAGRAM:
                self.until = _NEVER
