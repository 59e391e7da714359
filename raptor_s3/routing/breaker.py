"""Circuit breaker: after a failure, the next puts to that endpoint don't wait for the same failure again.

Closed: puts go. Open: puts are declined until `open_until`, twice as long after each further failure. When that time
has come, one put tries (and holds the others back for as long as it may take); its success closes the breaker, its
failure opens it for longer.

The state is shared by all processes of a user through a `Store`; each process looks again at most once a second, so a
put costs no system call. What fails within that second of a failure couldn't know of it, whichever process it is in, and is
no further one.

Invariant: a store that fails or holds nonsense means a breaker of this process alone, never an exception.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from raptor_s3.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger("raptor_s3.breaker")

FIRST_COOLDOWN_S: Final = 10.0
LONGEST_COOLDOWN_S: Final = 600.0
_REFRESH_S: Final = 1.0
_MAX_REASON: Final = 300
_PROBING: Final = "a put is trying again after: "


@dataclass(frozen=True, slots=True)
class BreakerState:
    """`failures` in a row, the last of them at `opened_at`; times are unix time, since processes share them."""

    failures: int = 0
    open_until: float = 0.0
    reason: str = ""
    opened_at: float = 0.0  # 0: an older version's record

    def is_open(self, now: float) -> bool:
        # A clock that was set back must not keep the endpoint closed off for years.
        return now < self.open_until <= now + LONGEST_COOLDOWN_S + 60

    def covers(self, started_at: float, now: float) -> bool:
        """Whether a put of then began before all could know of the last failure; never by a time in the future or nonsense."""
        return self.failures > 0 and self.opened_at <= now and started_at < self.opened_at + _REFRESH_S

    @property
    def is_probing(self) -> bool:
        """Whether it is open because one put is trying again."""
        return self.reason.startswith(_PROBING)

    @property
    def cause(self) -> str:
        """The last failure."""
        return self.reason.removeprefix(_PROBING)

    @property
    def failed_at(self) -> float | None:
        """When that was, in unix time; None where it isn't known any more."""
        return None if self.is_probing or not self.failures else self.open_until - _cooldown_s(self.failures)


CLOSED: Final = BreakerState()


class Store(Protocol):
    """Where the state of one endpoint is kept."""

    def load(self) -> Mapping[str, Any]: ...

    def update(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Replace the stored mapping by `change` of it."""


class Breaker:
    """One endpoint's breaker. Thread-safe."""

    def __init__(self, store: Store | None, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._state = CLOSED
        self._looked_at = -_REFRESH_S
        self._succeeded_at = 0.0

    @property
    def state(self) -> BreakerState:
        self._refresh(self._clock())
        return self._state

    def is_open(self) -> bool:
        """Whether puts are being declined, as this process knows it."""
        now = self._clock()
        if abs(now - self._looked_at) >= _REFRESH_S:  # a look in the future is from before the clock was set back
            self._refresh(now)
        return self._state.is_open(now)

    def admit(self, probe_s: float) -> str:
        """Empty when a put may try now, else why not.

        The put that an expired breaker lets through keeps others out for `probe_s` seconds.
        """
        now = self._clock()
        if abs(now - self._looked_at) >= _REFRESH_S:
            self._refresh(now)
        state = self._state
        if state.failures == 0:
            return ""
        with self._lock:
            state = self._state
            if state.is_open(now):
                return f"circuit breaker open for {state.open_until - now:.0f} s more: {state.reason}"
            claimed = False

            def claim(stored: BreakerState) -> BreakerState:
                nonlocal claimed
                if stored.is_open(now):
                    return stored
                claimed = True
                return BreakerState(stored.failures, now + probe_s, _PROBING + stored.cause, stored.opened_at)

            self._change(claim)
            return "" if claimed else f"circuit breaker: {self._state.reason}"

    def ended(self, failure: str, started_at: float) -> None:
        """A put ended: with this failure of the endpoint, or (empty) in a way that shows that it works."""
        if failure:
            self.failed(failure, started_at)
        else:
            self.succeeded()

    def failed(self, reason: str, started_at: float) -> None:
        """A put that began at `started_at` (unix time) failed.

        It doesn't count if it was under way at the last failure, in whichever process that was, nor if another of this process
        has succeeded since it began: then the endpoint is there, and it was this put that had bad luck.
        """
        now = self._clock()
        if started_at <= self._succeeded_at <= now:  # a later one is from before the clock was set back
            logger.info("a put failed while others went through: %s", reason)
            return
        counts = False

        def open_again(stored: BreakerState) -> BreakerState:
            nonlocal counts, now
            now = self._clock()  # others may have failed until `stored` was read
            counts = not stored.covers(started_at, now)
            if not counts:
                return stored
            failures = stored.failures + 1
            return BreakerState(failures, now + _cooldown_s(failures), reason[:_MAX_REASON], now)

        with self._lock:
            if self._state.covers(started_at, self._clock()):
                return
            self._change(open_again)
        if counts:
            logger.warning("fast path off for %.0f s: %s", self._state.open_until - now, reason)

    def succeeded(self) -> None:
        """A put was confirmed."""
        now = self._succeeded_at = self._clock()
        if abs(now - self._looked_at) >= _REFRESH_S:  # who didn't ask to be admitted may not know of others' failures
            self._refresh(now)
        if self._state.failures == 0:
            return
        with self._lock:
            self._change(lambda stored: CLOSED)
        logger.info("fast path on again")

    def _refresh(self, now: float) -> None:
        self._looked_at = now
        if self._store is not None:
            try:
                self._state = _parse(self._store.load())
            except (OSError, ConfigError) as error:
                logger.debug("breaker state: %s", error)

    def _change(self, change: Callable[[BreakerState], BreakerState]) -> None:
        if self._store is None:
            self._state = change(self._state)
            return

        def apply(stored: Mapping[str, Any]) -> Mapping[str, Any]:
            self._state = change(_parse(stored))
            return asdict(self._state)

        try:
            self._store.update(apply)
        except (OSError, ConfigError) as error:
            logger.debug("breaker state: %s", error)
            self._state = change(self._state)

    def after_fork(self) -> None:
        """In the child: the lock may have been held by a thread that is not here."""
        self._lock = threading.Lock()


def _cooldown_s(failures: int) -> float:
    return float(min(FIRST_COOLDOWN_S * 2 ** min(failures - 1, 16), LONGEST_COOLDOWN_S))


def _parse(stored: Mapping[str, Any]) -> BreakerState:
    try:
        failures, until = int(stored.get("failures", 0)), float(stored.get("open_until", 0.0))
        return BreakerState(max(failures, 0), until, str(stored.get("reason", "")), float(stored.get("opened_at", 0.0)))
    except (AttributeError, OverflowError, TypeError, ValueError):
        return CLOSED
