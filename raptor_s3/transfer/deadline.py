"""Until when a put may be written, and until when its sender must wait (docs/transport.md, 'No stale overwrite').

    0 ......... blind ......... ttl .............. timeout       from the call
    |- any datagram may leave -|
    |                                             |- settle -|
                blind + settle + ttl <= timeout

The receiver counts the time to live from the first datagram that reaches it. That may be any of those sent before the
sender has heard from it, so those leave only during `blind_s`. They arrive within `settle_s` or never, hence nothing is
written after blind + settle + ttl. Later datagrams leave only in the WireGuard session in which the receiver has shown that it
knows the transfer, and don't move its clock. That page has the whole argument and its one assumption.

Invariant: blind_s + settle_s + ttl_s <= timeout_s, all positive; or no deadline at all, and then nothing may be sent.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from raptor_s3.wire.put_header import MAX_TTL_MS

SETTLE_SHARE: Final = 0.1
"""Least share of the timeout that a datagram may still travel, and a write that was begun in time may still take.

A retransmission timeout, which is more than a round trip, where that is longer.
"""
MAX_SETTLE_SHARE: Final = 0.5
"""A path that needs more does not fit the timeout."""
MIN_BLIND_SHARE: Final = 0.1
MAX_BLIND_SHARE: Final = 0.4
BLIND_TIMEOUTS: Final = 5.0
"""Blind sending lasts this many retransmission timeouts: the flight, two repeats, a handshake, and once more."""


class Deadline(NamedTuple):
    """Times in seconds from now."""

    blind_s: float
    ttl_s: float
    settle_s: float


def plan_deadline(timeout_s: float, retransmission_timeout_s: float) -> Deadline | None:
    """Divide what is left of a put's timeout. None: it is too short for the path, or for milliseconds.

    >>> plan_deadline(5.0, 0.04)
    Deadline(blind_s=0.5, ttl_s=4.0, settle_s=0.5)
    >>> plan_deadline(0.75, 0.4)
    """
    settle_s = SETTLE_SHARE * timeout_s
    if settle_s < retransmission_timeout_s:
        settle_s = retransmission_timeout_s
    if settle_s > MAX_SETTLE_SHARE * timeout_s:
        return None
    blind_s = BLIND_TIMEOUTS * retransmission_timeout_s
    if blind_s < MIN_BLIND_SHARE * timeout_s:
        blind_s = MIN_BLIND_SHARE * timeout_s
    elif blind_s > MAX_BLIND_SHARE * timeout_s:
        blind_s = MAX_BLIND_SHARE * timeout_s
    ttl_ms = int((timeout_s - settle_s - blind_s) * 1000)
    if not ttl_ms:
        return None
    return Deadline(blind_s, (ttl_ms if ttl_ms < MAX_TTL_MS else MAX_TTL_MS) / 1000, settle_s)
