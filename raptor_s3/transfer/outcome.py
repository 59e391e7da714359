"""How a put ended, and what it took. Values only.

Invariant: an outcome other than NOTHING_SENT, once given, is final; no symbol leaves after it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from raptor_s3.errors import ConfirmationTimeout, TransferCancelled, TransferRejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptor_s3.errors import TransferError


class Confirm(enum.Enum):
    """What a put waits for."""

    NONE = "none"
    """The first flight has left. Nobody knows what came of it."""
    PACKETS = "packets"
    """The receiver has enough symbols of every block."""
    BLOCK = "block"
    """The receiver has decoded every block."""
    FILE = "file"
    """The object is in S3 (transfer state 3)."""


class Ending(enum.Enum):
    CONFIRMED = enum.auto()
    REJECTED = enum.auto()
    CANCELLED = enum.auto()
    TIMED_OUT = enum.auto()
    NOTHING_SENT = enum.auto()
    """Timed out before the first datagram left."""


@dataclass(init=False)  # most puts keep most of the defaults
class TransferStats:
    """What one put took. Times in seconds."""

    datagrams_sent: int = 0
    """Symbols and cancels that left, first flight and repair."""
    source_symbols: int = 0
    repair_symbols: int = 0
    resent: int = 0
    """Of them, those sent after the first flight: in answer to silence, or to a report that symbols are missing."""
    timeouts: int = 0
    rtt_s: float | None = None
    """From the datagram that completed the object to its confirmation, where that is known."""
    elapsed_s: float = 0.0
    handshake: bool = False
    """The put had to wait for a WireGuard handshake."""
    lost_estimate: int = 0
    """Datagrams that the receiver is known to have missed."""


class PutOutcome(NamedTuple):
    """A put that ended well. `fields`: the JSON of state 3 (PutObject's response), empty with a weaker `confirm`."""

    fields: Mapping[str, Any]
    stats: TransferStats


def error_for(ending: Ending, fields: Mapping[str, Any] | None, waited_s: float) -> TransferError:
    """The exception that stands for an ending other than CONFIRMED."""
    if ending is Ending.REJECTED:
        answer = fields or {}
        code, message, status = answer.get("Code"), answer.get("Message"), answer.get("StatusCode")
        return TransferRejected(
            code if isinstance(code, str) else "InternalError",
            message if isinstance(message, str) else "the receiver gave no reason",
            status if isinstance(status, int) else 500,
        )
    if ending is Ending.CANCELLED:
        return TransferCancelled("the receiver acknowledged the cancel: nothing was and nothing will be written")
    if ending is Ending.NOTHING_SENT:
        return ConfirmationTimeout(f"nothing was sent: its turn did not come within {waited_s:.3g} s, or the path is too slow")
    return ConfirmationTimeout(f"no final state within {waited_s:.3g} s")
