"""What one direction of a link does to a packet: queue, serialiser, loss, delay.

    arrival -> drop-tail queue (`queue_s` deep) -> serialiser (`rate_mbps`) -> loss -> delay and jitter -> delivery

Pure arithmetic over the times it is given; the router (`benchmarks.link.router`) brings packets and a clock.

Invariants: all randomness comes from the seed, so the n-th packet of a direction always meets the same random fate and the same
jitter, whichever tool sent it; burst loss is a function of the time since the first packet, because a chain that advances by
packets would trap a sparse sender in one burst for minutes. A lost packet has still used the link.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any


@dataclass(frozen=True, slots=True)
class Conditions:
    """The link as a benchmark names it; both directions are alike.

    `loss` is the mean fraction lost in each direction. With `mean_burst_s` the losses come in bursts of that mean duration
    (Gilbert-Elliott), else each packet is lost on its own. Each packet is delayed by half of `rtt_s` plus up to `jitter_s`
    (uniform); packets keep their order, as on most real links, unless `reorder`. `rate_mbps` counts whole IP packets.
    """

    rtt_s: float = 0.150
    rate_mbps: float = 20.0
    queue_s: float = 0.100
    loss: float = 0.0
    mean_burst_s: float = 0.0
    jitter_s: float = 0.0
    reorder: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1:
            raise ValueError(f"loss is a fraction of the packets, from 0 to below 1, not {self.loss}")
        if self.rate_mbps <= 0 or min(self.rtt_s, self.queue_s, self.mean_burst_s, self.jitter_s) < 0:
            raise ValueError(f"a link has a positive rate and no negative times: {self}")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{self.rtt_s * 1000:g} ms", f"{self.rate_mbps:g} Mbit/s", f"{self.loss:.0%} loss"]
        if self.mean_burst_s and self.loss:
            parts.append(f"in bursts of {self.mean_burst_s * 1000:g} ms")
        if self.jitter_s:
            parts.append(f"{self.jitter_s * 1000:g} ms jitter" + (", reordering" if self.reorder else ""))
        return ", ".join(parts)


class RandomLoss:
    """Each packet is lost with the same probability, whatever happened to the others."""

    def __init__(self, loss: float, random: Random) -> None:
        self._loss = loss
        self._random = random.random

    def is_lost(self, now: float) -> bool:
        """The fate of the next packet; `now` plays no part."""
        return self._random() < self._loss


class BurstLoss:
    """Gilbert-Elliott in continuous time: nothing passes in the bad state, everything in the good one.

    Both states last exponentially distributed times, the bad one `mean_burst_s` and the good one as much longer as makes `loss`
    the mean. The chain starts with the first packet, in its stationary distribution. `is_lost` must be asked in order of time.
    """

    def __init__(self, loss: float, mean_burst_s: float, random: Random) -> None:
        self._random = random
        self._bad_rate = 1 / mean_burst_s
        self._good_rate = loss / ((1 - loss) * mean_burst_s)
        self._is_bad = random.random() < loss
        self._until: float | None = None

    def is_lost(self, now: float) -> bool:
        """Whether the link is in its bad state at `now` (seconds)."""
        until = now + self._duration() if self._until is None else self._until
        while now >= until:
            self._is_bad = not self._is_bad
            until += self._duration()
        self._until = until
        return self._is_bad

    def _duration(self) -> float:
        return self._random.expovariate(self._bad_rate if self._is_bad else self._good_rate)


@dataclass(slots=True)
class DirectionStats:
    """Counters of one direction since the last `set`; `largest_bytes` must never pass the MTU, or offloads are on."""

    packets: int = 0
    bytes: int = 0
    queue_drops: int = 0
    lost: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    largest_bytes: int = 0
    max_queue_s: float = 0.0


@dataclass(slots=True)
class Direction:
    """One direction of the link as a function of arrival times and sizes."""

    conditions: Conditions
    seed: str
    stats: DirectionStats = field(default_factory=DirectionStats)
    _busy_until: float = 0.0
    _last_due: float = 0.0
    _seconds_per_byte: float = field(init=False)
    _loss: RandomLoss | BurstLoss = field(init=False)
    _jitter: Random = field(init=False)

    def __post_init__(self) -> None:
        conditions = self.conditions
        self._seconds_per_byte = 8 / (conditions.rate_mbps * 1e6)
        random = Random(f"{self.seed}/loss")
        if conditions.loss and conditions.mean_burst_s:
            self._loss = BurstLoss(conditions.loss, conditions.mean_burst_s, random)
        else:
            self._loss = RandomLoss(conditions.loss, random)
        self._jitter = Random(f"{self.seed}/jitter")

    def admit(self, now: float, size: int) -> float | None:
        """When a packet of `size` bytes that arrives at `now` (seconds, not decreasing) is delivered; None if it never is."""
        stats, conditions = self.stats, self.conditions
        stats.packets += 1
        stats.bytes += size
        if size > stats.largest_bytes:
            stats.largest_bytes = size
        waiting = max(0.0, self._busy_until - now)
        departure = now + waiting + size * self._seconds_per_byte
        # Both draws come before any drop, so that the n-th arrival has the same fate in every run.
        is_lost = self._loss.is_lost(departure)
        jitter = conditions.jitter_s * self._jitter.random() if conditions.jitter_s else 0.0
        if waiting > conditions.queue_s:
            stats.queue_drops += 1
            return None
        if waiting > stats.max_queue_s:
            stats.max_queue_s = waiting
        self._busy_until = departure
        if is_lost:
            stats.lost += 1
            return None
        due = departure + conditions.rtt_s / 2 + jitter
        if not conditions.reorder:
            due = max(due, self._last_due)
            self._last_due = due
        stats.delivered += 1
        stats.delivered_bytes += size
        return due
