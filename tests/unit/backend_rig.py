"""A backend on moto, with a clock that the test moves, and a sender that makes real datagrams."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws

from backend.arrivals import read_event
from backend.completion import parse_completion
from backend.replies import Answer
from backend.runtime import Runtime, assemble
from backend.settings import Settings
from raptor_s3.codec import ObjectEncoder, ObjectTransmissionInformation
from raptor_s3.wire.datagram import (
    FLAG_CANCEL,
    FLAG_PUT_HEADER,
    FLAG_RFC6330_REPAIR,
    Datagram,
    build_datagram,
    plan_object,
)
from raptor_s3.wire.gateway_message import GatewayMessage, Remote, build_message
from raptor_s3.wire.put_header import build_put_header, crc32_field
from raptor_s3.wire.transfer_state import TransferState

PEER = base64.b64encode(bytes(range(32))).decode()
STRANGER = base64.b64encode(bytes(32)).decode()
BUCKET = "objects"
POLICY = {
    "peers": [{"public_key": PEER, "allow": [{"bucket": BUCKET, "prefixes": ["in/"], "options": ["Tagging"]}], "legacy": True}]
}
REGION = "us-east-1"
START = 1_800_000_000.0


@dataclass
class Sender:
    """One put's datagrams. `number` makes the transfer id."""

    body: bytes
    number: int = 1
    peer: str = PEER
    key: str = "in/file"
    ttl_ms: int = 5_000
    fields: dict[str, Any] = field(default_factory=dict)
    object_id: str = ""
    flags: int = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR
    oti: ObjectTransmissionInformation | None = None

    def __post_init__(self) -> None:
        data = self.body
        if self.flags & FLAG_PUT_HEADER:
            self.object_id = base64.urlsafe_b64encode(self.number.to_bytes(16, "big")).decode().rstrip("=")
            header = {
                "Bucket": BUCKET,
                "Key": self.key,
                "ChecksumCRC32": crc32_field(self.body),
                "TtlMs": self.ttl_ms,
            } | self.fields
            data = build_put_header(header) + self.body
        self.oti = self.oti or plan_object(len(data), len(self.object_id.encode()))
        self._encoder: ObjectEncoder | None = None
        self._data = data

    @property
    def symbols(self) -> int:
        """K of the first block."""
        assert self.oti is not None
        return self.oti.block_symbols(0)

    def datagram(self, esi: int, sbn: int = 0) -> bytes:
        assert self.oti is not None
        if self._encoder is None:
            probe = Datagram(self.object_id, self.oti, self.flags, 0, 0, b"")
            self._encoder = ObjectEncoder(self._data, self.oti, probe.degree_table)
        return build_datagram(Datagram(self.object_id, self.oti, self.flags, sbn, esi, self._encoder.symbol(sbn, esi)))

    def source(self) -> list[bytes]:
        assert self.oti is not None
        return [self.datagram(esi, sbn) for sbn in range(self.oti.source_blocks) for esi in range(self.oti.block_symbols(sbn))]

    def cancel(self) -> bytes:
        assert self.oti is not None
        return build_datagram(Datagram(self.object_id, self.oti, self.flags | FLAG_CANCEL, 0, 0, b""))


def published(path: str, body: bytes) -> Sender:
    """What the published CLI sends: a path, no put header, the other degree table."""
    return Sender(body, object_id=path, flags=0)


class Crash(Exception):
    """The sandbox died."""


