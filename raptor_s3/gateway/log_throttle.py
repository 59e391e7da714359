"""Logging that a flood of events can't flood: of each message, by its template, one a second.

Invariant: what is left out is counted, and said with the next one.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S: Final = 1.0
MAX_TEMPLATES: Final = 1000


class Throttle(logging.Filter):
    """For a handler."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._left_out: dict[tuple[str, str], tuple[float, int]] = {}  # until when, and how many so far

    def filter(self, record: logging.LogRecord) -> bool:
        now, key = self._clock(), (record.name, str(record.msg))
        quiet_until, count = self._left_out.get(key, (0.0, 0))
        if now < quiet_until:
            self._left_out[key] = quiet_until, count + 1
            return False
        if len(self._left_out) >= MAX_TEMPLATES:
            self._left_out.clear()
        self._left_out[key] = now + INTERVAL_S, 0
        if count:
            record.msg, record.args = f"{record.getMessage()} (and {count} like it)", None
        return True
