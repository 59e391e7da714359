"""Direct mode: datagrams to objects by transfer.incoming.Collector, objects to a sink, outcomes back as states.

    ObjectReady -> receiver.admission -> sink.submit ... Outcome -> Collector.finish -> state to the sender
    CancelWrite -> sink.cancel ........................... Outcome -> the same way

Invariant: every ObjectReady is finished exactly once, by the sink's word or by a refusal here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import MalformedPacket
from raptor_s3.gateway.parser import DatagramParser
from raptor_s3.gateway.sink import ObjectWrite
from raptor_s3.receiver import admission
from raptor_s3.receiver.deadline import begin_by
from raptor_s3.receiver.outcome import CANCELLED, Outcome
from raptor_s3.transfer.events import CancelWrite, ObjectReady, SendState
from raptor_s3.wire.put_header import TIME_TO_LIVE, crc32_field
from raptor_s3.wire.transfer_state import StateType, build_transfer_state
from raptor_s3.wireguard.keys import key_to_base64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from raptor_s3.gateway.sink import Sink
    from raptor_s3.gateway.stats import Stats
    from raptor_s3.receiver.policy import Policy
    from raptor_s3.transfer.events import Event, TransferKey
    from raptor_s3.transfer.incoming import Collector

_log = logging.getLogger(__name__)

_COMPLETE: Final = StateType.COMPLETE


class DirectReceiver:
    """Collects, decides, writes, answers. All methods are called in the loop's thread."""

    def __init__(
        self,
        collector: Collector,
        sink: Sink,
        policy: Policy,
        stats: Stats,
        *,
        send: Callable[[Any, bytes], None],
        clock: Callable[[], float],
        legacy: tuple[str, str] | None = None,
    ) -> None:
        self.policy = policy
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
                payload = event.payload or build_transfer_state(event.state)
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
        deadline = begin_by(ready.received_at, ready.expires_at - ready.received_at)
        if self._clock() >= deadline:
            self._finish(ready, CANCELLED)
            return
        target = self._named(ready) if ready.fields is None else self._checked(ready, ready.fields)
        if isinstance(target, Outcome):
            self._stats.objects_refused += 1
            self._finish(ready, target)
            return
        write = ObjectWrite(target, ready.body, deadline)
        self._writes[ready.transfer] = write
        if not self._sink.submit(write, lambda outcome: self._finish(ready, outcome)):
            self._stats.dropped_full += 1
            self._finish(ready, Outcome.refused("gateway", "SlowDown", "too many writes are waiting", 503))

    def _checked(self, ready: ObjectReady, fields: Mapping[str, Any]) -> dict[str, Any] | Outcome:
        """PutObject's parameters, or why not."""
        refusal = admission.refusal("gateway", self.policy, key_to_base64(ready.transfer.peer_key), fields, ready.body)
        if refusal is not None:
            _log.info("refused: %s", refusal.fields)
            return refusal
        parameters = dict(fields)
        del parameters[TIME_TO_LIVE]
        return parameters

    def _named(self, ready: ObjectReady) -> dict[str, Any] | Outcome:
        """Where an object without a put header goes. What is refused gets no answer: the sender would read it as a success."""
        peer_key, path = key_to_base64(ready.transfer.peer_key), ready.transfer.object_id
        if self._legacy is None:
            key: str | Outcome = Outcome.refused("gateway", "AccessDenied", "no place for objects without a put header", 403)
        else:
            bucket, prefix = self._legacy
            key = admission.published_key("gateway", self.policy, peer_key, prefix, path)
        if isinstance(key, Outcome):
            self._stats.objects_unnamed += 1
            return key
        return {"Bucket": bucket, "Key": key, "ChecksumCRC32": crc32_field(ready.body)}

    def _finish(self, ready: ObjectReady, outcome: Outcome) -> None:
        self._writes.pop(ready.transfer, None)
        stats = self._stats
        if outcome.type is _COMPLETE:
            stats.objects_written += 1
        elif outcome.type is StateType.CANCELLED:
            stats.objects_cancelled += 1
        else:
            stats.objects_failed += 1
        self._carry_out(self._collector.finish(ready.transfer, outcome.type, outcome.fields, self._clock()))
