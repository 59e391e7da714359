"""How many datagrams get lost on the way to the receiver, and how many to send so that enough arrive.

The estimate is a decaying ratio of counts, seeded with a little caution, bounded, and kept per endpoint between processes.

Invariant: 0 < `rate` <= MAX_LOSS.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

MAX_LOSS: Final = 0.3
"""More repair than this makes would be an attack on the path, not a cure."""
PRIOR_LOSS: Final = 0.01
PRIOR_WEIGHT: Final = 100.0
MEMORY: Final = 2000.0
"""Datagrams after which what was seen counts half."""
MIN_LOSS: Final = 0.0005

TARGET: Final = 0.985
"""Probability that a first flight suffices."""
_EXACT_UP_TO: Final = 64
_NORMAL_QUANTILE: Final = 2.2
_STEPS: Final = 400.0


class LossEstimate:
    """Share of datagrams that do not arrive, from counts of those that should have and those that did."""

    __slots__ = ("_lost", "_seen")

    def __init__(self, rate: float = PRIOR_LOSS, weight: float = PRIOR_WEIGHT) -> None:
        self._seen = weight
        self._lost = min(max(rate, 0.0), MAX_LOSS) * weight

    def count(self, sent: int, received: int) -> None:
        """`received` of `sent` datagrams arrived. Where order is not kept, late ones may make either number negative."""
        seen, lost = self._seen, self._lost
        if seen > MEMORY:
            seen /= 2
            lost /= 2
        seen += sent
        lost += sent - received
        self._seen = seen if seen > 1.0 else 1.0
        self._lost = lost if lost > 0.0 else 0.0

    @property
    def rate(self) -> float:
        rate = self._lost / self._seen
        if rate < MIN_LOSS:
            return MIN_LOSS
        return rate if rate < MAX_LOSS else MAX_LOSS


def flight_size(needed: int, loss: float, overhead: float | None = None) -> int:
    """How many datagrams to send so that `needed` arrive with probability TARGET, when each is lost with probability `loss`.

    A fixed `overhead` (a fraction) takes the place of the estimate.

    >>> flight_size(1, 0.001), flight_size(1, 0.05), flight_size(16, 0.05), flight_size(1024, 0.05)
    (1, 2, 19, 1095)
    """
    if needed <= 0:
        return 0
    if overhead is not None:
        return needed + math.ceil(needed * overhead)
    if not 0.0 <= loss <= MAX_LOSS:
        loss = min(max(loss, 0.0), MAX_LOSS)
    steps = int(loss * _STEPS + 0.5)
    return _exact(needed, steps) if needed <= _EXACT_UP_TO else _approximate(needed, steps)


@lru_cache(maxsize=1024)
def _exact(needed: int, steps: int) -> int:
    loss = steps / _STEPS
    total = needed
    while True:
        arrives = sum(math.comb(total, lost) * loss**lost * (1 - loss) ** (total - lost) for lost in range(total - needed + 1))
        if arrives >= TARGET:
            return total
        total += 1


@lru_cache(maxsize=1024)
def _approximate(needed: int, steps: int) -> int:
    """Smallest n with n(1-p) - z sqrt(n p (1-p)) >= needed, from the quadratic in sqrt(n)."""
    loss = steps / _STEPS
    if loss == 0.0:
        return needed
    spread = _NORMAL_QUANTILE * math.sqrt(loss * (1 - loss))
    root = (spread + math.sqrt(spread * spread + 4 * (1 - loss) * needed)) / (2 * (1 - loss))
    return math.ceil(root * root)


SINGLE_BELOW: Final = (next(steps for steps in range(1, 1000) if _exact(1, steps) > 1) - 0.5) / _STEPS
"""Loss below which `flight_size(1, loss)` is 1."""
