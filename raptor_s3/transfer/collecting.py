"""What a Collector holds: one transfer that is collecting or being written, and what is known of its peer.

Invariant: values and small questions only; what happens to them is the Collector's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from raptor_s3.codec import ObjectDecoder
from raptor_s3.transfer.events import SendState
from raptor_s3.wire.datagram import FLAG_PUT_HEADER
from raptor_s3.wire.transfer_state import StateType, TransferState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from raptor_s3.codec import ObjectTransmissionInformation
    from raptor_s3.transfer.events import TransferKey
    from raptor_s3.wire.datagram import Datagram

REPORT_EVERY: Final = 16
"""Datagrams of one transfer between two reports; the first report comes after half as many."""
REPORT_PAUSE_S: Final = 0.004
REPORT_AT_MOST: Final = 256
"""On a fast path there is a pause between two reports, and more datagrams."""
REPORT_S: Final = 0.025
"""On a thin link, a report goes out this often, if two datagrams have come."""
LOSSY: Final = 0.004
"""Share of a peer's datagrams lost above which confirmations are sent twice."""
DISPLACE_S: Final = 2.0
"""Where memory is short, a transfer without a datagram for so long may have to make room. A sender that lives asks again within a
few retransmission timeouts (1 s where nothing is known of the path); this one is gone, or cut off."""
TRANSFER_OVERHEAD: Final = 1024
BLOCK_OVERHEAD: Final = 640
SYMBOL_OVERHEAD: Final = 80
"""Octets beyond the object's own, as measured with tracemalloc; a symbol has a place in the set of those seen."""
_NEVER: Final = float("inf")


class Peer:
    """What is known of one peer: what it occupies, and how many of its datagrams get lost."""

    __slots__ = ("bytes", "looked_at", "lost", "seen", "transfers")

    def __init__(self) -> None:
        self.bytes = 0
        self.transfers = 0
        self.seen = 0.0
        self.lost = 0.0
        self.looked_at = -_NEVER  # when it last looked for transfers to displace, in vain

    def count(self, sent: int, received: int) -> None:
        if self.seen > 500:
            self.seen /= 2
            self.lost /= 2
        self.seen += sent
        self.lost += sent - received

    @property
    def is_lossy(self) -> bool:
        return self.lost > LOSSY * self.seen


class CollectedTransfer:
    """One transfer that is collecting or being written."""

    __slots__ = (
        "answered_at",
        "checked_at",
        "completed_by",
        "decoder",
        "due",
        "entry",
        "esi",
        "first_at",
        "flags",
        "has_put_header",
        "highest",
        "key",
        "last_at",
        "origin",
        "oti",
        "peer",
        "progress_at",
        "report_at",
        "report_pause_s",
        "reported_at",
        "reserved_bytes",
        "reserved_surplus",
        "room",
        "sbn",
        "ttl_s",
        "unreported",
    )  # fmt: skip

    def __init__(self, key: TransferKey, datagram: Datagram, peer: Peer, reserved_bytes: int, now: float) -> None:
        self.key = key
        self.oti: ObjectTransmissionInformation = datagram.oti
        self.flags = datagram.flags
        self.has_put_header = bool(datagram.flags & FLAG_PUT_HEADER)
        self.peer = peer
        self.reserved_bytes = reserved_bytes
        self.first_at = self.last_at = self.progress_at = self.checked_at = now
        self.answered_at = now
        self.ttl_s = 0.0  # known once the put header is
        self.room = datagram.oti.source_symbols  # symbols of undecoded blocks that are paid for and have not come
        self.reserved_surplus = 0
        self.origin: Any = None
        self.due = _NEVER
        self.entry = _NEVER  # when the one live entry in the timer heap comes up, not after `due`
        self.unreported = 0
        self.report_at = REPORT_EVERY // 2
        self.report_pause_s = 0.0
        self.reported_at = now
        self.sbn = self.esi = 0
        self.highest = [-1] * datagram.oti.source_blocks
        self.completed_by = [-1] * datagram.oti.source_blocks  # ESI
        self.decoder: ObjectDecoder | None = None
        """None: being written. An object that is its only symbol needs none before, either."""
        if datagram.esi or datagram.oti.source_symbols > 1:
            self.decoder = ObjectDecoder(datagram.oti, datagram.degree_table)

    def wants_report(self, now: float) -> bool:
        """Whether it is time for the next report (type 0), after one more datagram."""
        unreported, since_s = self.unreported, now - self.reported_at
        if (
            (unreported < self.report_at or since_s < self.report_pause_s)
            and unreported < REPORT_AT_MOST
            and (unreported < 2 or since_s < REPORT_S)
        ):
            return False
        self.report_at, self.report_pause_s = REPORT_EVERY, REPORT_PAUSE_S
        return True

    def report(self, decoder: ObjectDecoder, now: float) -> SendState:
        self.unreported = 0
        self.reported_at = now
        fields = None
        if self.has_put_header:
            fields = {"Esi": self.esi, "Us": round((self.last_at - self.first_at) * 1e6)}
            if now > self.last_at:
                fields["Wait"] = round((now - self.last_at) * 1e6)
        received = decoder.received(self.sbn)
        state = TransferState(StateType.PACKETS, self.key.object_id, self.sbn, received, fields)
        return SendState(state, self.origin)

    def block_complete(self, sbn: int) -> SendState:
        state = TransferState(StateType.BLOCK_COMPLETE, self.key.object_id, sbn, self.completed_by[sbn] + 1)
        return SendState(state, self.origin)


def reserved_bytes(oti: ObjectTransmissionInformation) -> int:
    """What a transfer may occupy: its octets, and what each block and each symbol cost beyond them."""
    overhead = TRANSFER_OVERHEAD + BLOCK_OVERHEAD * oti.source_blocks + SYMBOL_OVERHEAD * oti.source_symbols
    return oti.transfer_length + overhead


def displaceable(
    transfers: Iterable[CollectedTransfer], peer: Peer, missing_bytes: int, spare_bytes: int, now: float
) -> list[CollectedTransfer]:
    """Idle transfers of peers that hold more than `peer`, as many as make up for `missing_bytes`: none where all of them don't.

    Who holds the most goes first, then who was idle longest. `spare_bytes` more are freed if they can be, so that looking through
    all transfers is rare.
    """
    idle = [
        transfer
        for transfer in transfers
        if transfer.decoder is not None and now - transfer.last_at >= DISPLACE_S and transfer.peer.bytes > peer.bytes
    ]
    idle.sort(key=lambda transfer: (-transfer.peer.bytes, transfer.last_at))
    freed = 0
    for count, transfer in enumerate(idle, 1):
        freed += transfer.reserved_bytes
        if freed >= missing_bytes + spare_bytes:
            return idle[:count]
    return idle if freed >= missing_bytes else []
