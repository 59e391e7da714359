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
