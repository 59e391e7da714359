"""How fast the path delivers, and how fast to send: a model of the bottleneck, after BBR (draft-ietf-ccwg-bbr) and RFC 8085.

    STARTUP --queue, or no more growth--> DRAIN --> CRUISE -> UP -> DOWN -> CRUISE ...

- *Bandwidth* is the greatest delivery rate of the last rounds, measured between states as they arrive. Until there is a
  measurement it is an assumption: what STARTUP turns into 10 Mbit/s, or what an earlier process has learned.
- *Queue* is how far even the fastest round trip of a round exceeds the least known one; jitter alone does not raise it.
- *Base loss* is what gets lost while we send no faster than the path delivers and see no queue: the path's own loss, no reason to
  slow down. More than that, together with a queue or round after round, is congestion.
- At most a window is in flight: the bandwidth-delay product, and a queue of OWN_QUEUE_S.

Invariant: with a cap, the pacer never runs faster than it.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from raptor_s3.transfer.pacing import INITIAL_BURST_BYTES, Pacer

if TYPE_CHECKING:
    from raptor_s3.transfer.feedback import Feedback
    from raptor_s3.transfer.path import PathEstimates

INITIAL_RATE: Final = 10e6 / 8
"""Octets per second at which `auto` starts."""
INITIAL_WINDOW: Final = 128 << 10
"""Octets in flight before anything has been measured: a 100 KB object goes without a pause."""
MIN_RATE: Final = 16e3 / 8
MAX_RATE: Final = 1e10 / 8

STARTUP_GAIN: Final = 2.5
UP_GAIN: Final = 1.25
DOWN_GAIN: Final = 0.75
DRAIN_GAIN: Final = 0.5
CROWDED_GAIN: Final = 0.9
"""Of CRUISE while there is a queue: ours drains slowly, and others' flows find room."""
CRUISE_ROUNDS: Final = 6
FILTER_ROUNDS: Final = 14
"""Longer than a cycle of phases: UP confirms a bandwidth before it is forgotten, on lossy paths too."""
GROWTH: Final = 1.2
PLATEAU_ROUNDS: Final = 3
"""STARTUP ends after so many rounds without GROWTH."""
UP_GROWTH: Final = 1.08
"""UP goes on as long as a round brings this much."""

OWN_QUEUE_S: Final = 0.06
WINDOW_GAIN: Final = 1.3
"""The window is the bandwidth-delay product and a queue of OWN_QUEUE_S, or times WINDOW_GAIN where that is more."""
REPORT_BYTES: Final = 8000
REPORT_S: Final = 0.05
MAX_REPORT_BYTES: Final = 27_000
"""Octets that may be in flight besides, because reports come only every few datagrams, or every few milliseconds."""

MIN_SAMPLE_S: Final = 0.001
JITTER_SHARE: Final = 10.0
"""Samples are longer by so many times the jitter, or the greatest of them would be noise."""
BUSY: Final = 0.7
"""A round in which less than this share of the rate was used teaches nothing."""
LIGHT_BYTES: Final = 3000
"""With so little in flight, and nothing that waits, a state is about a lone small put, and teaches nothing of the rate."""

RECENT: Final = 6
"""Round trips of which the least tells the queue."""
MIN_QUEUE_S: Final = 0.01
QUEUE_SHARE: Final = 1 / 8
EXCESS_LOSS: Final = 0.02
"""Loss of a round above the base loss, and above chance, that means congestion."""
MIN_LOSS_COUNT: Final = 50
"""Fewer datagrams' loss says nothing; on thin links several rounds are taken together."""
STARTUP_LOSS: Final = 0.15
LOSSY_ROUNDS: Final = 3
"""So many rounds in a row with excess loss mean congestion even where no queue is seen: a policer, a short queue."""
BACKOFF: Final = 0.7
MAX_BASE_LOSS: Final = 0.2
BASE_MEMORY: Final = 2000
NEAR_CAP: Final = 0.5
"""A bandwidth above this share of the cap is the cap's doing: loss takes some of it, and so does backing off from that."""
REMEMBERED_COUNT: Final = 500
"""For so many datagrams counts the loss that an earlier process has learned together with the rate."""
_NEVER: Final = float("inf")


class Phase(enum.Enum):
    STARTUP = STARTUP_GAIN
    DRAIN = DRAIN_GAIN
    CRUISE = 1.0
    UP = UP_GAIN
    DOWN = DOWN_GAIN


_STARTUP, _DRAIN, _CRUISE, _UP, _DOWN = Phase  # plain names are looked up faster


