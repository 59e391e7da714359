"""Enough symbols of a block, or of a whole small object, are in the table: decode, and write.

    small (below 5 MiB)   all blocks decoded here      one PutObject; no other S3 request
    large                 one block decoded, staged    BLOCK_COMPLETE; the last one: joined by a multipart upload

Invariant: a singular set of symbols is not a failure. The sender hears how many the block has, sends more, and another
message with a higher distinct count comes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from backend.delivery import block_name
from backend.inflight import Busy, InFlight, MismatchedShape, Record
from backend.ingestion import CompletionMessage, decoder_for, degree_table, is_small
from backend.replies import Answer, Route, for_published_client
from backend.transfers import TransferKey, block_oti
from raptor_s3.codec import ObjectDecoder
from raptor_s3.errors import MalformedPacket
from raptor_s3.wire.gateway_message import parse_remote
from raptor_s3.wire.transfer_state import StateType, TransferState

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.delivery import Delivery
    from backend.objects import Objects


def parse_completion(text: object) -> CompletionMessage:
    """Raises MalformedPacket."""
    try:
        fields: Any = json.loads(text) if isinstance(text, str | bytes) else text
        sbn, names = fields["Sbn"], [fields[name] for name in ("PeerKey", "ObjectId", "Region")]
        remote = parse_remote(fields["Remote"])
        for name in names:
            name.encode()  # every str, and none with lone surrogates
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MalformedPacket(f"completion message does not parse: {type(error).__name__}") from None
    if sbn is not None and (type(sbn) is not int or not 0 <= sbn <= 0xFF):
        raise MalformedPacket("Sbn is no source block number")
    peer_key, object_id, region = names
    return CompletionMessage(TransferKey(peer_key, object_id), sbn, Route(remote, region))


class Completion:
    def __init__(self, inflight: InFlight, delivery: Delivery, objects: Objects, count: Callable[[str], None]) -> None:
        self._inflight = inflight
        self._delivery = delivery
        self._objects = objects
        self._count = count

    def complete(self, message: CompletionMessage, lease_until: float) -> list[Answer]:
        """What is raised says: deliver this message again."""
        record = self._inflight.get(message.key)
        if record is None:
            self._count("CompletionsForgotten")
            return []
        try:
            states = self._states(record, message.sbn, lease_until)
        except (Busy, MismatchedShape):
            return []
        if not record.shape.has_put_header:
            states = [reduced for state in states if (reduced := for_published_client(state)) is not None]
        if not self._delivery.guard:
            states = [state for state in states if state.type is not StateType.CANCELLED]
        return [Answer(message.route, state) for state in states]

    def _states(self, record: Record, sbn: int | None, lease_until: float) -> list[TransferState]:
        if record.outcome is not None:
            return [record.outcome]
        if is_small(record.shape):
            return self._complete_small(record, lease_until)
        if sbn is None or sbn >= record.shape.oti.source_blocks:
            raise MismatchedShape
        return self._complete_block(record, sbn, lease_until)

    def _complete_small(self, record: Record, lease_until: float) -> list[TransferState]:
        decoder = decoder_for(record.shape)
        short = []
        for sbn in range(record.shape.oti.source_blocks):
            _fill(decoder, sbn, self._inflight, record, sbn)
            if decoder.missing(sbn):
                short.append(TransferState(StateType.PACKETS, record.key.object_id, sbn, decoder.received(sbn)))
        if short:
            self._count("SingularSets")
            return short
        data = bytes(decoder.data())
        return [self._delivery.deliver(record.key, record.shape, record.first_at, data, lease_until, record=record)]

    def _complete_block(self, record: Record, sbn: int, lease_until: float) -> list[TransferState]:
        done = len(record.done)
        if sbn not in record.done:
            decoder = ObjectDecoder(block_oti(record.shape.oti, sbn), degree_table(record.shape))
            _fill(decoder, 0, self._inflight, record, sbn)
            if not decoder.is_complete:
                self._count("SingularSets")
                return [TransferState(StateType.PACKETS, record.key.object_id, sbn, decoder.received(0))]
            self._objects.stage(block_name(record, sbn), bytes(decoder.data()))
            done = self._inflight.mark(record, "done", sbn)
        if done < record.shape.oti.source_blocks:
            return [TransferState(StateType.BLOCK_COMPLETE, record.key.object_id, sbn)]
        return [self._delivery.join(record, lease_until)]


def _fill(decoder: ObjectDecoder, sbn: int, inflight: InFlight, record: Record, stored_sbn: int) -> None:
    for esi, symbol in inflight.symbols(record, stored_sbn):
        decoder.add(sbn, esi, symbol)
        if not decoder.missing(sbn):
            return
