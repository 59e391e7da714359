"""Logging that a flood of events can't flood: of each kind of line, which is its template, one in a while.

Invariant: an outage costs one line of a kind every OUTAGE_INTERVAL_S, however much it spoils; what is left out is counted, and
said with the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S: Final = 1.0
OUTAGE_INTERVAL_S: Final = 10.0
"""Of warnings and errors."""
MAX_KINDS: Final = 1000
MAX_LINE: Final = 500
"""Of warnings and errors: they quote what others have said."""
ROUTINE: Final[dict[str, Any]] = {"is_routine": True}
"""For `extra`: a line that comes as often as it was asked for."""


class Throttle(logging.Filter):
    """For a handler. Below `least` every record passes."""

    def __init__(self, least: int = logging.NOTSET, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._least = least
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}  # until when one is left out, and how many were

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < self._least or getattr(record, "is_routine", False):
            return True
        is_trouble = record.levelno >= logging.WARNING
        unsaid = self._left_out((record.name, str(record.msg)), OUTAGE_INTERVAL_S if is_trouble else INTERVAL_S)
        if unsaid is None:
            return False
        line = record.getMessage()
        if is_trouble:
            line = " ".join(line.split())[:MAX_LINE]
        record.msg, record.args = line + (f" (and {unsaid} like it)" if unsaid else ""), None
        return True

    def _left_out(self, kind: tuple[str, str], interval_s: float) -> int | None:
        """None: this one is left out too. Else how many were since the last that was not."""
        now = self._clock()
        with self._lock:
            quiet_until, count = self._kinds.get(kind, (0.0, 0))
            if now < quiet_until:
                self._kinds[kind] = quiet_until, count + 1
                return None
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            self._kinds[kind] = now + interval_s, 0
            return count
