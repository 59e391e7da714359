"""Which datagrams go to the backend together (docs/gateway.md: an object whose symbols come in one batch needs no database).

Datagrams wait in groups, one group per transfer. A group is due

    when as many have come as the object has source symbols: it can be decoded        at once
    when it holds a cancel                                                            at once
    when its first datagram has waited `delay_s`                                      then

and leaves whole, together with other groups that are due: peers take turns, group by group, and a peer's groups go in the order
in which they became due. Sans-IO: time comes with the datagrams and the questions.

Invariant: what waits is bounded in bytes, in all and per peer; what doesn't fit is refused, never queued. What has waited for
MAX_WAIT_S is in no batch.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from raptor_s3.wire.datagram import Datagram

MESSAGE_OVERHEAD: Final = 400
"""Octets of JSON around a datagram's base64, at most, with some room."""

MAX_WAIT_S: Final = 2.0
"""Datagrams that were due this long ago are dropped when a batch is made up: to the protocol, packets that were lost.

Symbols are fungible, and a sender that hears nothing has sent fresh ones several times by then (INSIST_S and its like are tenths
of a second), so the old ones would only delay those, or reach the backend past their time to live (80% of a client's timeout; 4 s
is usual). It is more than the retries of a call take (0.7 s of backoff), so a stall that is over soon loses nothing.
"""

_REMEMBERED: Final = 16_384


def message_bytes(data: bytes) -> int:
    """The size of this datagram as a message in JSON, at most."""
    return (len(data) + 2) // 3 * 4 + MESSAGE_OVERHEAD


class Envelope(NamedTuple):
    """One authentic datagram: whose it is, how to answer (`origin`, opaque here), when it came.

    `received_at` is in Unix seconds, `arrived_at` the same on the clock of `now`.
    """

    data: bytes
    peer_key: bytes
    origin: Any
    received_at: float
    arrived_at: float


@dataclass(slots=True)
class _Group:
    key: tuple[bytes, str]
    """Peer and transfer."""
    needed: int
    """Source symbols of the object."""
    forwarded: int = 0
    waiting: list[Envelope] = field(default_factory=list)
    due_at: float = 0.0
    is_due: bool = False


class Batcher:
    """Groups by transfer; `max_waiting_bytes` bounds what is held, in octets of JSON; half of it may be one peer's."""

    def __init__(self, *, delay_s: float, max_count: int, max_bytes: int, max_waiting_bytes: int) -> None:
        self._delay_s = delay_s
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._groups: collections.OrderedDict[tuple[bytes, str], _Group] = collections.OrderedDict()
        self._timed: collections.OrderedDict[tuple[bytes, str], _Group] = collections.OrderedDict()
        """Groups that wait their delay; those that are due stand in `_turns`, in a queue per peer, the next peer's first."""
        self._turns: collections.OrderedDict[bytes, collections.deque[_Group]] = collections.OrderedDict()
        self._waiting_bytes = 0
        self._peer_bytes: collections.Counter[bytes] = collections.Counter()
        self.dropped_stale = 0
        """Datagrams that have waited too long, so far."""

    def add(self, envelope: Envelope, datagram: Datagram) -> bool:
        """Take one datagram; False when there is no room for it."""
        size = message_bytes(envelope.data)
        peer_key = envelope.peer_key
        if (
            self._waiting_bytes + size > self._max_waiting_bytes
            or self._peer_bytes[peer_key] + size > self._max_waiting_bytes // 2
        ):
            return False
        key = (peer_key, datagram.object_id)
        group = self._groups.get(key)
        if group is None:
            oti = datagram.oti
            group = self._groups[key] = _Group(key, max(1, -(-oti.transfer_length // oti.symbol_size)))
            self._forget()
        group.waiting.append(envelope)
        self._waiting_bytes += size
        self._peer_bytes[peer_key] += size
        if group.is_due:
            return True
        if datagram.is_cancel or group.forwarded + len(group.waiting) >= group.needed:
            self._timed.pop(key, None)
            self._make_due(group)
        elif len(group.waiting) == 1:
            group.due_at = envelope.arrived_at + self._delay_s
            self._timed[key] = group
        return True

    def get_timer(self) -> float | None:
        """When the next group becomes due by its age, None when none waits for that."""
        return next(iter(self._timed.values())).due_at if self._timed else None

    def is_due(self, now: float) -> bool:
        timer = self.get_timer()
        return bool(self._turns) or (timer is not None and timer <= now)

    def take(self, now: float) -> list[Envelope]:
        """One batch of what is due, empty when nothing is; a group is cut only when it exceeds a batch by itself."""
        while self._timed and (group := next(iter(self._timed.values()))).due_at <= now:
            self._make_due(self._timed.popitem(last=False)[1])
        batch: list[Envelope] = []
        room = self._max_bytes
        oldest = now - self._delay_s - MAX_WAIT_S
        while self._turns:
            peer_key, queue = next(iter(self._turns.items()))
            group = queue[0]
            self._drop_stale(group, oldest)
            if group.waiting:
                count, size = self._fitting(group, self._max_count - len(batch), room)
                if batch and count < len(group.waiting):
                    break
                if not count:  # one datagram that exceeds a batch by itself
                    count, size = 1, room
                batch += self._remove(group, count)
                room -= size
                group.forwarded += count
            if not group.waiting:
                queue.popleft()
                group.is_due = False
                self._groups.move_to_end(group.key)
            if queue:
                self._turns.move_to_end(peer_key)
            else:
                del self._turns[peer_key]
            if group.waiting:
                break
        return batch

    def expire_all(self) -> None:
        """Everything that waits is due now (the gateway is about to stop)."""
        while self._timed:
            self._make_due(self._timed.popitem(last=False)[1])

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def _make_due(self, group: _Group) -> None:
        """Of a group that waits, and not in `_timed`."""
        group.is_due = True
        peer_key = group.key[0]
        queue = self._turns.get(peer_key)
        if queue is None:
            queue = self._turns[peer_key] = collections.deque()
        queue.append(group)

    def _drop_stale(self, group: _Group, oldest: float) -> None:
        waiting = group.waiting
        count = 0
        while count < len(waiting) and waiting[count].arrived_at <= oldest:
            count += 1
        if count:
            self._remove(group, count)
            self.dropped_stale += count

    def _remove(self, group: _Group, count: int) -> list[Envelope]:
        """The first `count` that wait."""
        envelopes = group.waiting[:count]
        del group.waiting[:count]
        size = sum(message_bytes(envelope.data) for envelope in envelopes)
        self._waiting_bytes -= size
        self._peer_bytes[group.key[0]] -= size
        if not self._peer_bytes[group.key[0]]:
            del self._peer_bytes[group.key[0]]
        return envelopes

    def _fitting(self, group: _Group, max_count: int, room: int) -> tuple[int, int]:
        """How many of the first that wait fit, and their size."""
        count = size = 0
        for envelope in group.waiting[:max_count]:
            more = message_bytes(envelope.data)
            if size + more > room:
                break
            count += 1
            size += more
        return count, size

    def _forget(self) -> None:
        """Drop the memory of transfers that were forwarded long ago."""
        while len(self._groups) > _REMEMBERED:
            key, group = next(iter(self._groups.items()))
            if group.waiting:
                self._groups.move_to_end(key)
                return
            del self._groups[key]
