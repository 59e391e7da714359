"""How fast the path delivers."""

from __future__ import annotations

from typing import Final

from raptor_s3.transfer.outgoing import Feedback, SendMark
from raptor_s3.transfer.pacing import INITIAL_BURST_BYTES, Pacer

INITIAL_RATE: Final = 10e6 / 8


class RateController:
    def __init__(self, now: float, *, cap: float | None = None, rate: float | None = None) -> None:
        self.cap = cap
        self.pacer = Pacer(cap or 1e9, now, INITIAL_BURST_BYTES)
        self.window_bytes = float("inf")

    @property
    def learned_rate(self) -> float | None:
        return None

    def mark(self, now: float, is_app_limited: bool) -> SendMark:
        return SendMark(now)

    def on_sent(self, size_bytes: int, now: float) -> None:
        self.pacer.spend(size_bytes)

    def on_feedback(self, feedback: Feedback, datagram_bytes: int, in_flight_bytes: int, now: float) -> None:
        pass

    def on_silence(self, now: float) -> None:
        pass