class RateController:
    """Shared by all transfers of an endpoint. Octets are as on the wire, times on the caller's clock."""

    def __init__(
        self,
        now: float,
        path: PathEstimates,
        *,
        cap: float | None = None,
        rate: float | None = None,
        floor: float | None = None,
    ) -> None:
        """`cap`: a hard limit in octets per second, and where to begin. `rate`: what an earlier process has learned.

        `floor`: what the path carried when an earlier process was still in STARTUP; this one goes on from there.
        """
        self._path = path
        self._remembered = rate
        if cap is not None and (rate is None or rate > cap):
            rate = cap
        self.cap = cap
        self.phase = _STARTUP if rate is None else _CRUISE
        self._floor = floor if self._remembered is None else None
        self.bandwidth = max(INITIAL_RATE / STARTUP_GAIN, floor or 0.0) if rate is None else max(rate, MIN_RATE)
        self.bandwidth = min(self.bandwidth, MAX_RATE)
        self.is_measured = False
        self.base_loss = 0.0
        self.window_bytes: float = INITIAL_WINDOW
        self.pacer = Pacer(self._limited(self.bandwidth * self.phase.value), now, _burst(cap))
        self._samples: deque[tuple[int, float]] = deque()  # (round, octets per second), decreasing
        self._history: deque[tuple[float, float]] = deque()  # (time, octets delivered by then) of a busy period
        self._delivered = 0.0
        self._surplus: list[tuple[float, float]] = []  # a heap of (when it will have arrived, octets): the link carries it too
        self._round = 0
        self._round_ends_at = 0.0
        self._recent_rtts: deque[float] = deque(maxlen=RECENT)
        self._delivered_count = 0
        self._lost_count = 0
        self._round_sent = 0
        self._round_began_at = now
        self._lossy_rounds = 0
        self._base_delivered = 1.0
        self._base_lost = 0.0
        if rate is not None:
            self._count_base(REMEMBERED_COUNT * (1 - path.loss.rate), REMEMBERED_COUNT * path.loss.rate)
        self._phase_round = 0
        self._plateau = 0
        self._plateau_bandwidth = 0.0
        self._latest = _NEVER
        self._jitter_s = 0.0
        self.idle_at = now
        """When there was nothing more to send: what is delivered then says nothing of what could be."""
        self._heard_at = self._sent_at = now
        self.congested_at = -_NEVER
        """When a queue was last seen to be full. What was lost of what had left by then has been answered."""
        self._last_rtt_s = path.rtt.smoothed_s or 0.0
        if rate is not None:
            self._set_window()

    # Sending

    def on_sent(self, size_bytes: int, in_flight_bytes: int, now: float) -> None:
        self.pacer.spend(size_bytes)
        self._round_sent += size_bytes
        if not in_flight_bytes and self.idle_at >= self._sent_at:
            self._begin_busy_period()
        self._sent_at = now

    def _begin_busy_period(self) -> None:
        self._history.clear()
        phase = self.phase
        if phase is _UP:  # it was cut short: try again soon
            self._enter(_CRUISE)
            self._phase_round -= CRUISE_ROUNDS - 2
        elif phase is not _STARTUP and phase is not _CRUISE:
            self._enter(_CRUISE)  # the pause has drained the queue

    # Learning

    def on_feedback(self, feedback: Feedback, datagram_bytes: int, in_flight_bytes: int, now: float) -> None:
        self._heard_at = now
        if feedback.rtt_s is not None and feedback.rtt_s > 0:
            self._on_rtt(feedback.rtt_s)
        if in_flight_bytes <= LIGHT_BYTES and self.idle_at >= self._sent_at:
            return  # a lone small put: nothing to be learned of the rate
        self._delivered_count += feedback.delivered
        self._lost_count += feedback.lost
        surplus = self._surplus
        if feedback.surplus and self._queue_s <= self._queue_threshold_s:  # a full queue drops it, and nobody would know
            octets = feedback.surplus * (1 - self._path.loss.rate) * datagram_bytes
            heapq.heappush(surplus, (now + feedback.surplus_s, octets))
        while surplus and surplus[0][0] <= now:
            self._delivered += heapq.heappop(surplus)[1]
        if feedback.delivered:
            self._delivered += feedback.delivered * datagram_bytes
            self._measure(now)
        if now >= self._round_ends_at or (not self._is_confirmed and self._is_too_fast):
            self._end_round(now, in_flight_bytes)
        self._apply(now)

    def on_all_delivered(self) -> None:
        """Nothing is in flight any more, all of it has arrived: the next flight is clocked by that, as TCP's first window is."""
        if self.cap is None:
            self.pacer.refill()

    def on_lone_datagram(self, size_bytes: int, sent_at: float, now: float) -> None:
        """One left when nothing was in flight or waiting, and was answered: all that the other calls come to then."""
        phase = self.phase
        if (self._history or (phase is not _CRUISE and phase is not _STARTUP)) and self.idle_at >= self._sent_at:
            self._begin_busy_period()
        self._round_sent += size_bytes
        self._sent_at = self.idle_at = sent_at
        self._heard_at = now
        if now > sent_at:
            self._on_rtt(now - sent_at)
        self.pacer.spend(size_bytes)
        self.on_all_delivered()

    def _on_rtt(self, rtt_s: float) -> None:
        self._jitter_s += (abs(rtt_s - self._last_rtt_s) - self._jitter_s) / 16 if self._last_rtt_s else 0.0
        self._last_rtt_s = rtt_s
        self._recent_rtts.append(rtt_s)

    def _count_base(self, delivered: float, lost: float) -> None:
        if self._base_delivered > BASE_MEMORY:
            self._base_delivered /= 2
            self._base_lost /= 2
        self._base_delivered += delivered
        self._base_lost += lost
        self.base_loss = min(max(self._base_lost / (self._base_lost + self._base_delivered), 0.0), MAX_BASE_LOSS)

    def _measure(self, now: float) -> None:
        """A delivery rate: between this state and one that came a fair while ago, in the same busy period."""
        history = self._history
        history.append((now, self._delivered))
        rtt_s = self._last_rtt_s
        length_s = max(rtt_s / 2, MIN_SAMPLE_S) if self.phase is _STARTUP else self._round_s
        while len(history) > 2 and history[1][0] <= now - length_s:
            history.popleft()
        since, before = history[0]
        if now - since < length_s:
            return
        rate = (self._delivered - before) / (now - since)
        is_limited = self.idle_at >= since - rtt_s
        # Where the rate is a mere assumption, what comes out of a queue is better: behind it the link is busy all the same.
        is_guess = self._remembered is None and not self._samples and self._queue_s > self._queue_threshold_s
        if is_limited and rate <= self.bandwidth and not is_guess:
            return
        self._latest = rate
        self._add_sample(rate)

    def _add_sample(self, rate: float) -> None:
        samples = self._samples
        while samples and samples[-1][1] <= rate:
            samples.pop()
        samples.append((self._round, rate))
        while samples[0][0] < self._round - FILTER_ROUNDS:
            samples.popleft()
        if not self.is_measured:
            if rate < self.bandwidth and self._queue_s <= self._queue_threshold_s:
                return
            self.is_measured = True
        self.bandwidth = min(max(samples[0][1], MIN_RATE), MAX_RATE)

    @property
    def _round_s(self) -> float:
        """Long enough for a change of rate to come back, and for a sample that jitter does not spoil."""
        return max(self._last_rtt_s, self._path.rtt.min_s + self._jitter_s * JITTER_SHARE, MIN_SAMPLE_S)

    @property
    def _is_confirmed(self) -> bool:
        """The bandwidth has been seen: it is not a guess, or what was true some time ago."""
        return self.is_measured and self.phase is not _STARTUP

    @property
    def _is_too_fast(self) -> bool:
        """A guess need not wait for the end of the round to be seen to be wrong."""
        total = self._delivered_count + self._lost_count
        lost = self._lost_count - self._path.reordering
        return self._queue_s > self._queue_threshold_s or (total >= MIN_LOSS_COUNT and lost > STARTUP_LOSS * total)

    @property
    def _queue_s(self) -> float:
        """What even the fastest of the latest round trips had to wait."""
        recent = self._recent_rtts
        return min(recent) - self._path.rtt.min_s if len(recent) == RECENT else 0.0

    @property
    def _queue_threshold_s(self) -> float:
        return max(self._path.rtt.min_s * QUEUE_SHARE, MIN_QUEUE_S, self._jitter_s * 2)

    # Rounds and phases

    def _end_round(self, now: float, in_flight_bytes: int) -> None:
        queue_s = self._queue_s
        has_queue = queue_s > self._queue_threshold_s
        total = self._delivered_count + self._lost_count
        excess = 0.0
        if total >= MIN_LOSS_COUNT:
            noise = 2 * math.sqrt((self.base_loss + 1 / total) / total)
            excess = self._lost_count / total - self.base_loss - noise
            if not has_queue and self._is_confirmed and self.phase in (_CRUISE, _DOWN):
                self._count_base(self._delivered_count, self._lost_count)
            self._delivered_count = self._lost_count = 0
        # A sender that was held up itself (no data, no CPU, the window) learns nothing of the path.
        paced = self.pacer.rate * (now - self._round_began_at)
        is_busy = self.idle_at < now - self._last_rtt_s and self._round_sent > BUSY * paced
        self._step(now, has_queue, excess, is_busy, in_flight_bytes)
        self._round += 1
        self._round_ends_at = now + self._round_s
        self._round_sent = 0
        self._round_began_at = now

    def _step(self, now: float, has_queue: bool, excess: float, is_busy: bool, in_flight_bytes: int) -> None:
        rounds = self._round - self._phase_round
        phase = self.phase
        self._lossy_rounds = self._lossy_rounds + 1 if excess > EXCESS_LOSS else 0
        is_congested = (has_queue and excess > EXCESS_LOSS) or self._lossy_rounds >= LOSSY_ROUNDS
        if not self._is_confirmed and excess > STARTUP_LOSS:
            is_congested = True
        if phase is _STARTUP:
            if self._is_too_fast:
                self.is_measured = True
                self.congested_at = now
                self._enter(_DRAIN)
                return
            if not is_busy:
                return
            if self.bandwidth >= self._plateau_bandwidth * GROWTH:
                self._plateau_bandwidth = self.bandwidth
                self._plateau = 0
            else:
                self._plateau += 1
            if self._plateau >= PLATEAU_ROUNDS:
                self.is_measured = True
                self._enter(_DRAIN)
        elif phase is _DRAIN:
            if not has_queue or rounds >= 3:
                self._enter(_CRUISE)
        elif phase is _DOWN:
            if not has_queue or rounds >= 2:
                self._enter(_CRUISE)
        elif phase is _UP:
            if is_congested:
                self._back_off(excess, now)
            if has_queue or self.bandwidth < self._plateau_bandwidth * UP_GROWTH or not is_busy:
                self._enter(_DOWN)
            else:
                self._plateau_bandwidth = self.bandwidth  # it still grows: go on
        elif is_congested:
            self._back_off(excess, now)
            self._enter(_DOWN)
        elif rounds >= CRUISE_ROUNDS and is_busy:
            self._plateau_bandwidth = self.bandwidth
            self._enter(_UP)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._phase_round = self._round

    def _back_off(self, excess: float, now: float) -> None:
        self._lossy_rounds = 0
        self.congested_at = now
        self.bandwidth = max(min(self.bandwidth * min(BACKOFF, 1 - excess), self._latest), MIN_RATE)
        self.is_measured = True
        self._samples.clear()
        self._samples.append((self._round, self.bandwidth))

    def on_silence(self, in_flight_bytes: int, now: float) -> None:
        """A whole flight went unanswered: send at half the rate (RFC 5348 4.4), and find the path's anew."""
        if in_flight_bytes > INITIAL_BURST_BYTES and now - self._heard_at > 2 * self._path.rtt.timeout_s:
            self._heard_at = now
            self.bandwidth = max(self.bandwidth * self.phase.value / (2 * STARTUP_GAIN), MIN_RATE)
            self._samples.clear()
            self._history.clear()
            self._plateau_bandwidth = self._plateau = 0
            self._enter(_STARTUP)
            self._apply(now)

    def _apply(self, now: float) -> None:
        gain = self.phase.value
        if self.phase is _CRUISE and self._queue_s > self._queue_threshold_s:
            gain = CROWDED_GAIN
        self.pacer.set_rate(self._limited(self.bandwidth * gain), now)
        self._set_window()

    def _set_window(self) -> None:
        rtt = self._path.rtt
        rtt_s = rtt.min_s if rtt.min_s < _NEVER else rtt.smoothed_s or 0.0
        slack = min(REPORT_BYTES + self.bandwidth * REPORT_S, MAX_REPORT_BYTES)
        self.window_bytes = self.bandwidth * max(rtt_s + OWN_QUEUE_S, rtt_s * WINDOW_GAIN) + slack
        if not self.is_measured:  # enough for the memory to be right, not more
            self.window_bytes = max(self.bandwidth * rtt_s + slack, INITIAL_WINDOW)

    def _limited(self, rate: float) -> float:
        return max(min(rate, self.cap or MAX_RATE, MAX_RATE), MIN_RATE if self.cap is None else min(MIN_RATE, self.cap))

    @property
    def _is_held_by_cap(self) -> bool:
        """What arrives is what the cap lets through: the path may carry more."""
        return self.cap is not None and self.bandwidth > NEAR_CAP * self.cap

    @property
    def learned_rate(self) -> float | None:
        """What to remember; None when nothing has ever been measured. In STARTUP puts ended before the link's rate was seen."""
        known = self._remembered
        if not self.is_measured or self.phase is _STARTUP:
            return known
        if self._is_held_by_cap:
            return known and max(known, self._limited(self.bandwidth))
        return self.bandwidth

    @property
    def learned_floor(self) -> float | None:
        """What to remember beside it: the path carries so much, and nobody knows whether it would carry more."""
        if self.phase is _STARTUP:
            return self._samples[0][1] if self._samples else self._floor
        if self._remembered is not None or not self._is_held_by_cap:
            return None
        return max(self._floor or 0.0, self._limited(self.bandwidth)) if self.is_measured else self._floor


def _burst(cap: float | None) -> float:
    """Under a hard cap a burst is at most 20 ms of it, but two datagrams in any case."""
    return INITIAL_BURST_BYTES if cap is None else min(INITIAL_BURST_BYTES, max(cap * 0.02, 3000.0))
