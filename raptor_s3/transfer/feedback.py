"""What a transfer state says about the path, as counts and times.

Invariant: counts are of datagrams, and newly known with this state.
"""

from __future__ import annotations

from typing import NamedTuple


class Feedback(NamedTuple):
    """One state's contribution to the estimates."""

    delivered: int
    lost: int
    """Negative where what was taken for lost was only late."""
    rtt_s: float | None
    """Of the datagram that set the state off."""
    confirmed_s: float | None = None
    """The same for the final state: it contains the receiver's own work, decoding and the write to S3."""
    since: float = float("inf")
    """When the first of the datagrams left among which the lost ones are."""
    surplus: int = 0
    """Datagrams that were sent for nothing: after the one that completed the block. No state will speak of them."""
    surplus_s: float = 0.0
    """How long after that one the last of them left."""
