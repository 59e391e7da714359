"""What became of one put: a final state and the JSON that goes with it (docs/wire.md).

    COMPLETE             it is in S3                           PutObject's response fields
    FAILED, S3's word    S3 said no                            S3's Code, Message, StatusCode
    FAILED, our own      the receiver said no                  Message begins with `gateway: ` or `backend: `
    CANCELLED            nothing was and nothing will be written

A sender takes our own refusals to HTTPS (routing.fast_path); S3's word it gives to the caller.

Invariant: CANCELLED is said only where no attempt can have written; a Message fits, with its transfer id, into a datagram.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from raptor_s3.wire.transfer_state import StateType, TransferState

if TYPE_CHECKING:
    from collections.abc import Mapping

Receiver: TypeAlias = Literal["gateway", "backend"]
"""Who speaks."""

MAX_MESSAGE: Final = 400
"""Octets of a message that travel."""


class Outcome(NamedTuple):
    """A final state, without its object id; `fields` is its JSON."""

    type: StateType
    fields: Mapping[str, Any] | None = None

    @classmethod
    def failed(cls, code: str, message: str, status: int) -> Outcome:
        """S3's word."""
        message = message.encode(errors="replace")[:MAX_MESSAGE].decode(errors="ignore")
        return cls(StateType.FAILED, {"Code": code, "Message": message, "StatusCode": status})

    @classmethod
    def refused(cls, receiver: Receiver, code: str, message: str, status: int) -> Outcome:
        """Our own word."""
        return cls.failed(code, f"{receiver}: {message}", status)

    def state(self, object_id: str) -> TransferState:
        return TransferState(self.type, object_id, fields=self.fields)


CANCELLED: Final = Outcome(StateType.CANCELLED)


def given_up(receiver: Receiver, *, may_have_written: bool) -> Outcome:
    """No attempt will follow: the time to live has passed, or the sender has cancelled."""
    if not may_have_written:
        return CANCELLED
    return Outcome.refused(receiver, "RequestExpired", "no time is left, and an attempt without an answer may have written", 400)
