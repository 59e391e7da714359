"""A bounded pool of threads for blocking AWS calls, and the queue that brings their results back to the loop.

Invariant: at most `limit` jobs wait; one more is refused, never queued. Results run in the loop's thread, in `Completions.run`.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)


class Completions:
    """What worker threads hand to the loop. `wake` must interrupt the loop's wait and may be called from any thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._is_woken = False

    def put(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        if not self._is_woken:
            self._is_woken = True
            self._wake()

    def run(self) -> int:
        """Run what has come in, in the caller's thread; how many calls that were."""
        self._is_woken = False  # before the first look: a call put from here on wakes the loop again
        calls = self._calls
        count = 0
        while calls:
            calls.popleft()()
            count += 1
        return count


class WorkerPool:
    """`threads` daemon threads over one queue of at most `limit` jobs.

    Daemon threads: a call that hangs in S3 must not keep a drained gateway from exiting.
    """

    def __init__(self, name: str, *, threads: int, limit: int) -> None:
        self._limit = limit
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._changed = threading.Condition()
        self._busy = 0
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], None]) -> bool:
        """Queue `job`; False when the queue is full or closed."""
        with self._changed:
            if self._closed or len(self._jobs) >= self._limit:
                return False
            self._jobs.append(job)
            self._changed.notify()
        return True

    def remove(self, job: Callable[[], None]) -> bool:
        """Take back a job that no thread has begun. False: it has begun, or is done."""
        with self._changed:
            try:
                self._jobs.remove(job)
            except ValueError:
                return False
        return True

    @property
    def load(self) -> int:
        """Jobs waiting and at work."""
        with self._changed:
            return len(self._jobs) + self._busy

    def close(self, timeout_s: float) -> bool:
        """Take no more jobs, finish those at hand. False when some were still at work after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                self._busy += 1
            try:
                job()
            except Exception:
                _log.exception("a job of the gateway failed")
            finally:
                del job  # the next wait must not keep the last body alive
                with self._changed:
                    self._busy -= 1
