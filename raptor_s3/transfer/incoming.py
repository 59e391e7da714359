"""The receiver of transfers (docs/transport.md): collects symbols by (peer key, object id), decodes, has the host write, answers.

    collecting --all blocks decoded--> writing --finish()--> finished (a tombstone that answers again)
        \\--cancel, expiry, hopeless----------------------------^

- The first datagram pins the OTI and the flags, and reserves the object's size; later ones that differ are dropped.
- The time to live runs from the first datagram. A transfer that is dropped leaves a tombstone: late symbols can't revive it.
- A transfer expires when nothing new has come for `idle_s`; however it is fed, at the longest time to live that there is.
- Where memory is short, a peer that holds less than its share displaces transfers that fell silent, of peers that hold more.
- What a transfer occupies is reserved when it opens: its octets, and what each block and each symbol cost beyond them. Symbols
  beyond K (a set that was singular) are charged one by one, and are few: then the transfer is hopeless.
- Reports (type 0) go out every few datagrams and when a transfer falls quiet. With a put header they carry
  `{"Esi": e, "Us": t}`: the datagram that set the report off, and the microseconds from the transfer's first datagram to it
  (plus `"Wait": us` when the report itself was held back). Fewer octets leave in reports than came in.
- Types 1 to 3 say in `data` which datagram completed the block: 1 + its ESI (0 from receivers that don't say).
- Confirmations go out again after a moment to peers whose datagrams get lost, and whenever somebody asks.

Invariant: whatever arrives, memory stays within `CollectorLimits`, and one transfer reaches the host at most once.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import MalformedPacket
from raptor_s3.transfer.bounds import CollectorLimits, check_bounds
from raptor_s3.transfer.collecting import SYMBOL_OVERHEAD, CollectedTransfer, Peer, displaceable, reserved_bytes
from raptor_s3.transfer.events import CancelWrite, Event, ObjectReady, SendState, TransferKey
from raptor_s3.transfer.tombstones import Tombstones
from raptor_s3.wire.datagram import FLAG_CANCEL
from raptor_s3.wire.put_header import MAX_TTL_MS, TIME_TO_LIVE, split_put_object
from raptor_s3.wire.transfer_state import StateType, TransferState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from raptor_s3.codec import ObjectDecoder
    from raptor_s3.transfer.tombstones import Tombstone
    from raptor_s3.wire.datagram import Datagram

__all__ = ["CancelWrite", "Collector", "CollectorLimits", "CollectorStats", "Event", "ObjectReady", "SendState", "TransferKey"]

QUIET_S: Final = 0.02
"""A transfer that is short of symbols reports when nothing has come for this long: its sender tops it up without a timeout."""
PROGRESS_S: Final = 0.01
"""A write that takes longer than this is announced by type 2, so that the sender stops asking."""
ECHO_S: Final = 0.03
"""Symbols later than this after a final state are a question (the answer was lost), earlier ones the tail of the flight."""
REPEAT_S: Final = 0.012
"""The second time comes so much later: what gets lost often gets lost together."""

_SURPLUS: Final = 64
_SURPLUS_BLOCK: Final = 4
"""Symbols beyond K, of sets that were singular: so many in a transfer, and so many for each of its blocks."""
_LOOK_S: Final = 0.05
"""A peer that displaced nothing looks for it again only after this: it means going through all transfers."""
_SPARE_SHARE: Final = 64
_MAX_TTL_S: Final = MAX_TTL_MS / 1000
_REPORT_BYTES: Final = 80
_DATAGRAM_BYTES: Final = 36
_NEVER: Final = float("inf")
_CANCELLED: Final = StateType.CANCELLED
_MAX_IDLE_PEERS: Final = 10_000
_NOTHING: Final[tuple[Event, ...]] = ()


@dataclass(slots=True)
class CollectorStats:
    """Counters since the start."""

    datagrams: int = 0
    duplicates: int = 0
    mismatched: int = 0
    over_limits: int = 0
    malformed_objects: int = 0
    expired: int = 0
    cancelled: int = 0
    ready: int = 0
    finished: int = 0


class Collector:
    """Receives the datagrams of any number of peers. One thread at a time.

    `receive`, `finish` and `handle_timer` return the events that the host carries out. `get_timer` says when `handle_timer`
    wants to be called (a time on the same clock as `now`), None for never.
    """

    def __init__(self, limits: CollectorLimits | None = None) -> None:
        self.limits = limits or CollectorLimits()
        self.stats = CollectorStats()
        self._transfers: OrderedDict[TransferKey, CollectedTransfer] = OrderedDict()  # by `checked_at`
        self._tombstones = Tombstones(self.limits.tombstone_s)
        self._peers: dict[bytes, Peer] = {}
        self._bytes = 0
        self._displaced: list[Event] = []  # what `_open` has to say to others
        self._timers: list[tuple[float, int, TransferKey]] = []
        self._writing: OrderedDict[TransferKey, float] = OrderedDict()  # when to announce them, the soonest first
        self._sequence = 0

    def receive(self, peer_key: bytes, datagram: Datagram, now: float, origin: Any = None) -> Sequence[Event]:
        """Take one parsed datagram of the authenticated peer `peer_key`. Its symbol is copied, or not kept."""
        self.stats.datagrams += 1
        key = TransferKey(peer_key, datagram.object_id)
        transfer = self._transfers.get(key)
        if transfer is None:
            tombstone = self._tombstones.get(key)
            if tombstone is not None and not _starts_anew(datagram, tombstone, now):
                return self._answer(tombstone, key, origin, now)
            if datagram.flags & FLAG_CANCEL:
                return self._cancel_unknown(key, datagram, origin, now)
            transfer = self._open(key, datagram, now)
            if transfer is None:
                return self._refuse_too_large(key, datagram, origin, now)
            if self._displaced:
                return self._receive_first(transfer, datagram, origin, now)
            if transfer.decoder is None:
                return self._take_whole(transfer, datagram, origin, now)
        elif transfer.oti != datagram.oti or transfer.flags != datagram.flags & ~FLAG_CANCEL:
            self.stats.mismatched += 1
            return _NOTHING
        transfer.origin = origin
        if datagram.flags & FLAG_CANCEL:
            return self._cancel(transfer, now)
        if transfer.decoder is None:
            return self._busy(transfer, datagram.sbn, now)
        return self._collect(transfer, transfer.decoder, datagram, now)

    def finish(self, transfer: TransferKey, outcome: StateType, fields: Mapping[str, Any] | None, now: float) -> Sequence[Event]:
        """What came of an ObjectReady: `outcome` is a final type and, with `fields`, the answer from now on.

        Raises KeyError for a transfer that is not being written.
        """
        entry = self._transfers[transfer]
        if entry.decoder is not None:
            raise KeyError(transfer)
        self.stats.finished += 1
        return self._end(entry, outcome, fields, now)

    def get_timer(self) -> float | None:
        due = self._tombstones.get_timer()
        if self._timers and self._timers[0][0] < due:
            due = self._timers[0][0]
        for announce_at in self._writing.values():
            due = min(due, announce_at)
            break
        for transfer in self._transfers.values():
            due = min(due, transfer.checked_at + self.limits.idle_s)
            break
        return due if due < _NEVER else None

    def handle_timer(self, now: float) -> Sequence[Event]:
        """Reports of transfers that fell quiet, progress of slow writes, repeated confirmations, expiry."""
        events: list[Event] = []
        self._announce_slow_writes(events, now)
        timers = self._timers
        while timers and timers[0][0] <= now:
            entry, _, key = heapq.heappop(timers)
            transfer = self._transfers.get(key)
            if transfer is not None:
                if transfer.entry == entry:
                    transfer.entry = _NEVER
                    if transfer.due <= now:
                        events += self._handle_transfer_timer(transfer, now)
                    elif transfer.due < _NEVER:
                        self._schedule(transfer, transfer.due)
                continue
            tombstone = self._tombstones.get(key)
            if tombstone is not None and tombstone.repeat_to is not None and (state := tombstone.state) is not None:
                events.append(SendState(state, tombstone.repeat_to, 1, tombstone.payload))
                tombstone.repeat_to = None
        while self._transfers:
            transfer = next(iter(self._transfers.values()))
            if transfer.checked_at + self.limits.idle_s > now:
                break
            if transfer.decoder is not None and (
                transfer.progress_at + self.limits.idle_s <= now or transfer.first_at + _MAX_TTL_S <= now
            ):
                events += self._expire(transfer, now)
            else:
                transfer.checked_at = now
                self._transfers.move_to_end(transfer.key)
        self._tombstones.sweep(now)
        return events

    @property
    def bytes_held(self) -> int:
        """Octets reserved for objects that are being collected or written."""
        return self._bytes

    @property
    def transfers(self) -> int:
        """Transfers that are collecting or being written."""
        return len(self._transfers)

    @property
    def tombstones(self) -> int:
        return self._tombstones.count

    # Collecting

    def _open(self, key: TransferKey, datagram: Datagram, now: float) -> CollectedTransfer | None:
        limits, oti = self.limits, datagram.oti
        try:
            check_bounds(oti)
        except MalformedPacket:
            self.stats.over_limits += 1
            return None
        peer = self._peers.get(key.peer_key) or self._add_peer(key.peer_key)
        displaced: list[CollectedTransfer] = []
        size = reserved_bytes(oti)
        if (
            oti.transfer_length > limits.max_object_bytes
            or not (self._fits(peer, size) or (displaced := self._displaceable(peer, size, now)))
            or peer.transfers >= limits.max_transfers_per_peer
            or not self._has_place(key.peer_key, peer, now)
        ):
            # Silence, not a refusal: a state that nothing remembers could still be followed by a write. But see below.
            self.stats.over_limits += 1
            return None
        for idle in displaced:
            self._displaced += self._displace(idle, now)
            peer.looked_at = -_NEVER
        peer.bytes += size
        peer.transfers += 1
        self._bytes += size
        transfer = self._transfers[key] = CollectedTransfer(key, datagram, peer, size, now)
        return transfer

    def _refuse_too_large(self, key: TransferKey, datagram: Datagram, origin: Any, now: float) -> Sequence[Event]:
        """Of a put that did not open: what will never fit is said, and remembered."""
        size, most = datagram.oti.transfer_length, min(self.limits.max_object_bytes, self.limits.max_bytes_per_peer)
        if size <= self.limits.max_object_bytes and reserved_bytes(datagram.oti) <= self.limits.max_bytes_per_peer:
            return _NOTHING
        peer = self._peers.get(key.peer_key) or self._add_peer(key.peer_key)
        if not datagram.has_put_header or not self._has_place(key.peer_key, peer, now):
            return _NOTHING
        message = f"gateway: an object of {size:,} octets is more than this receiver takes (somewhat less than {most:,})"
        fields = {"Code": "EntityTooLarge", "Message": message, "StatusCode": 400}
        return self._bury(key, TransferState(StateType.FAILED, key.object_id, fields=fields), datagram, origin, False, now)

    def _add_peer(self, peer_key: bytes) -> Peer:
        if len(self._peers) >= _MAX_IDLE_PEERS:
            self._peers = {name: peer for name, peer in self._peers.items() if peer.transfers}
        peer = self._peers[peer_key] = Peer()
        return peer

    def _fits(self, peer: Peer, size: int) -> bool:
        return peer.bytes + size <= self.limits.max_bytes_per_peer and self._bytes + size <= self.limits.max_bytes

    def _displaceable(self, peer: Peer, size: int, now: float) -> list[CollectedTransfer]:
        """Transfers that make room for a peer's new one; empty where that can't be."""
        limits = self.limits
        if peer.bytes + size > limits.max_bytes_per_peer or now < peer.looked_at + _LOOK_S:
            return []
        peer.looked_at = now
        sharers = sum(1 for other in self._peers.values() if other.transfers and other is not peer) + 1
        if peer.bytes * sharers >= limits.max_bytes:
            return []
        missing = self._bytes + size - limits.max_bytes
        return displaceable(self._transfers.values(), peer, missing, limits.max_bytes // _SPARE_SHARE, now)

    def _displace(self, transfer: CollectedTransfer, now: float) -> Sequence[Event]:
        """As if it had idled for its whole time, and remembered until then."""
        self.stats.expired += 1
        return self._end(transfer, _CANCELLED, None, now, max(0.0, transfer.last_at + self.limits.idle_s - now))

    def _receive_first(self, transfer: CollectedTransfer, datagram: Datagram, origin: Any, now: float) -> Sequence[Event]:
        """The first datagram of a transfer that displaced others, who hear of it."""
        displaced, self._displaced = self._displaced, []
        transfer.origin = origin
        decoder = transfer.decoder
        if decoder is None:
            return [*displaced, *self._take_whole(transfer, datagram, origin, now)]
        return [*displaced, *self._collect(transfer, decoder, datagram, now)]

    def _has_place(self, peer_key: bytes, peer: Peer, now: float) -> bool:
        """Whether the peer may have one more transfer or tombstone, if need be in the place of an old one."""
        free = self.limits.max_tombstones - self._tombstones.count - len(self._transfers)
        if self._tombstones.of(peer_key) + peer.transfers < free:
            return True
        return self._tombstones.make_place(peer_key, now)

    def _collect(self, transfer: CollectedTransfer, decoder: ObjectDecoder, datagram: Datagram, now: float) -> Sequence[Event]:
        sbn, esi = datagram.sbn, datagram.esi
        transfer.last_at = now
        transfer.sbn, transfer.esi = sbn, esi
        if esi > transfer.highest[sbn]:
            transfer.highest[sbn] = esi
        if not decoder.add(sbn, esi, datagram.symbol):
            self.stats.duplicates += 1
        elif transfer.completed_by[sbn] < 0:
            transfer.progress_at = now
            transfer.room -= 1
            if not decoder.missing(sbn):
                transfer.completed_by[sbn] = esi
                if decoder.is_complete:
                    return self._decoded(transfer, decoder, now)
                return (transfer.block_complete(sbn),)
            if transfer.room < 0 and not self._extend(transfer):
                return self._expire(transfer, now)
        transfer.unreported += 1
        if transfer.wants_report(now):
            return (transfer.report(decoder, now),)
        if transfer.due > now + QUIET_S:
            self._schedule(transfer, now + QUIET_S)
        return _NOTHING

    def _extend(self, transfer: CollectedTransfer) -> bool:
        """Charge one more symbol than K. False when the transfer has had enough of those, or there is no memory for it."""
        extra = transfer.reserved_surplus + 1
        size = transfer.oti.symbol_size + SYMBOL_OVERHEAD
        if extra > _SURPLUS + _SURPLUS_BLOCK * transfer.oti.source_blocks or not self._fits(transfer.peer, size):
            return False
        transfer.reserved_surplus = extra
        transfer.room += 1
        transfer.reserved_bytes += size
        transfer.peer.bytes += size
        self._bytes += size
        return True

    def _take_whole(self, transfer: CollectedTransfer, datagram: Datagram, origin: Any, now: float) -> Sequence[Event]:
        """An object of one source symbol, which is that symbol: there is nothing to decode."""
        transfer.origin = origin
        transfer.highest[0] = transfer.completed_by[0] = 0
        transfer.peer.count(1, 1)
        return self._deliver(transfer, bytes(memoryview(datagram.symbol)[: transfer.oti.transfer_length]), now)

    def _decoded(self, transfer: CollectedTransfer, decoder: ObjectDecoder, now: float) -> Sequence[Event]:
        received = sum(decoder.received(sbn) for sbn in range(transfer.oti.source_blocks))
        transfer.peer.count(sum(transfer.highest) + len(transfer.highest), received)
        transfer.decoder = None
        return self._deliver(transfer, decoder.data(), now)

    def _deliver(self, transfer: CollectedTransfer, data: bytes, now: float) -> Sequence[Event]:
        """The whole object goes to the host, if it is one, and in time."""
        fields, body, ttl_s = None, memoryview(data), self.limits.path_ttl_s
        if transfer.has_put_header:
            try:
                fields, body = split_put_object(data)
            except MalformedPacket as error:
                self.stats.malformed_objects += 1
                refusal = {"Code": "InvalidRequest", "Message": f"gateway: {error}"[:200], "StatusCode": 400}
                return self._end(transfer, StateType.FAILED, refusal, now)
            ttl_s = fields[TIME_TO_LIVE] / 1000
            transfer.ttl_s = ttl_s
        expires_at = transfer.first_at + ttl_s
        if now >= expires_at:
            return self._expire(transfer, now)
        self.stats.ready += 1
        self._writing[transfer.key] = now + PROGRESS_S
        return (ObjectReady(transfer.key, data, fields, body, transfer.first_at, expires_at, transfer.origin),)

    # Endings

    def _end(
        self, transfer: CollectedTransfer, outcome: StateType, fields: Mapping[str, Any] | None, now: float, early_s: float = 0.0
    ) -> Sequence[Event]:
        del self._transfers[transfer.key]
        self._writing.pop(transfer.key, None)
        transfer.peer.bytes -= transfer.reserved_bytes
        transfer.peer.transfers -= 1
        self._bytes -= transfer.reserved_bytes
        sbn = transfer.sbn
        state = TransferState(outcome, transfer.key.object_id, sbn, transfer.completed_by[sbn] + 1, fields)
        return self._bury(transfer.key, state, transfer, transfer.origin, transfer.peer.is_lossy, now, early_s)

    def _bury(
        self,
        key: TransferKey,
        state: TransferState,
        source: CollectedTransfer | Datagram,
        origin: Any,
        is_lossy: bool,
        now: float,
        early_s: float = 0.0,
    ) -> Sequence[Event]:
        """Leave a tombstone, and give the answer that it will give again. `early_s`: how much sooner than its time it comes."""
        answer: TransferState | None = state
        oti, keep_s = None, self.limits.tombstone_s + early_s
        spent_at = now + keep_s  # where the time to live is not known
        if not source.has_put_header:
            oti, keep_s = source.oti, self.limits.path_tombstone_s
            spent_at = now + keep_s
            answer = TransferState(state.type, state.object_id) if state.type is StateType.COMPLETE else None
        elif isinstance(source, CollectedTransfer) and source.ttl_s:
            keep_s = max(2 * source.ttl_s, keep_s)
            spent_at = source.first_at + 1.25 * source.ttl_s  # TtlMs, and the time that stray symbols have to settle
        tombstone = self._tombstones.add(key, answer, oti, now, keep_s, spent_at)
        return self._reply(tombstone, key, answer, origin, is_lossy, now)

    def _answer(self, tombstone: Tombstone, key: TransferKey, origin: Any, now: float) -> Sequence[Event]:
        """Somebody asks about a finished transfer: by a late symbol of its flight, by a new one, by a cancel."""
        is_question = now - tombstone.answered_at >= ECHO_S
        if not is_question and tombstone.answers > 1:
            return _NOTHING
        return self._reply(tombstone, key, tombstone.state, origin, is_question, now)

    def _reply(
        self, tombstone: Tombstone, key: TransferKey, state: TransferState | None, origin: Any, twice: bool, now: float
    ) -> Sequence[Event]:
        if state is None:
            return _NOTHING
        tombstone.answered_at = now
        tombstone.answers += 1
        if twice:
            tombstone.answers += 1
            tombstone.repeat_to = origin
            self._set_timer(now + REPEAT_S, key)
        return (SendState(state, origin, 1, tombstone.payload),)

    def _busy(self, transfer: CollectedTransfer, sbn: int, now: float) -> Sequence[Event]:
        if now - transfer.answered_at < ECHO_S:
            return _NOTHING
        transfer.answered_at = now
        return (transfer.block_complete(sbn),)

    def _cancel(self, transfer: CollectedTransfer, now: float) -> Sequence[Event]:
        if transfer.decoder is None:
            return (CancelWrite(transfer.key),)
        self.stats.cancelled += 1
        return self._end(transfer, _CANCELLED, None, now)

    def _cancel_unknown(self, key: TransferKey, datagram: Datagram, origin: Any, now: float) -> Sequence[Event]:
        """A cancel that overtook its transfer, or whose transfer never arrived: symbols that come later find a tombstone."""
        peer = self._peers.get(key.peer_key) or self._add_peer(key.peer_key)
        if not datagram.has_put_header or not self._has_place(key.peer_key, peer, now):
            return _NOTHING
        self.stats.cancelled += 1
        return self._bury(key, TransferState(_CANCELLED, key.object_id), datagram, origin, False, now)

    def _expire(self, transfer: CollectedTransfer, now: float) -> Sequence[Event]:
        self.stats.expired += 1
        return self._end(transfer, _CANCELLED, None, now)

    # Timers

    def _schedule(self, transfer: CollectedTransfer, due: float) -> None:
        transfer.due = due
        if due < transfer.entry:
            transfer.entry = due
            self._set_timer(due, transfer.key)

    def _set_timer(self, due: float, key: TransferKey) -> None:
        self._sequence += 1
        heapq.heappush(self._timers, (due, self._sequence, key))

    def _announce_slow_writes(self, events: list[Event], now: float) -> None:
        while self._writing and next(iter(self._writing.values())) <= now:
            key, _ = self._writing.popitem(last=False)
            transfer = self._transfers[key]
            transfer.answered_at = now
            events.append(transfer.block_complete(transfer.sbn))

    def _handle_transfer_timer(self, transfer: CollectedTransfer, now: float) -> Sequence[Event]:
        transfer.due = _NEVER
        decoder = transfer.decoder
        if decoder is None or transfer.unreported * (transfer.oti.symbol_size + _DATAGRAM_BYTES) < _REPORT_BYTES:
            return _NOTHING
        quiet_at = transfer.last_at + QUIET_S
        if now < quiet_at:
            self._schedule(transfer, quiet_at)
            return _NOTHING
        report = transfer.report(decoder, now)
        return (report._replace(copies=2),) if transfer.peer.is_lossy else (report,)


def _starts_anew(datagram: Datagram, tombstone: Tombstone, now: float) -> bool:
    """Whether a path (no put header) is being sent again, rather than a symbol of the finished transfer being late."""
    return not datagram.has_put_header and (datagram.oti != tombstone.oti or now >= tombstone.due)
