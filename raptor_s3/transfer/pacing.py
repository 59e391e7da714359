"""When the next octets may leave: a token bucket (RFC 8085 3.1).

Invariant: over any interval of t seconds at one rate, what `spend` accounts for is at most rate * t + burst + one datagram train,
and one more burst per `refill`.
"""

from __future__ import annotations

from typing import Final

INITIAL_BURST_BYTES: Final = 10 * 1500
"""A first flight of about ten datagrams leaves at once (RFC 6928)."""
BURST_S: Final = 0.008
"""At higher rates the bucket holds this much time, so that a late timer does not cost throughput."""
QUANTUM_S: Final = 0.002
"""At higher rates datagrams leave in trains of at least this much time."""
WIRE_OVERHEAD: Final = 60
"""Octets that a datagram costs on the wire beside itself: WireGuard 32, UDP 8, IPv4 20."""
CAPPED_OVERHEAD: Final = 80
"""The same with the 40 of IPv6, for a hard cap: an endpoint may have addresses of both, and go on from one to the other.

So on IPv4 full datagrams stay 1.4 % below the cap; without a cap the measured rate has all of that in it.
"""


class Pacer:
    """Shared by all transfers of an endpoint. Octets count as they are on the wire."""

    __slots__ = ("_capacity", "_tokens", "_updated_at", "burst_bytes", "rate")

    def __init__(self, rate: float, now: float, burst_bytes: float = INITIAL_BURST_BYTES) -> None:
        self.rate = rate  # octets per second
        self.burst_bytes = burst_bytes
        self._tokens = self._capacity = max(burst_bytes, rate * BURST_S)
        self._updated_at = now

    def set_rate(self, rate: float, now: float) -> None:
        if rate != self.rate:
            self.available(now)
            self.rate = rate
            self._capacity = max(self.burst_bytes, rate * BURST_S)

    def available(self, now: float) -> float:
        """Octets that may leave now; negative while a train is being paid off."""
        if now > self._updated_at:
            tokens = self._tokens + (now - self._updated_at) * self.rate
            self._tokens = tokens if tokens < self._capacity else self._capacity
            self._updated_at = now
        return self._tokens

    def spend(self, size_bytes: float) -> None:
        """Account for octets that left, after `available` was asked at the same time."""
        self._tokens -= size_bytes

    def refill(self) -> None:
        """The first flight may leave at once again."""
        if self._tokens < self.burst_bytes:
            self._tokens = self.burst_bytes

    def ready_at(self, size_bytes: float, now: float) -> float:
        """When `size_bytes` may leave, at the present rate."""
        missing = (size_bytes if size_bytes < self._capacity else self._capacity) - self.available(now)
        return now if missing <= 0 else now + missing / self.rate
