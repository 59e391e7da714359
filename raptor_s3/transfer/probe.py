"""A ping: the cancel of a transfer that never was (docs/wire.md).

Every receiver answers it at once with CANCELLED, decodes nothing and writes nothing, so it measures the way and the session. One
datagram, sent once: what gets lost is to be counted, not repaired. Only when the session turns out to be dead, it is
sent again under the next one.

Invariant: no symbol ever leaves, so there is nothing that could be written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raptor_s3.transfer.outcome import Ending
from raptor_s3.transfer.outgoing import OutgoingTransfer
from raptor_s3.transfer.plan import PutRequest, Run
from raptor_s3.wire.datagram import FLAG_CANCEL, FLAG_PUT_HEADER, FLAG_RFC6330_REPAIR, datagram_prefix, plan_object
from raptor_s3.wire.put_header import crc32_field
from raptor_s3.wire.transfer_state import StateType

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from raptor_s3.transfer.path import PathEstimates
    from raptor_s3.wire.transfer_state import TransferState

_PAYLOAD_ID: Final = bytes(4)
_NEVER: Final = float("inf")


def probe_datagram(object_id: str) -> bytes:
    """One ping, by itself."""
    oti = plan_object(0, len(object_id))
    return datagram_prefix(object_id, oti, FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR | FLAG_CANCEL) + _PAYLOAD_ID


class Probe(OutgoingTransfer):
    """To a Sender, a transfer of one datagram. `stats.rtt_s` is the round trip; ends CONFIRMED or TIMED_OUT."""

    may_write = False

    def __init__(self, object_id: str, timeout_s: float, now: float, path: PathEstimates) -> None:
        fields = {"Bucket": "ping", "Key": "ping", "ChecksumCRC32": crc32_field(b"")}
        super().__init__(PutRequest(object_id, fields, b"", timeout_s), now, path)
        datagram = probe_datagram(object_id)
        self.prefix = datagram[: -len(_PAYLOAD_ID)]
        self.datagram_size = len(datagram)
        self.backlog = 1
        self._timer = path.rtt
        self._sent_at: float | None = None
        self._rows = 0

    def start(self, now: float) -> bool:
        return self.outcome is None

    def take(self, limit: int, now: float) -> Run | None:
        if not self.backlog:
            return None
        self.backlog = 0
        self._sent_at = now
        self.stats.datagrams_sent += 1
        return Run(0, 0, 1)

    def write(self, run: Run, arena: Buffer, offset: int, stride: int) -> int:
        memoryview(arena)[offset : offset + self.datagram_size] = self.prefix + _PAYLOAD_ID
        return offset + stride

    def put_back(self, run: Run) -> None:
        self.backlog = 1
        self.stats.datagrams_sent -= 1

    def receive_state(self, state: TransferState, now: float) -> None:
        if state.type is StateType.CANCELLED and self._sent_at is not None:
            self.stats.rtt_s = now - self._sent_at
            self.outcome = Ending.CONFIRMED

    def get_timer(self) -> float:
        if self.outcome is not None:
            return _NEVER
        if self._sent_at is None:
            return self.ends_at
        # Without a bound: each silence must move the timer, or handle_timer would find it due for ever.
        return min(self.ends_at, self._sent_at + self._timer.timeout_s * 2.0 ** (self._rows + 1))

    def handle_timer(self, now: float) -> bool:
        """True for one more silence: after some of them, Link shakes hands again."""
        if now < self.get_timer():
            return False
        if now >= self.ends_at:
            self.outcome = Ending.TIMED_OUT
            return False
        self._rows += 1
        return True

    def change_session(self, now: float) -> None:
        """The one before had no peer any more: ask again under this one."""
        self.backlog = 1
        self._sent_at = now  # or its timer would be due at once, and the new session be suspected
        self._rows = 0
        self.stats.handshake = True

    def cancel(self, now: float) -> None:
        self.outcome = self.outcome or Ending.CANCELLED
        self.backlog = 0

    @property
    def in_flight(self) -> int:
        return 0

    @property
    def silences(self) -> int:
        return self._rows

    @property
    def has_started(self) -> bool:
        return self._sent_at is not None
