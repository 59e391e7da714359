"""Transfer states on their way back to the sender.

    Lambda destination   inline, {"Replies": [{"Tag", "Data"}]}: no further service
    everything else      SNS, {"Messages": [{"Remote", "Data"}]}, many packets in one publish, one publish per EgressRegion

The string attribute EgressRegion is mandatory: without it the gateway drops the message without a word.

Invariant: a lost reply is never an error of the transfer. The sender asks again, and the final state is still known.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raptor_s3.wire.gateway_message import GatewayMessage, OutboundPacket, Remote, Reply, build_packets, build_replies
from raptor_s3.wire.transfer_state import FINAL_TYPES, StateType, TransferState, build_transfer_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_PUBLISH_BYTES: Final = 240_000
"""Under SNS's 256 KiB, the attribute included."""


class Route(NamedTuple):
    """Where one transfer's states go. `tag` is the gateway's name for the message that is being answered."""

    remote: Remote
    region: str
    tag: str = ""

    @classmethod
    def back_to(cls, message: GatewayMessage) -> Route:
        return cls(message.remote, message.ingress_region, message.tag)


class Answer(NamedTuple):
    route: Route
    state: TransferState


def for_published_client(state: TransferState) -> TransferState | None:
    """The same without JSON; None where a published client would take a failure for a success (docs/wire.md)."""
    if state.type in FINAL_TYPES and state.type is not StateType.COMPLETE:
        return None
    received = state.received if state.type is StateType.PACKETS else 0
    return TransferState(state.type, state.object_id, state.sbn, received)


def inline(answers: Iterable[Answer]) -> dict[str, Any]:
    """A Lambda destination's return value."""
    return build_replies(Reply(answer.route.tag, build_transfer_state(answer.state)) for answer in answers)


class ReplyTopic:
    """Publishes to the topic that the gateway's packet source listens to."""

    def __init__(self, sns: Any, topic_arn: str, report: Callable[[str], None]) -> None:
        self._sns = sns
        self._topic_arn = topic_arn
        self._report = report

    def publish(self, answers: Iterable[Answer]) -> None:
        by_region: defaultdict[str, list[OutboundPacket]] = defaultdict(list)
        for answer in answers:
            by_region[answer.route.region].append(OutboundPacket(answer.route.remote, build_transfer_state(answer.state)))
        for region, packets in by_region.items():
            if not region:
                self._report(f"{len(packets)} replies have no region to leave from")
                continue
            for some in _portions(packets):
                self._publish(some, region)

    def _publish(self, packets: list[OutboundPacket], region: str) -> None:
        try:
            self._sns.publish(
                TopicArn=self._topic_arn,
                Message=json.dumps(build_packets(packets), separators=(",", ":")),
                MessageAttributes={"EgressRegion": {"DataType": "String", "StringValue": region}},
            )
        except Exception as error:
            self._report(f"{len(packets)} replies could not be published: {error}")


def _portions(packets: list[OutboundPacket]) -> Iterable[list[OutboundPacket]]:
    portion: list[OutboundPacket] = []
    size = 0
    for packet in packets:
        packet_size = len(packet.data) * 4 // 3 + 200
        if portion and size + packet_size > MAX_PUBLISH_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(packet)
        size += packet_size
    if portion:
        yield portion
