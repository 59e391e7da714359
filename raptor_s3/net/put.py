"""One call of the engine, from its transfer to what its caller is told.

Invariant: whoever waits for a put is told once.
"""

from __future__ import annotations

from binascii import b2a_base64
from os import urandom
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import RaptorError, TransferCancelled
from raptor_s3.net import clock
from raptor_s3.transfer.outcome import Ending, PutOutcome, error_for
from raptor_s3.wire.datagram import MAX_DATAGRAM
from raptor_s3.wire.transfer_state import StateType

if TYPE_CHECKING:
    from concurrent.futures import Future

    from raptor_s3.net.channel import Sealer
    from raptor_s3.transfer.outgoing import OutgoingTransfer
    from raptor_s3.transfer.plan import PutRequest
    from raptor_s3.wire.transfer_state import TransferState

_IN_THE_WAY: Final = (409, 412)  # another object, or another write
_BASE64URL: Final = bytes.maketrans(b"+/", b"-_")


def new_transfer_id() -> str:
    """A fresh 128-bit transfer id: 22 base64url letters (docs/wire.md)."""
    return b2a_base64(urandom(16)).translate(_BASE64URL, b"=\n").decode()


class Put:
    """What was called for at `started_at`. `transfer` changes when the object is sent again in smaller datagrams.

    There is none before the put `is_built`: one that goes alone (`transfer.lone`) needs none, but its datagram and two times.
    """

    transfer: OutgoingTransfer
    is_built = False
    datagram: bytes
    sent_at: float
    due: float
    result: PutOutcome | None = None  # of one that went alone
    is_done = False
    error: Exception | None = None
    cause: Exception | None = None  # why it was given up
    sealer: Sealer | None = None
    first_sealer: Sealer | None = None  # what the put began under, once it has gone on under other keys
    is_replacement = False  # of a transfer that was given up, some datagrams of which may have left
    shorter = False  # begin again with smaller datagrams, as soon as the receiver has acknowledged the cancel
    max_datagram = MAX_DATAGRAM  # of those
    is_trial = False  # whether they arrive where longer ones don't is to be seen
    is_heard = False  # the receiver has spoken of it
    silent_since = float("inf")  # when it was first asked again in vain
    wake: Any = None  # the lock on which a follower sleeps
    future: Future[PutOutcome] | None = None

    def __init__(self, request: PutRequest, started_at: float) -> None:
        self.request = request
        self.started_at = started_at

    def build(self, transfer: OutgoingTransfer) -> None:
        self.transfer = transfer
        self.is_built = True

    @property
    def has_sent(self) -> bool:
        return self.transfer.has_started or self.is_replacement

    def believes(self, state: TransferState, is_under_first: bool) -> bool:
        """Whether this refusal is final, once the put has gone on under other keys than it began under.

        A receiver that has restarted knows nothing of what it wrote before: neither that, nor that it was what is in the way.
        Sessions don't outlive it, so who still has the first keys was there all the time.
        """
        if is_under_first:
            return True
        if state.type is StateType.FAILED:
            return (state.fields or {}).get("StatusCode") not in _IN_THE_WAY
        return state.type is not StateType.CANCELLED

    def wake_up(self) -> None:
        """Let the follower that waits for this put look again."""
        wake = self.wake
        if wake is not None and wake.locked():
            wake.release()

    def outcome(self, now: float) -> PutOutcome:
        """What the caller is told. Raises the put's error."""
        if self.error is not None:
            raise self.error
        result = self.result or PutOutcome(self.transfer.answer or {}, self.transfer.stats)
        result.stats.elapsed_s = now - self.started_at
        return result

    def error_at_end(self) -> Exception | None:
        """What the caller is told when the transfer has ended; None: it is confirmed."""
        outcome, cause = self.transfer.outcome, self.cause
        if outcome is Ending.CONFIRMED:
            return None
        error: Exception
        if cause is not None and (outcome is Ending.NOTHING_SENT or not self.has_sent):
            if isinstance(cause, RaptorError):
                return cause
            error = TransferCancelled(f"{cause!r}; nothing was sent")
        else:
            error = error_for(outcome or Ending.TIMED_OUT, self.transfer.answer, self.transfer.request.timeout_s)
        error.__cause__ = cause
        return error

    def resolve_future(self) -> None:
        future, self.future = self.future, None  # no circle: body and transfer go with the caller's last reference
        if future is None:
            return
        try:
            outcome = self.outcome(clock.now())
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(outcome)
