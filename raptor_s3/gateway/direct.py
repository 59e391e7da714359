"""Direct mode: datagrams to objects by transfer.incoming.Collector, objects to a sink, outcomes back as states.

    ObjectReady -> checksum -> policy -> sink.submit ... Outcome -> Collector.finish -> state to the sender
    CancelWrite -> sink.cancel ........................... Outcome -> the same way

Nothing that the client wrote in the put header is believed: wire.put_header has checked names and types, here the peer's
policy decides, and S3 itself checks the checksum once more.

Invariant: every ObjectReady is finished exactly once, by the sink's word or by a refusal here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import MalformedPacket
from raptor_s3.gateway.parser import DatagramParser
from raptor_s3.gateway.sink import CANCELLED, ObjectWrite, Outcome
from raptor_s3.transfer.events import CancelWrite, ObjectReady, SendState
from raptor_s3.wire.put_header import TIME_TO_LIVE, crc32_field
from raptor_s3.wire.transfer_state import StateType, TransferState, build_transfer_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from raptor_s3.gateway.policy import Peer
    from raptor_s3.gateway.sink import Sink
    from raptor_s3.gateway.stats import Stats
    from raptor_s3.transfer.events import Event, TransferKey
    from raptor_s3.transfer.incoming import Collector

_log = logging.getLogger(__name__)

MAX_KEY_BYTES: Final = 1024


class DirectReceiver:
    """Collects, decides, writes, answers. All methods are called in the loop's thread."""

    def __init__(
        self,
        collector: Collector,
        sink: Sink,
        peers: Mapping[bytes, Peer],
        stats: Stats,
        *,
        send: Callable[[Any, bytes], None],
        clock: Callable[[], float],
        legacy: tuple[str, str] | None = None,
    ) -> None:
        self.peers = peers
        self._collector = collector
        self._sink = sink
        self._stats = stats
        self._send = send
        self._clock = clock
        self._legacy = legacy
        self._parser = DatagramParser()
        self._writes: dict[TransferKey, ObjectWrite] = {}

    def receive(self, origin: Any, peer_key: bytes, data: bytes, now: float) -> None:
        """One authentic datagram of `peer_key`."""
        try:
            datagram = self._parser.parse(data)
        except MalformedPacket:
            self._stats.dropped_malformed += 1
            return
        self._stats.data += 1
        events = self._collector.receive(peer_key, datagram, now, origin)
        if events:
            self._carry_out(events)

    def get_timer(self) -> float | None:
        return self._collector.get_timer()

    def handle_timer(self, now: float) -> None:
        self._carry_out(self._collector.handle_timer(now))

    def flush(self, now: float) -> None:
        """Nothing waits here for company."""

    @property
    def load(self) -> int:
        """Objects on their way to S3."""
        return len(self._writes)

    def describe(self) -> dict[str, int]:
        """The Collector's counters, for the log."""
        collector, seen = self._collector, self._collector.stats
        return {
            "transfers": collector.transfers,
            "bytes_held": collector.bytes_held,
            "tombstones": collector.tombstones,
            "duplicates": seen.duplicates,
            "expired": seen.expired,
            "dropped_mismatched": seen.mismatched,
            "dropped_over_limits": seen.over_limits,
        }

    def drain(self, now: float) -> None:
        """Writes are under way already."""

    def close(self, timeout_s: float) -> None:
        self._sink.close(timeout_s)

    def _carry_out(self, events: Iterable[Event]) -> None:
        for event in events:
            if type(event) is SendState:
                payload = build_transfer_state(event.state)
                for _ in range(event.copies):
                    self._send(event.origin, payload)
            elif isinstance(event, ObjectReady):
                self._write(event)
            elif isinstance(event, CancelWrite):
                write = self._writes.get(event.transfer)
                if write is not None:
                    self._sink.cancel(write)

    def _write(self, ready: ObjectReady) -> None:
        self._stats.objects_decoded += 1
        if self._clock() >= ready.expires_at:
            self._finish(ready, CANCELLED)
            return
        target = self._named(ready) if ready.fields is None else self._checked(ready, ready.fields)
        if isinstance(target, Outcome):
            self._stats.objects_refused += 1
            self._finish(ready, target)
            return
        write = ObjectWrite(target, ready.body, ready.expires_at)
        self._writes[ready.transfer] = write
        if not self._sink.submit(write, lambda outcome: self._finish(ready, outcome)):
            self._stats.dropped_full += 1
            self._finish(ready, Outcome.failed("SlowDown", "gateway: too many writes are waiting", 503))

    def _checked(self, ready: ObjectReady, fields: Mapping[str, Any]) -> dict[str, Any] | Outcome:
        """PutObject's parameters, or why not."""
        peer = self.peers.get(ready.transfer.peer_key)
        if peer is None:
            return Outcome.failed("AccessDenied", "gateway: this peer is no longer known", 403)
        if objection := peer.objection(fields):
            _log.info("refused: %s", objection)
            return Outcome.failed("AccessDenied", f"gateway: {objection}", 403)
        if crc32_field(ready.body) != fields["ChecksumCRC32"]:
            return Outcome.failed("BadDigest", "gateway: the body does not match its ChecksumCRC32", 400)
        parameters = dict(fields)
        del parameters[TIME_TO_LIVE]
        return parameters

    def _named(self, ready: ObjectReady) -> dict[str, Any] | Outcome:
        """Where an object without a put header goes. What is refused gets no answer: the sender would read it as a success."""
        peer = self.peers.get(ready.transfer.peer_key)
        path = ready.transfer.object_id
        if self._legacy is None or peer is None or not peer.legacy or not _is_safe_path(path):
            self._stats.objects_unnamed += 1
            return Outcome.failed("AccessDenied", "gateway: no place for objects without a put header", 403)
        bucket, prefix = self._legacy
        key = prefix + path
        if len(key.encode()) > MAX_KEY_BYTES:
            return Outcome.failed("KeyTooLongError", "gateway: the key is longer than 1,024 octets", 400)
        return {"Bucket": bucket, "Key": key, "ChecksumCRC32": crc32_field(ready.body)}

    def _finish(self, ready: ObjectReady, outcome: Outcome) -> None:
        self._writes.pop(ready.transfer, None)
        stats = self._stats
        if outcome.type is StateType.COMPLETE:
            stats.objects_written += 1
        elif outcome.type is StateType.CANCELLED:
            stats.objects_cancelled += 1
        else:
            stats.objects_failed += 1
        fields = outcome.fields if ready.fields is not None else None
        state = TransferState(outcome.type, ready.transfer.object_id, fields=fields)
        self._carry_out(self._collector.finish(ready.transfer, state, self._clock()))


def _is_safe_path(path: str) -> bool:
    """A relative path without `..`, empty parts or control characters."""
    parts = path.split("/")
    return all(part not in ("", ".", "..") for part in parts) and path.isprintable() and "\\" not in path
