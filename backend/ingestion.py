"""What becomes of one event's symbols of one transfer (docs/backend.md).

    cancel                               CANCELLED, unless a write was begun; the outcome if there is one
    the whole object is here             delivered at once: no second queue
    already finished                     the final state again
    being written                        BLOCK_COMPLETE: nothing more is needed
    else                                 symbols stored, distinct ESIs counted; enough -> completion queue

States with a put header say in `received` how far the sender had to come until the block had K symbols: 1 + the highest ESI
(types 1 and 3), as `raptor_s3.transfer.incoming` does; with type 0 the number of distinct symbols.

Invariant: running twice on the same event changes nothing: symbols and ESIs are sets, completion messages carry the distinct
count in their deduplication id, and delivery is claimed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from backend.inflight import Busy, InFlight, MismatchedShape, Record
from backend.replies import Answer, Route, for_published_client
from backend.settings import SMALL_OBJECT_BYTES
from raptor_s3.codec import DegreeTable, ObjectDecoder
from raptor_s3.errors import MalformedPacket
from raptor_s3.receiver.outcome import Outcome
from raptor_s3.wire.datagram import FLAG_RFC6330_REPAIR
from raptor_s3.wire.put_header import MAX_TTL_MS
from raptor_s3.wire.transfer_state import StateType, TransferState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backend.arrivals import Arrivals
    from backend.delivery import Delivery
    from backend.transfers import Shape, TransferKey
    from raptor_s3.receiver.policy import Policy

MAX_AGE_S: Final = MAX_TTL_MS / 1000
"""Older datagrams can't make anything be written."""
REPEAT_S: Final = 5
"""How often, at most, a question about an unfinished transfer sends the completer off again."""


@dataclass(frozen=True, slots=True)
class CompletionMessage:
    """To the completer. `sbn` is None where the whole object is to be decoded at once."""

    key: TransferKey
    sbn: int | None
    route: Route

    def build(self) -> str:
        remote = self.route.remote
        return json.dumps(
            {
                "PeerKey": self.key.peer_key,
                "ObjectId": self.key.object_id,
                "Sbn": self.sbn,
                "Remote": {"Address": remote.address, "Port": remote.port, "PeerKey": remote.peer_key},
                "Region": self.route.region,
            },
            separators=(",", ":"),
        )


