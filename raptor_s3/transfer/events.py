"""What a Collector tells its host to do.

    SendState     put this state on the wire, to where the transfer's own datagrams came from
    ObjectReady   write this object; then call Collector.finish() with what came of it
    CancelWrite   the sender gave up: do not begin the write that ObjectReady asked for, if it has not begun

Invariant: for each ObjectReady the host calls `finish` exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptor_s3.wire.transfer_state import TransferState


class TransferKey(NamedTuple):
    """A transfer belongs to the peer that sent it: two peers' object ids never meet."""

    peer_key: bytes
    object_id: str


class SendState(NamedTuple):
    """Send `state` to `origin`, `copies` times.

    `origin` is whatever the host passed to `receive` with the transfer's latest datagram: address, session, both.
    `payload` is the state as it goes on the wire, where it has been built already.
    """

    state: TransferState
    origin: Any
    copies: int = 1
    payload: bytes = b""


class ObjectReady(NamedTuple):
    """A whole object.

    `data` is the object as it was coded. With a put header, `fields` are its parameters and `body` what follows them; without
    one, `fields` is None and `body` is all of `data` (its name is `transfer.object_id`, a relative path).
    `received_at` is when the first datagram came; at or after `expires_at` nothing may be written any more (both on the
    Collector's clock): the host checks it right before the write, and answers CANCELLED when it is too late.
    """

    transfer: TransferKey
    data: bytes | bytearray
    fields: Mapping[str, Any] | None
    body: memoryview
    received_at: float
    expires_at: float
    origin: Any


class CancelWrite(NamedTuple):
    """The sender cancelled `transfer`, whose ObjectReady is not finished yet.

    A host that can still stop the write calls `finish` with CANCELLED, one that can't finishes as if nothing had happened.
    """

    transfer: TransferKey


Event: TypeAlias = SendState | ObjectReady | CancelWrite
