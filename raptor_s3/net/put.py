"""One call of the engine, from its transfer to what its caller is told.

Invariant: whoever waits for a put is told once.
"""

from __future__ import annotations

import os
from binascii import b2a_base64
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.net import clock
from raptor_s3.transfer.outcome import PutOutcome

if TYPE_CHECKING:
    from concurrent.futures import Future

    from raptor_s3.net.channel import Sealer
    from raptor_s3.transfer.outgoing import OutgoingTransfer

_BASE64URL: Final = bytes.maketrans(b"+/", b"-_")


def new_transfer_id() -> str:
    """A fresh 128-bit transfer id: 22 base64url letters (DESIGN 3.2)."""
    return b2a_base64(os.urandom(16))[:22].translate(_BASE64URL).decode()


class Put:
    """`transfer` changes when the object is sent again in smaller datagrams."""

    __slots__ = ("cause", "error", "future", "is_done", "is_replacement", "sealer", "shorter", "transfer", "wake", "was_moved")

    def __init__(self, transfer: OutgoingTransfer) -> None:
        self.transfer = transfer
        self.is_done = False
        self.error: Exception | None = None
        self.cause: Exception | None = None  # why it was given up
        self.sealer: Sealer | None = None
        self.is_replacement = False  # of a transfer that was given up, some datagrams of which may have left
        self.shorter = False  # begin again with smaller datagrams, as soon as the receiver has acknowledged the cancel
        self.was_moved = False  # to new keys, because nothing was answered under the old ones
        self.wake: Any = None  # the lock on which a follower sleeps
        self.future: tuple[Future[PutOutcome], float] | None = None  # and when it was asked for

    @property
    def has_sent(self) -> bool:
        return self.transfer.has_started or self.is_replacement

    def wake_up(self) -> None:
        """Let the follower that waits for this put look again."""
        wake, self.wake = self.wake, None
        if wake is not None:
            wake.release()

    def outcome(self, elapsed_s: float) -> PutOutcome:
        """What the caller is told. Raises the put's error."""
        if self.error is not None:
            raise self.error
        stats = self.transfer.stats
        stats.elapsed_s = elapsed_s
        return PutOutcome(self.transfer.answer or {}, stats)

    def resolve_future(self) -> None:
        if self.future is None:
            return
        future, started_at = self.future
        try:
            outcome = self.outcome(clock.now() - started_at)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(outcome)