class CompletionQueue:
    """The FIFO queue: one group per block, so that a block is completed by one function at a time."""

    def __init__(self, sqs: Any, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def send(self, message: CompletionMessage, attempt: str) -> None:
        """`attempt` tells apart messages that must not swallow each other, above all: another distinct count."""
        group = f"{message.key.digest}-{'all' if message.sbn is None else message.sbn}"
        self._sqs.send_message(
            QueueUrl=self._url,
            MessageBody=message.build(),
            MessageGroupId=group,
            MessageDeduplicationId=f"{group}-{attempt}",
        )


def decoder_for(shape: Shape) -> ObjectDecoder:
    return ObjectDecoder(shape.oti, degree_table(shape))


def degree_table(shape: Shape) -> DegreeTable:
    return DegreeTable.RFC6330 if shape.flags & FLAG_RFC6330_REPAIR else DegreeTable.RFC5053


def is_small(shape: Shape) -> bool:
    """Whether the object becomes one PutObject, decoded as a whole."""
    return shape.oti.transfer_length < SMALL_OBJECT_BYTES or shape.oti.source_blocks == 1


class Ingestion:
    def __init__(
        self,
        inflight: InFlight,
        delivery: Delivery,
        completions: CompletionQueue,
        policy: Callable[[], Policy],
        clock: Callable[[], float],
        count: Callable[[str], None],
    ) -> None:
        self._inflight = inflight
        self._delivery = delivery
        self._completions = completions
        self._policy = policy
        self._clock = clock
        self._count = count

    def ingest(self, arrivals: Arrivals, lease_until: float) -> list[Answer]:
        """Work on one transfer. What is raised says: deliver these messages again."""
        try:
            states = self._states(arrivals, lease_until)
        except MismatchedShape:
            self._count("DatagramsMismatched")
            return []
        except Busy:
            states = [_wait(arrivals.key, sbn) for sbn in arrivals.symbols]
        if not arrivals.shape.has_put_header:
            states = [reduced for state in states if (reduced := for_published_client(state)) is not None]
        route = Route.back_to(arrivals.last)
        return [Answer(route, state) for state in states if self._may_be_said(state)]

    def _states(self, arrivals: Arrivals, lease_until: float) -> list[TransferState]:
        key, shape = arrivals.key, arrivals.shape
        if arrivals.last.received_at < self._clock() - MAX_AGE_S:
            self._count("DatagramsStale")
            return []
        first_at = min(arrivals.first_received_at, self._clock())  # a gateway's clock that is fast lengthens no time to live
        grant = self._policy().grant(key.peer_key)
        if grant is None or not (grant.legacy or shape.has_put_header):
            self._count("PeersRefused")
            return self._refuse(key, shape, first_at)
        if arrivals.is_cancelled:
            self._count("Cancels")
            outcome = self._inflight.cancel(key, shape, first_at)
            return [] if outcome is None else [outcome]
        data = _decoded(arrivals)
        if data is not None:
            self._count("TransfersWhole")
            is_first = 0 in arrivals.symbols[0]  # encoding symbol ids are sent once, beginning with this one
            state = self._delivery.deliver(key, shape, first_at, data, lease_until, is_first_flight=is_first)
            sbn = arrivals.last_sbn
            return [state._replace(sbn=sbn, received=_reach(arrivals.symbols[sbn], shape.oti.block_symbols(sbn)))]
        return self._collect(arrivals, first_at)

    def _refuse(self, key: TransferKey, shape: Shape, first_at: float) -> list[TransferState]:
        """To a peer that the policy doesn't name. Published clients are told nothing, nor is whoever has no key."""
        if not key.peer_key or not shape.has_put_header:
            return []
        refusal = Outcome.refused("backend", "AccessDenied", "this peer is not known", 403).state(key.object_id)
        outcome = self._inflight.settle(key, shape, first_at, refusal)
        if outcome is None:
            raise Busy
        return [outcome]

    def _may_be_said(self, state: TransferState) -> bool:
        """Without a guard, direct writes and the table don't know of each other: "nothing will be written" would be a guess."""
        return self._delivery.guard or not (state.type is StateType.CANCELLED or _is_by_policy(state))

    def _collect(self, arrivals: Arrivals, first_at: float) -> list[TransferState]:
        record = self._inflight.open(arrivals.key, arrivals.shape, first_at)
        if record.outcome is not None:
            return [record.outcome]
        if record.lease_until > self._clock():
            return [_wait(record.key, sbn) for sbn in arrivals.symbols]
        self._count("TransfersStored")
        states = []
        for sbn, symbols in sorted(arrivals.symbols.items()):
            if sbn in record.done:
                states.append(_wait(record.key, sbn))
                self._nudge(record, sbn, Route.back_to(arrivals.last))
            else:
                states.append(self._collect_block(record, arrivals, sbn, symbols))
        return states

    def _collect_block(self, record: Record, arrivals: Arrivals, sbn: int, symbols: dict[int, bytes]) -> TransferState:
        wanted = record.shape.oti.block_symbols(sbn)
        esis = self._inflight.add_symbols(record, sbn, symbols)
        distinct = len(esis)
        if distinct < wanted:
            return self._progress(record, arrivals, sbn, distinct)
        route = Route.back_to(arrivals.last)
        if is_small(record.shape):
            blocks = record.shape.oti.source_blocks
            if blocks == 1 or self._inflight.mark(record, "enough", sbn) == blocks:
                self._completions.send(CompletionMessage(record.key, None, route), f"{sbn}-{distinct}")
        else:
            self._completions.send(CompletionMessage(record.key, sbn, route), str(distinct))
        return TransferState(StateType.ENOUGH_PACKETS, record.key.object_id, sbn, _reach(esis, wanted))

    def _nudge(self, record: Record, sbn: int, route: Route) -> None:
        """Every block is done and still there is no outcome: whoever was joining them may have died."""
        if len(record.done) == record.shape.oti.source_blocks and self._clock() >= record.lease_until:
            attempt = f"again-{int(self._clock() // REPEAT_S)}"
            self._completions.send(CompletionMessage(record.key, sbn, route), attempt)

    def _progress(self, record: Record, arrivals: Arrivals, sbn: int, distinct: int) -> TransferState:
        fields = None
        if record.shape.has_put_header and sbn == arrivals.last_sbn:
            last_at, first_at = arrivals.last.received_at, min(record.first_at, arrivals.first_received_at)
            fields = {
                "Esi": arrivals.last_esi,
                "Us": round((last_at - first_at) * 1e6),
                "Wait": max(0, round((self._clock() - last_at) * 1e6)),
            }
        return TransferState(StateType.PACKETS, record.key.object_id, sbn, distinct, fields)


def _reach(esis: Iterable[int], wanted: int) -> int:
    """1 + the highest ESI that had to be sent until the block had K symbols: what is missing below it was lost."""
    return sorted(esis)[wanted - 1] + 1


def _is_by_policy(state: TransferState) -> bool:
    """Whether this is our own refusal that another sandbox, with a newer policy, would not come to."""
    fields = state.fields or {}
    is_our_own = str(fields.get("Message", "")).startswith("backend: ")
    return state.type is StateType.FAILED and fields.get("Code") == "AccessDenied" and is_our_own


def _wait(key: TransferKey, sbn: int) -> TransferState:
    """Nothing more is needed of this block; the final state comes from whoever is writing."""
    return TransferState(StateType.BLOCK_COMPLETE, key.object_id, sbn)


def _decoded(arrivals: Arrivals) -> bytes | None:
    """The object, if this event alone holds it."""
    if not arrivals.may_be_whole:
        return None
    decoder = decoder_for(arrivals.shape)
    try:
        for sbn, symbols in arrivals.symbols.items():
            for esi, symbol in symbols.items():
                decoder.add(sbn, esi, symbol)
                if not decoder.missing(sbn):
                    break
    except MalformedPacket:
        return None
    return bytes(decoder.data()) if decoder.is_complete else None
