"""What is known of the path to one endpoint, shared by all its transfers.

Invariant: estimates only; nothing here decides.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from raptor_s3.transfer.loss import PRIOR_LOSS, LossEstimate
from raptor_s3.transfer.rtt import RoundTrip


class Learned(NamedTuple):
    """What is remembered of an endpoint between processes. Seconds, a share, octets per second; None where nothing is known."""

    srtt_s: float | None = None
    rttvar_s: float = 0.0
    loss: float = PRIOR_LOSS
    rate: float | None = None
    floor: float | None = None
    """What the path has carried while its rate was still being looked for."""


INITIAL_REPAIR: Final = 4
"""So many objects of one symbol get a repair symbol on a path of which nothing is known: a loss would cost three round trips."""


class PathEstimates:
    """Round trips, loss, reordering."""

    __slots__ = ("confirmation", "initial_repair", "loss", "reordering", "rtt")

    def __init__(self, learned: Learned | None = None) -> None:
        known = learned or Learned()
        self.initial_repair = INITIAL_REPAIR if known.srtt_s is None else 0
        """How many still do."""
        self.rtt = RoundTrip(known.srtt_s, known.rttvar_s)
        """Of a datagram and the state that it sets off at once."""
        self.confirmation = RoundTrip(known.srtt_s, known.rttvar_s)
        """The same with the receiver's own work in it: decoding and the write to S3."""
        self.loss = LossEstimate(known.loss)
        self.reordering = 0.0
        """By how many datagrams the latest states were out of order, decaying."""

    def count_displacement(self, datagrams: int) -> None:
        """A state spoke of a datagram that left so many before one spoken of earlier (0: in order)."""
        self.reordering = max(float(datagrams), self.reordering * 0.98)
