"""When handshakes become too many: a load meter, and token buckets (whitepaper 5.3; the reference's ratelimiter).

Invariant: memory is bounded however many keys are seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptor_s3.wireguard.constants import INITIATIONS_BURST, INITIATIONS_PER_S, MAX_RATE_LIMIT_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Hashable


def source_network(address: str) -> str:
    """What shares a bucket: an IPv4 address, or an IPv6 /64, since a single host may have all of it."""
    import ipaddress

    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address) or parsed.ipv4_mapped:
        return address
    return parsed.packed[:8].hex()


class LoadMeter:
    """Counts events in windows of one second.

    Under load from the event over `limit` to the end of the next window that stays below it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._window_started_at = float("-inf")
        self._count = 0
        self._previous_count = 0

    def is_under_load(self, now: float) -> bool:
        """Count one event at `now` and say whether there are too many."""
        elapsed = now - self._window_started_at
        if elapsed >= 1.0:
            self._previous_count = self._count if elapsed < 2.0 else 0
            self._count = 0
            self._window_started_at = now
        self._count += 1
        return self._count > self._limit or self._previous_count > self._limit


class TokenBuckets:
    """A token bucket for each key; the ones used longest ago are forgotten first."""

    def __init__(
        self,
        rate_per_s: float = INITIATIONS_PER_S,
        burst: float = INITIATIONS_BURST,
        max_entries: int = MAX_RATE_LIMIT_ENTRIES,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._max_entries = max_entries
        self._buckets: dict[Hashable, tuple[float, float]] = {}  # tokens, when they were counted

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable, now: float) -> bool:
        """Take one token of `key`; False if there is none."""
        tokens, counted_at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted_at) * self._rate_per_s)
        if len(self._buckets) >= self._max_entries:
            del self._buckets[next(iter(self._buckets))]
        allowed = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if allowed else tokens, now)
        return allowed
