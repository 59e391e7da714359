"""The outcome of a put that nobody waits for yet, and the thread that tells it: callbacks may do anything.

Invariant: whatever a callback does, the next future is resolved; and only in the process where its put was.
"""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from raptor_s3.transfer.outcome import PutOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.net.put import Put

_log = logging.getLogger(__name__)


class PutFuture(Future[PutOutcome]):
    """`give_up` asks for an end of the put; False: it has ended already."""

    def __init__(self, give_up: Callable[[], bool]) -> None:
        super().__init__()
        self._give_up = give_up
        self.set_running_or_notify_cancel()

    def cancel(self) -> bool:
        """Ask for an end, as asyncio.Task.cancel does. False: the put has ended already.

        A write can't be taken back, so the future is done only when the receiver has acknowledged (TransferCancelled), when
        the object turns out to be there, or when the time is up. It is never `cancelled()`.
        """
        return not self.done() and self._give_up()


class FutureResolver:
    """Resolves the futures of puts that have `ended`, in one thread, one after the other."""

    def __init__(self) -> None:
        self.ended: queue.SimpleQueue[Put] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_parents = False

    def start(self) -> None:
        """Before anything gets into `ended`. Raises RuntimeError where there is no thread to be had."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="raptor-s3-futures", daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while not self._is_parents:
            put = self.ended.get()
            if self._thread is not threading.current_thread():  # `start` was interrupted, and called again
                self.ended.put(put)
                return
            try:
                put.resolve_future()
            except BaseException:  # of a callback; a sys.exit() there must not leave others waiting
                _log.exception("a callback of a future has raised")

    def after_fork(self) -> None:
        """In the child: what has ended is the parent's to tell. A callback that has forked may return here."""
        self._is_parents = True
