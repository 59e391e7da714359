"""The outcome of a put that nobody waits for yet."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from raptor_s3.transfer.outcome import PutOutcome

if TYPE_CHECKING:
    from collections.abc import Callable


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
