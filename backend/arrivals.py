"""One event's datagrams, sorted by transfer.

    SQS       {"Records": [{"messageId", "body": message}, ...]}       one gateway message per record
    Lambda    {"Messages": [message, ...]}                             a batch, answered with {"Replies": [...]}

Invariant: every datagram of the event ends up in exactly one `Arrivals`, or in `refused` with the reason; bad ones don't take
good ones with them, and nothing is allocated in proportion to a number in a header.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from backend.transfers import Shape, TransferKey
from raptor_s3.errors import MalformedPacket
from raptor_s3.transfer.bounds import check_bounds
from raptor_s3.wire.datagram import parse_datagram
from raptor_s3.wire.gateway_message import GatewayMessage, parse_messages


class Received(NamedTuple):
    """One gateway message. `record_id` is the SQS message's id, empty where the event came from the gateway itself."""

    message: GatewayMessage
    record_id: str = ""


@dataclass(slots=True)
class Arrivals:
    """What one event holds of one transfer. Times are Unix seconds, by the gateway's clock."""

    key: TransferKey
    shape: Shape
    first_received_at: float
    last: GatewayMessage
    """The latest message: where answers go."""
    last_sbn: int = 0
    last_esi: int = 0
    is_cancelled: bool = False
    symbols: dict[int, dict[int, bytes]] = field(default_factory=dict)
    """By source block number and encoding symbol id; duplicates are gone."""
    record_ids: set[str] = field(default_factory=set)

    @property
    def may_be_whole(self) -> bool:
        """Whether every source block has at least K symbols here."""
        oti = self.shape.oti
        return all(len(self.symbols.get(sbn, ())) >= oti.block_symbols(sbn) for sbn in range(oti.source_blocks))


class Event(NamedTuple):
    """A parsed event. `is_queue`: whether failures are to be reported per record."""

    arrivals: list[Arrivals]
    refused: Counter[str]
    is_queue: bool


def read_event(event: object) -> Event:
    """Sort any JSON value that a function may be invoked with. `refused` counts by metric name."""
    refused: Counter[str] = Counter()
    received: list[Received] = []
    records = event.get("Records") if isinstance(event, Mapping) else None
    messages = event.get("Messages") if isinstance(event, Mapping) else None
    if isinstance(records, list):
        for record in records:
            _read_record(record, received, refused)
    elif isinstance(messages, list):
        _read_messages(event, "", received, refused)
    else:
        refused["EventsRefused"] += 1
    return Event(sort_by_transfer(received, refused), refused, isinstance(records, list))


def _read_record(record: object, received: list[Received], refused: Counter[str]) -> None:
    if not isinstance(record, Mapping) or not isinstance(record.get("messageId"), str):
        refused["EventsRefused"] += 1
        return
    _read_messages(record.get("body"), record["messageId"], received, refused)


def _read_messages(value: object, record_id: str, received: list[Received], refused: Counter[str]) -> None:
    try:
        messages, malformed = parse_messages(value)
    except MalformedPacket:
        refused["MessagesRefused"] += 1
        return
    received += (Received(message, record_id) for message in messages)
    if malformed:
        refused["MessagesRefused"] += len(malformed)


def sort_by_transfer(received: Iterable[Received], refused: Counter[str]) -> list[Arrivals]:
    """Group by (peer key, object id). The first datagram pins the shape; what differs is refused."""
    transfers: dict[TransferKey, Arrivals] = {}
    for message, record_id in received:
        try:
            datagram = parse_datagram(message.data)
            check_bounds(datagram.oti)
        except MalformedPacket:
            refused["DatagramsMalformed"] += 1
            continue
        key = TransferKey(message.remote.peer_key, datagram.object_id)
        arrivals = transfers.get(key)
        if arrivals is None:
            arrivals = transfers[key] = Arrivals(key, Shape.of(datagram), message.received_at, message)
        elif arrivals.shape != Shape.of(datagram):
            refused["DatagramsMismatched"] += 1
            continue
        arrivals.first_received_at = min(arrivals.first_received_at, message.received_at)
        if message.received_at >= arrivals.last.received_at:
            arrivals.last, arrivals.last_sbn, arrivals.last_esi = message, datagram.sbn, datagram.esi
        if record_id:
            arrivals.record_ids.add(record_id)
        if datagram.is_cancel:
            arrivals.is_cancelled = True
        else:
            arrivals.symbols.setdefault(datagram.sbn, {})[datagram.esi] = bytes(memoryview(datagram.symbol))
    return list(transfers.values())
