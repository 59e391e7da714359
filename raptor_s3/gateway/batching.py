"""Which datagrams go to the backend together (DESIGN 3.4, notes: an object whose symbols come in one batch needs no database).

Datagrams wait in groups, one group per transfer. A group is due

    when as many have come as the object has source symbols: it can be decoded        at once
    when it holds a cancel                                                            at once
    when its first datagram has waited `delay_s`                                      then

and leaves whole, in the order of first arrival, together with the other groups that are due. Sans-IO: `now` is an argument.

Invariant: what waits is bounded in bytes, in all and per peer; what doesn't fit is refused, never queued.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raptor_s3.wire.datagram import Datagram

MESSAGE_OVERHEAD: Final = 400
"""Octets of JSON around a datagram's base64, at most, with some room."""

_REMEMBERED: Final = 16_384


def message_bytes(data: bytes) -> int:
    """The size of this datagram as a message in JSON, at most."""
    return (len(data) + 2) // 3 * 4 + MESSAGE_OVERHEAD


class Envelope(NamedTuple):
    """One authentic datagram: whose it is, how to answer (`origin`, opaque here), when it came (Unix seconds)."""

    data: bytes
    peer_key: bytes
    origin: Any
    received_at: float


@dataclass(slots=True)
class _Group:
    needed: int
    """Source symbols of the object."""
    forwarded: int = 0
    waiting: list[Envelope] = field(default_factory=list)
    due_at: float = 0.0


class Batcher:
    """Groups by transfer; `max_waiting_bytes` bounds what is held, in octets of JSON; half of it may be one peer's."""

    def __init__(self, *, delay_s: float, max_count: int, max_bytes: int, max_waiting_bytes: int) -> None:
        self._delay_s = delay_s
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._groups: collections.OrderedDict[tuple[bytes, str], _Group] = collections.OrderedDict()
        self._timed: collections.OrderedDict[tuple[bytes, str], _Group] = collections.OrderedDict()
        self._ready: collections.OrderedDict[tuple[bytes, str], _Group] = collections.OrderedDict()
        self._waiting_bytes = 0
        self._peer_bytes: collections.Counter[bytes] = collections.Counter()

    def add(self, envelope: Envelope, datagram: Datagram, now: float) -> bool:
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
            group = self._groups[key] = _Group(max(1, -(-oti.transfer_length // oti.symbol_size)))
            self._forget()
        if not group.waiting:
            group.due_at = now + self._delay_s
            self._timed[key] = group
        group.waiting.append(envelope)
        self._waiting_bytes += size
        self._peer_bytes[peer_key] += size
        if datagram.is_cancel or group.forwarded + len(group.waiting) >= group.needed:
            self._ready[key] = group
        return True

    def get_timer(self) -> float | None:
        """When the next group is due by its age, None when none waits."""
        return next(iter(self._timed.values())).due_at if self._timed else None

    def is_due(self, now: float) -> bool:
        timer = self.get_timer()
        return bool(self._ready) or (timer is not None and timer <= now)

    def take(self, now: float) -> list[Envelope]:
        """One batch of what is due, empty when nothing is; a group is cut only when it exceeds a batch by itself."""
        batch: list[Envelope] = []
        room = self._max_bytes
        for key, group in self._due(now):
            size = sum(message_bytes(envelope.data) for envelope in group.waiting)
            if batch and (size > room or len(batch) + len(group.waiting) > self._max_count):
                break
            count = self._fitting(group, room)
            batch += group.waiting[:count]
            room -= size
            del group.waiting[:count]
            group.forwarded += count
            if group.waiting:
                self._ready[key] = group
                break
            self._timed.pop(key, None)
            self._ready.pop(key, None)
            self._groups.move_to_end(key)
        for envelope in batch:
            self._waiting_bytes -= message_bytes(envelope.data)
            self._peer_bytes[envelope.peer_key] -= message_bytes(envelope.data)
        if not self._waiting_bytes:
            self._peer_bytes.clear()
        return batch

    def expire_all(self) -> None:
        """Everything that waits is due now (the gateway is about to stop)."""
        self._ready.update(self._timed)

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def _due(self, now: float) -> Iterator[tuple[tuple[bytes, str], _Group]]:
        yield from list(self._ready.items())
        aged = []
        for key, group in self._timed.items():
            if group.due_at > now:
                break
            aged.append((key, group))
        yield from aged

    def _fitting(self, group: _Group, room: int) -> int:
        count = 0
        for envelope in group.waiting[: self._max_count]:
            room -= message_bytes(envelope.data)
            if room < 0:
                break
            count += 1
        return max(count, 1)

    def _forget(self) -> None:
        """Drop the memory of transfers that were forwarded long ago."""
        while len(self._groups) > _REMEMBERED:
            key, group = next(iter(self._groups.items()))
            if group.waiting:
                self._groups.move_to_end(key)
                return
            del self._groups[key]
