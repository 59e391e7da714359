"""Round-trip time: estimate and retransmission timeout (RFC 6298 2; the floor is QUIC's, not one second: RFC 9002 6.2.1).

Karn's rule is the caller's: only unambiguous samples come in, and of the others `back_off` is told. Without that, a path that has
become slower than the timeout would be asked too soon for ever.

Invariant: `timeout_s` lies within MIN_TIMEOUT_S..MAX_TIMEOUT_S, and the first estimate is conservative.
"""

from __future__ import annotations

from typing import Final

INITIAL_TIMEOUT_S: Final = 1.0  # RFC 6298 (2.1)
MIN_TIMEOUT_S: Final = 0.01
MAX_TIMEOUT_S: Final = 10.0
GRANULARITY_S: Final = 0.005
"""Floor of the variance term: timers and schedulers are not better than this on a loaded device."""
MARGIN: Final = 1 / 16
"""The same as a share of the estimate: a path is never as steady as its last samples."""
MIN_WINDOW_S: Final = 30.0
"""For how long a minimum counts. A route may become longer."""
STALE_S: Final = 5.0
"""After so long without a sample, what made the path slow may be over (RFC 6298 5.7)."""


class RoundTrip:
    """One smoothed estimate. `smoothed_s` is None until the first sample.

    >>> rtt = RoundTrip()
    >>> rtt.sample(0.1, now=0.0)
    >>> rtt.smoothed_s, round(rtt.timeout_s, 3)
    (0.1, 0.3)
    """

    __slots__ = ("_backed_off_at", "_min_until", "_next_min_s", "_sampled_at", "min_s", "smoothed_s", "timeout_s", "variation_s")

    def __init__(self, smoothed_s: float | None = None, variation_s: float = 0.0) -> None:
        self.smoothed_s = smoothed_s
        self.variation_s = variation_s
        self.min_s = float("inf")
        self._min_until = 0.0
        self._next_min_s = float("inf")
        self._sampled_at = self._backed_off_at = -float("inf")
        self.timeout_s = INITIAL_TIMEOUT_S if smoothed_s is None else _timeout_s(smoothed_s, variation_s)
        """How long to wait for an answer before asking again, without backoff."""

    def sample(self, rtt_s: float, now: float) -> None:
        """Take one measured round trip; values that no network has (not above 0, or over a minute) are ignored."""
        if not 0.0 < rtt_s < 60.0:
            return
        smoothed_s = self.smoothed_s
        if smoothed_s is None or (rtt_s < smoothed_s / 2 and self.is_stale(now)):
            smoothed_s, variation_s = rtt_s, rtt_s / 2
        else:
            error_s = rtt_s - smoothed_s
            variation_s = 0.75 * self.variation_s + (0.25 * error_s if error_s > 0.0 else -0.25 * error_s)
            smoothed_s += error_s / 8
        self.smoothed_s = smoothed_s
        self.variation_s = variation_s
        self._sampled_at = now
        self.timeout_s = _timeout_s(smoothed_s, variation_s)
        if rtt_s < self._next_min_s:
            self._next_min_s = rtt_s
        if rtt_s < self.min_s:
            self.min_s = self._next_min_s = rtt_s
            self._min_until = now + MIN_WINDOW_S
        elif now >= self._min_until:
            self.min_s, self._next_min_s = self._next_min_s, rtt_s
            self._min_until = now + MIN_WINDOW_S

    def back_off(self, sent_at: float, now: float) -> None:
        """What left at `sent_at` was asked about before its answer came: wait longer, until a sample tells (RFC 6298 5.5 to 5.7).

        Twice as long, once per round trip, but not longer than this one can have been.
        """
        if sent_at >= self._backed_off_at:
            self._backed_off_at = now
            at_most_s = (now - sent_at) * (1 + MARGIN) + GRANULARITY_S
            self.timeout_s = max(self.timeout_s, min(2 * self.timeout_s, at_most_s, MAX_TIMEOUT_S))

    def is_stale(self, now: float) -> bool:
        """True when nothing was measured for long, or ever: the path may have become better since."""
        return now - self._sampled_at > STALE_S


def _timeout_s(smoothed_s: float, variation_s: float) -> float:
    slack_s = 4 * variation_s
    if slack_s < GRANULARITY_S:
        slack_s = GRANULARITY_S
    if slack_s < smoothed_s * MARGIN:
        slack_s = smoothed_s * MARGIN
    timeout_s = smoothed_s + slack_s
    if timeout_s < MIN_TIMEOUT_S:
        return MIN_TIMEOUT_S
    return timeout_s if timeout_s < MAX_TIMEOUT_S else MAX_TIMEOUT_S
