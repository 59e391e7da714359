"""Replies that come later: an SQS queue subscribed to the backend's reply topic, read by long polling (DESIGN 3.4).

Bodies are SNS envelopes, or with raw message delivery the topic's message itself. The attribute EgressRegion says which
region's gateway is meant; without it, or with another, a message is dropped.

Invariant: a message is deleted once its packets are handed to the loop; one that does not parse is deleted and counted.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from raptor_s3.errors import MalformedPacket
from raptor_s3.wire.gateway_message import OutboundPacket, parse_packets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from raptor_s3.gateway.workers import Completions

_log = logging.getLogger(__name__)

MESSAGES: Final = 10
MAX_BACKOFF_S: Final = 10.0


class ReplyQueue:
    """Polls in threads of its own; `deliver` is called in the loop's thread, `count_dropped` there too."""

    WAIT_S: Final = 20

    def __init__(
        self,
        client: Any,
        queue_url: str,
        completions: Completions,
        *,
        region: str,
        deliver: Callable[[OutboundPacket], None],
        count_dropped: Callable[[], None],
        threads: int = 2,
    ) -> None:
        self._client = client
        self._queue_url = queue_url
        self._completions = completions
        self._region = region
        self._deliver = deliver
        self._count_dropped = count_dropped
        self._stopped = threading.Event()
        for number in range(threads):
            threading.Thread(target=self._poll, name=f"replies-{number}", daemon=True).start()

    def stop(self) -> None:
        """No further polls; one that waits for messages is left to end by itself."""
        self._stopped.set()

    def _poll(self) -> None:
        backoff_s = 0.5
        while not self._stopped.is_set():
            try:
                self._receive()
                backoff_s = 0.5
            except (ClientError, BotoCoreError) as error:
                _log.error("can't read replies from %s: %s", self._queue_url, error)
                self._stopped.wait(backoff_s)
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    def _receive(self) -> None:
        response = self._client.receive_message(
            QueueUrl=self._queue_url,
            WaitTimeSeconds=self.WAIT_S,
            MaxNumberOfMessages=MESSAGES,
            MessageAttributeNames=["EgressRegion"],
        )
        messages = response.get("Messages", [])
        for message in messages:
            try:
                packets = parse_reply_message(message, self._region)
            except MalformedPacket as error:
                _log.warning("dropped a reply: %s", error)
                self._completions.put(self._count_dropped)
                continue
            for packet in packets:
                self._completions.put(lambda packet=packet: self._deliver(packet))  # type: ignore[misc]
        if messages:
            self._client.delete_message_batch(
                QueueUrl=self._queue_url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]} for number, message in enumerate(messages)
                ],
            )


def parse_reply_message(message: Mapping[str, Any], region: str) -> list[OutboundPacket]:
    """The packets of one SQS message. Raises MalformedPacket, also for a message meant for another region or for none."""
    try:
        body = json.loads(message["Body"])
    except (ValueError, RecursionError) as error:
        raise MalformedPacket(f"not JSON: {error}") from None
    egress = message.get("MessageAttributes", {}).get("EgressRegion", {}).get("StringValue")
    if isinstance(body, dict) and body.get("Type") == "Notification":
        attribute = (body.get("MessageAttributes") or {}).get("EgressRegion") or {}
        egress = attribute.get("Value")
        body = body.get("Message")
    if egress != region:
        raise MalformedPacket(f"EgressRegion is {egress!r}, this gateway stands in {region!r}")
    return parse_packets(body)
