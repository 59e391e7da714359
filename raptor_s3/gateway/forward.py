"""Forward mode: authentic datagrams to the serverless backend, as Proxylity UDP Gateway does it (docs/wire.md).

    Lambda   {"Messages": [...]} up to 6 MB, invoked synchronously; its Replies go back by Tag
    SQS      one message per datagram, ten in a call; replies come through `replies`

A batch leaves when the socket is drained and something is due (`batching`), as long as a worker is free; while all are busy,
batches grow. What the bounds on memory don't hold, and what has waited too long, is dropped and counted.

Invariant: a reply goes to the address and session that its own message came from.
"""

from __future__ import annotations

import base64
import collections
import functools
import json
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from raptor_s3.errors import MalformedPacket
from raptor_s3.gateway.batching import Batcher, Envelope, message_bytes
from raptor_s3.gateway.endpoint import plain_address
from raptor_s3.gateway.trouble import ask
from raptor_s3.gateway.workers import Completions, WorkerPool
from raptor_s3.net import clock
from raptor_s3.wire.datagram import parse_datagram
from raptor_s3.wire.gateway_message import (
    GatewayMessage,
    OutboundPacket,
    Remote,
    Reply,
    build_batch,
    build_message,
    parse_replies,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raptor_s3.gateway.stats import Stats

_log = logging.getLogger(__name__)

LAMBDA_PAYLOAD: Final = 5_500_000
"""Under Lambda's 6 MB for a synchronous invocation."""
SQS_MESSAGES: Final = 10
SQS_PAYLOAD: Final = 1_000_000
"""Under SQS's 1 MiB for a batch call."""
ATTEMPTS: Final = 4
FIRST_BACKOFF_S: Final = 0.1
MAX_ROUTES: Final = 65_536


class Destination(Protocol):
    """Where batches go. `deliver` blocks, in a worker's thread; it returns the replies, or raises."""

    max_count: int
    max_bytes: int

    def deliver(self, messages: Sequence[GatewayMessage]) -> tuple[list[Reply], int]:
        """The replies at hand, and how many of the messages were not taken."""


class LambdaDestination:
    """The ingestor Lambda, invoked synchronously."""

    def __init__(self, client: Any, function: str, *, max_count: int = 1000) -> None:
        self._client = client
        self._function = function
        self.max_count = max_count
        self.max_bytes = LAMBDA_PAYLOAD

    def deliver(self, messages: Sequence[GatewayMessage]) -> tuple[list[Reply], int]:
        payload = json.dumps(build_batch(messages), separators=(",", ":")).encode()
        response = _with_retries(lambda: self._client.invoke(FunctionName=self._function, Payload=payload))
        answer = ask(response["Payload"].read)
        if "FunctionError" in response:
            _log.error("Lambda %s failed: %s", self._function, answer[:500].decode(errors="replace"))
            return [], len(messages)
        try:
            return parse_replies(answer), 0
        except MalformedPacket as error:
            _log.error("Lambda %s answered nonsense: %s", self._function, error)
            return [], 0


class SqsDestination:
    """The ingestor's queue: one message per datagram."""

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self.max_count = SQS_MESSAGES
        self.max_bytes = SQS_PAYLOAD

    def deliver(self, messages: Sequence[GatewayMessage]) -> tuple[list[Reply], int]:
        entries = [
            {"Id": str(number), "MessageBody": json.dumps(build_message(message), separators=(",", ":"))}
            for number, message in enumerate(messages)
        ]
        refused = 0
        for attempt in range(ATTEMPTS):
            send = functools.partial(self._client.send_message_batch, QueueUrl=self._queue_url, Entries=entries)
            failed = ask(functools.partial(_failed, _with_retries(send)))
            refused += sum(failed.values())
            entries = [entry for entry in entries if failed.get(entry["Id"]) is False]
            if not entries:
                break
            time.sleep(_backoff_s(attempt))
        return [], refused + len(entries)


class Forwarder:
    """Datagrams in, batches out, replies back. All methods are called in the loop's thread."""

    def __init__(
        self,
        destination: Destination,
        completions: Completions,
        stats: Stats,
        *,
        send: Callable[[Any, bytes], None],
        region: str,
        local: tuple[str, int],
        workers: int,
        delay_s: float,
        max_memory: int,
    ) -> None:
        self._destination = destination
        self._completions = completions
        self._stats = stats
        self._send = send
        self._region = region
        self._local = local
        self._workers = workers
        self._pool = WorkerPool("forward", threads=workers, limit=workers)
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._max_in_flight_bytes = max_memory // 4
        self._batcher = Batcher(
            delay_s=delay_s,
            max_count=destination.max_count,
            max_bytes=min(destination.max_bytes, max_memory // 8),
            max_waiting_bytes=max_memory // 2,
        )
        self._routes: collections.OrderedDict[Remote, Any] = collections.OrderedDict()
        self._latest: collections.OrderedDict[str, Any] = collections.OrderedDict()
        self._next_tag = random.getrandbits(48)

    def receive(self, origin: Any, peer_key: bytes, data: bytes, now: float) -> None:
        """One authentic datagram of `peer_key`."""
        try:
            datagram = parse_datagram(data)
        except MalformedPacket:
            self._stats.dropped_malformed += 1
            return
        self._stats.data += 1
        encoded_key = base64.b64encode(peer_key).decode()
        remote = Remote(*plain_address(origin.address), encoded_key)
        self._remember(remote, origin)
        envelope = Envelope(data, peer_key, (remote, origin), time.time() - max(0.0, clock.now() - now), now)
        if not self._batcher.add(envelope, datagram):
            self._stats.dropped_full += 1

    def flush(self, now: float) -> None:
        """Send what is due; to be called when the sockets are drained, and when a timer has passed."""
        while self._has_room() and self._batcher.is_due(now):
            batch = self._batcher.take(now)
            self._stats.dropped_stale = self._batcher.dropped_stale
            if not batch:
                return
            self._deliver(batch)

    def get_timer(self) -> float | None:
        """When to call `flush` again; None when nothing waits, or only a worker can change anything."""
        return self._batcher.get_timer() if self._has_room() else None

    def deliver_packet(self, packet: OutboundPacket) -> None:
        """Send a packet that came through the reply topic."""
        origin = self._routes.get(packet.remote) or self._latest.get(packet.remote.peer_key)
        if origin is None:
            self._stats.dropped_unroutable += 1
            return
        self._stats.replies += 1
        self._send(origin, packet.data)

    def count_unroutable(self) -> None:
        """A packet of the reply topic that is for nobody here."""
        self._stats.dropped_unroutable += 1

    @property
    def load(self) -> int:
        return self._in_flight + (1 if self._batcher.waiting_bytes else 0)

    def describe(self) -> dict[str, int]:
        """What waits and what is under way, for the log."""
        return {"waiting_bytes": self._batcher.waiting_bytes, "in_flight_bytes": self._in_flight_bytes}

    def handle_timer(self, now: float) -> None:
        self.flush(now)

    def drain(self, now: float) -> None:
        """Everything that waits is due now."""
        self._batcher.expire_all()
        self.flush(now)

    def close(self, timeout_s: float) -> None:
        self._pool.close(timeout_s)

    def _has_room(self) -> bool:
        return self._in_flight < self._workers and self._in_flight_bytes < self._max_in_flight_bytes

    def _deliver(self, batch: list[Envelope]) -> None:
        first_tag = self._next_tag
        self._next_tag += len(batch)
        messages = [
            GatewayMessage(
                f"{first_tag + number:x}", envelope.origin[0], *self._local, envelope.received_at, self._region, envelope.data
            )
            for number, envelope in enumerate(batch)
        ]
        origins = [envelope.origin[1] for envelope in batch]
        size = sum(message_bytes(envelope.data) for envelope in batch)

        def finish(replies: list[Reply], lost: int) -> None:
            self._in_flight -= 1
            self._in_flight_bytes -= size
            self._stats.forwarded += len(batch) - lost
            self._stats.forward_failures += lost
            for reply in replies:
                self._answer(reply, first_tag, origins)

        def job() -> None:
            try:
                replies, lost = self._destination.deliver(messages)
            except (ClientError, BotoCoreError, MalformedPacket) as error:
                _log.error("%d datagrams could not be forwarded: %s", len(messages), error)
                replies, lost = [], len(messages)
            except Exception:
                _log.exception("%d datagrams could not be forwarded", len(messages))
                replies, lost = [], len(messages)
            self._completions.put(lambda: finish(replies, lost))

        self._in_flight += 1
        self._in_flight_bytes += size
        self._stats.forward_batches += 1
        if not self._pool.submit(job):
            finish([], len(batch))

    def _answer(self, reply: Reply, first_tag: int, origins: Sequence[Any]) -> None:
        try:
            number = int(reply.tag, 16) - first_tag
        except ValueError:
            number = -1
        if not 0 <= number < len(origins):
            self._stats.dropped_unroutable += 1
            return
        self._stats.replies += 1
        self._send(origins[number], reply.data)

    def _remember(self, remote: Remote, origin: Any) -> None:
        for table, key in ((self._routes, remote), (self._latest, remote.peer_key)):
            table[key] = origin  # type: ignore[index]
            table.move_to_end(key)  # type: ignore[arg-type]
            if len(table) > MAX_ROUTES:
                table.popitem(last=False)


def _failed(answer: Any) -> dict[str, bool]:
    """The ids that SendMessageBatch did not take, and whether that was their own fault."""
    return {entry["Id"]: bool(entry.get("SenderFault")) for entry in answer.get("Failed", [])}


def _with_retries(call: Callable[[], Any]) -> Any:
    """Throttling, 5xx and lost connections are tried again; a call that timed out may have run, so it is not.

    Raises MalformedPacket for an answer that makes no sense.
    """
    for attempt in range(ATTEMPTS):
        try:
            return ask(call)
        except ReadTimeoutError:
            raise
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            if attempt == ATTEMPTS - 1 or not (status >= 500 or status == 429 or "Throttl" in str(error)):
                raise
        except BotoCoreError:
            if attempt == ATTEMPTS - 1:
                raise
        time.sleep(_backoff_s(attempt))
    raise AssertionError


def _backoff_s(attempt: int) -> float:
    return random.uniform(0.5, 1.0) * FIRST_BACKOFF_S * (1 << attempt)
