"""What the network and AWS may answer at any time: one exception for nonsense, and a log that can still be read.

Invariant: an outage costs one line of a kind every INTERVAL_S, however many calls it spoils.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from raptor_s3.errors import MalformedPacket
from raptor_s3.net import clock

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S: Final = 10.0
_MAX_LINE: Final = 500


def ask(call: Callable[[], Any]) -> Any:
    """What `call` returns. botocore parses answers without much suspicion: what it stumbles over is a MalformedPacket here."""
    try:
        return call()
    except (ClientError, BotoCoreError):
        raise
    except Exception as error:
        raise MalformedPacket(f"AWS answered nonsense: {type(error).__name__}: {error}") from None


class Complaints:
    """The first of a kind is logged at once, then one every INTERVAL_S at most, with the number of those since; in any thread.

    The format is the kind.
    """

    def __init__(self, log: logging.Logger, *, clock: Callable[[], float] = clock.now) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}

    def warning(self, text: str, *args: object) -> None:
        self._say(logging.WARNING, text, args)

    def error(self, text: str, *args: object) -> None:
        self._say(logging.ERROR, text, args)

    def bug(self, text: str, *args: object) -> None:
        """An exception that is our own fault: with its traceback."""
        self._say(logging.ERROR, text, args, has_traceback=True)

    def _say(self, level: int, text: str, args: tuple[object, ...], *, has_traceback: bool = False) -> None:
        now = self._clock()
        with self._lock:
            due_at, unsaid = self._kinds.get(text, (now, 0))
            self._kinds[text] = (due_at, unsaid + 1) if now < due_at else (now + INTERVAL_S, 0)
        if now >= due_at:
            line = " ".join((text % args).split())[:_MAX_LINE]
            since = f" ({unsaid} more since the last such line)" if unsaid else ""
            self._log.log(level, "%s%s", line, since, exc_info=has_traceback)