class Rig:
    """The backend's parts over moto. `now` is the time for all of them."""

    def __init__(self, policy: Any = None, *, guard: bool = True, max_peer_bytes: int = 64 << 20) -> None:
        self.now = START
        self.crash_after: int | None = None
        """AWS calls that still go through, SSM's not counted; before the one after them the function dies."""
        self._tag = 0
        self.pending: list[str] = []
        self.undo: list[Callable[[], None]] = []
        self.s3, self.sqs, self.dynamodb = _client("s3"), _client("sqs"), _client("dynamodb")
        self.sns, self.ssm = _client("sns"), _client("ssm")
        for bucket in (BUCKET, "staging"):
            self.s3.create_bucket(Bucket=bucket)
        self.dynamodb.create_table(
            TableName="inflight",
            KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
            BillingMode="PAY_PER_REQUEST",
        )
        self.completion_url = self.sqs.create_queue(QueueName="completion.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
        self.topic = self.sns.create_topic(Name="replies")["TopicArn"]
        self.set_policy(POLICY if policy is None else policy)
        self.settings = Settings(
            table="inflight",
            completion_queue_url=self.completion_url,
            reply_topic_arn=self.topic,
            objects_bucket=BUCKET,
            staging_bucket="staging",
            policy_parameter="/raptor/policy",
            published_prefix="in/published/",
            guard_direct_writes=guard,
            max_peer_bytes=max_peer_bytes,
        )
        self.calls: list[tuple[str, str]] = []
        self.runtime = self.assemble()

    def assemble(self) -> Runtime:
        """A fresh sandbox on the same table and buckets."""
        return assemble(self.settings, self._watched, lambda: self.now, self._sleep)

    def close(self) -> None:
        """Shared clients are left as they were."""
        for undo in self.undo:
            undo()

    def fail_s3(self, errors: list[Exception | None], operation: str = "put_object") -> list[str]:
        """Make the runtime's S3 calls raise these first; None goes through. Returns the keys that were tried."""
        tried: list[str] = []

        def faulty(real: Callable[..., Any], **parameters: Any) -> Any:
            tried.append(parameters.get("Key", ""))
            error = errors.pop(0) if errors else None
            if error is not None:
                raise error
            return real(**parameters)

        self.replace_s3(operation, faulty)
        return tried

    def replace_s3(self, operation: str, call: Callable[..., Any]) -> None:
        """`call(real, **parameters)` runs in place of this S3 operation of the runtime."""
        self._replace("s3", operation, call)

    def lose_answers(self) -> None:
        """DynamoDB's answers to writes are lost: the runtime gets the repeated request's, as from boto3."""

        def repeated(real: Callable[..., Any], **parameters: Any) -> Any:
            with contextlib.suppress(ClientError):
                real(**parameters)
            return real(**parameters)

        for operation in ("update_item", "delete_item", "put_item"):
            self._replace("dynamodb", operation, repeated)

    def _replace(self, service: str, operation: str, call: Callable[..., Any]) -> None:
        client = _client(service, watched=True)
        real = getattr(client, operation)
        setattr(client, operation, functools.partial(call, real))
        self.undo.append(lambda: client.__dict__.pop(operation, None))

    def set_policy(self, policy: Any) -> None:
        text = policy if isinstance(policy, str) else json.dumps(policy)
        self.ssm.put_parameter(Name="/raptor/policy", Value=text, Type="String", Overwrite=True)

    def change(self, **settings: Any) -> None:
        self.settings = replace(self.settings, **settings)
        self.runtime = self.assemble()

    def message(self, datagram: bytes, *, peer: str = PEER, received_at: float | None = None) -> GatewayMessage:
        self._tag += 1
        received_at = self.now if received_at is None else received_at
        return GatewayMessage(f"{self._tag:x}", Remote("192.0.2.7", 4242, peer), "gw", 51820, received_at, REGION, datagram)

    def deliver(self, datagrams: Sequence[bytes], *, peer: str = PEER, received_at: float | None = None) -> list[Answer]:
        """One event with these datagrams, through the ingestor's parts."""
        messages = [build_message(self.message(each, peer=peer, received_at=received_at)) for each in datagrams]
        return self.ingest({"Messages": messages})

    def ingest(self, event: Any) -> list[Answer]:
        return [
            answer for arrivals in read_event(event).arrivals for answer in self.runtime.ingestion.ingest(arrivals, self.now + 30)
        ]

    def complete(self) -> list[Answer]:
        """Let the completer take everything from its queue; what it crashed on comes again the next time."""
        while messages := self.sqs.receive_message(QueueUrl=self.completion_url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self.sqs.delete_message(QueueUrl=self.completion_url, ReceiptHandle=message["ReceiptHandle"])
                self.pending.append(message["Body"])
        answers: list[Answer] = []
        while self.pending:
            answers += self.runtime.completion.complete(parse_completion(self.pending[0]), self.now + 60)
            del self.pending[0]
        return answers

    def object(self, key: str = "in/file") -> bytes | None:
        try:
            body: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return None
        return body

    def called(self, service: str) -> list[str]:
        """Operations of one service since the last `forget_calls`."""
        return [operation for name, operation in self.calls if name == service]

    def _watched(self, service: str) -> Any:
        client = _client(service, watched=True)

        def note(model: Any, **_: Any) -> None:
            self.calls.append((service, model.name))
            if self.crash_after is not None and service != "ssm":
                self.crash_after -= 1
                if self.crash_after < 0:
                    self.crash_after = None
                    raise Crash

        client.meta.events.register("before-call", note, unique_id="rig")
        self.undo.append(lambda: client.meta.events.unregister("before-call", unique_id="rig"))
        return client

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


@contextlib.contextmanager
def rig(policy: Any = None, **options: Any) -> Iterator[Rig]:
    with mock_aws(), contextlib.ExitStack() as stack:
        made = Rig(policy, **options)
        stack.callback(made.close)
        yield made


@functools.cache
def _client(service: str, *, watched: bool = False) -> Any:
    """Clients take longer to make than any test here takes to run, so all tests share them."""
    client = boto3.client(service, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")
    if service == "s3":
        client.meta.events.register("before-parse.s3.HeadObject", _say_the_date)
    return client


def _say_the_date(response_dict: dict[str, Any], **_: Any) -> None:
    """S3 does, moto doesn't."""
    response_dict["headers"].setdefault("date", formatdate(usegmt=True))


def states(answers: Sequence[Answer]) -> list[TransferState]:
    return [answer.state for answer in answers]


def client_error(code: str, status: int):
    details = {"Error": {"Code": code, "Message": "because"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(details, "PutObject")


def throttled():
    return client_error("SlowDown", 503)
