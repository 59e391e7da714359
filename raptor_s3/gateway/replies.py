"""Replies that come later: an SQS queue subscribed to the backend's reply topic, read by long polling (docs/gateway.md).

Bodies are SNS envelopes, or with raw message delivery the topic's message itself. The attribute EgressRegion says which
region's gateway is meant; without it, or with another, a message is dropped.

Invariant: a message is deleted once its packets are handed to the loop; one that does not parse is deleted and counted.
Nothing that comes back from the queue ends a thread.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from raptor_s3.errors import MalformedPacket
from raptor_s3.gateway.trouble import ask
from raptor_s3.net import clock
from raptor_s3.wire.gateway_message import OutboundPacket, parse_packets

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.gateway.workers import Completions

_log = logging.getLogger(__name__)

MESSAGES: Final = 10
FAILED_INTERVALS_S: Final = (0.5, 10.0)
"""From one poll's beginning to the next one's: at least the first after a failure, doubled up to the second by more of them."""
EMPTY_INTERVALS_S: Final = (0.1, 2.0)
"""The same after polls that came back empty sooner than the second: then somebody doesn't wait for messages as he was asked
to. With two threads such a queue costs a request a second."""


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
        clock: Callable[[], float] = clock.now,
    ) -> None:
        self._client = client
        self._queue_url = queue_url
        self._completions = completions
        self._region = region
        self._deliver = deliver
        self._count_dropped = count_dropped
        self._clock = clock
        self._stopped = threading.Event()
        for number in range(threads):
            threading.Thread(target=self._poll, name=f"replies-{number}", daemon=True).start()

    def stop(self) -> None:
        """No further polls; one that waits for messages is left to end by itself."""
        self._stopped.set()

    def turn(self, interval_s: float) -> float:
        """One poll; how far its beginning and the next one's must be apart, given how far it was from the one before."""
        began_at = self._clock()
        first_s, most_s = FAILED_INTERVALS_S
        try:
            has_messages = self._receive()
            first_s, most_s = EMPTY_INTERVALS_S
            if has_messages or self._clock() - began_at >= most_s:
                return 0.0
            if interval_s * 2 >= most_s > interval_s:
                _log.warning("%s says at once that it is empty, again and again", self._queue_url)
        except (ClientError, BotoCoreError, MalformedPacket) as error:
            _log.error("can't read replies from %s: %s", self._queue_url, error)
        except Exception:
            _log.exception("can't read replies from %s", self._queue_url)
        return min(max(interval_s * 2, first_s), most_s)

    def _poll(self) -> None:
        interval_s = 0.0
        while not self._stopped.is_set():
            began_at = self._clock()
            interval_s = self.turn(interval_s)
            self._stopped.wait(max(0.0, began_at + interval_s - self._clock()))

    def _receive(self) -> bool:
        """Whether there were messages."""
        response = ask(
            lambda: self._client.receive_message(
                QueueUrl=self._queue_url,
                WaitTimeSeconds=self.WAIT_S,
                MaxNumberOfMessages=MESSAGES,
                MessageAttributeNames=["EgressRegion"],
            )
        )
        messages = response.get("Messages", []) if isinstance(response, Mapping) else None
        if not isinstance(messages, list):
            raise MalformedPacket("AWS answered nonsense: no list of messages")
        for message in messages:
            self._hand_over(message)
        handles = [message.get("ReceiptHandle") for message in messages if isinstance(message, Mapping)]
        entries = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles) if handle]
        if entries:
            ask(lambda: self._client.delete_message_batch(QueueUrl=self._queue_url, Entries=entries))
        if len(entries) < len(messages):
            raise MalformedPacket("AWS answered nonsense: messages without a receipt handle")
        return bool(messages)

    def _hand_over(self, message: object) -> None:
        """One message's packets to the loop; one that can't be understood is dropped, whatever it is."""
        try:
            packets = parse_reply_message(message, self._region)
        except MalformedPacket as error:
            _log.warning("dropped a reply: %s", error)
        except Exception:
            _log.exception("dropped a reply")
        else:
            for packet in packets:
                self._completions.put(functools.partial(self._deliver, packet))
            return
        self._completions.put(self._count_dropped)


def parse_reply_message(message: object, region: str) -> list[OutboundPacket]:
    """The packets of one SQS message. Raises MalformedPacket, also for a message meant for another region or for none."""
    if not isinstance(message, Mapping) or not isinstance(message.get("Body"), str):
        raise MalformedPacket("no body")
    try:
        body = json.loads(message["Body"])
    except (ValueError, RecursionError) as error:
        raise MalformedPacket(f"not JSON: {error}") from None
    egress = _egress_region(message.get("MessageAttributes"), "StringValue")
    if isinstance(body, dict) and body.get("Type") == "Notification":
        egress = _egress_region(body.get("MessageAttributes"), "Value")
        body = body.get("Message")
    if egress != region:
        raise MalformedPacket(f"EgressRegion is {egress and egress[:40]!r}, this gateway stands in {region!r}")
    return parse_packets(body)


def _egress_region(attributes: object, field: str) -> str | None:
    attribute = attributes.get("EgressRegion") if isinstance(attributes, Mapping) else None
    value = attribute.get(field) if isinstance(attribute, Mapping) else None
    return value if isinstance(value, str) else None
