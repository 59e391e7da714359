"""The real template.yaml on MiniStack: datagrams by Lambda invocation and through the queue, objects read back from S3.

One stack serves all tests of this module; every put has a key and a transfer id of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from backend_rig import PEER, STRANGER, Sender, published

from backend.local import LocalStack, LocalStackError
from backend.package import ROOT
from raptor_s3.wire.gateway_message import (
    GatewayMessage,
    Remote,
    build_batch,
    build_message,
    parse_packets,
    parse_replies,
)
from raptor_s3.wire.transfer_state import StateType, TransferState, build_transfer_state, parse_transfer_state

POLICY = {"peers": [{"public_key": PEER, "allow": [{"bucket": "*", "options": ["Tagging"]}], "legacy": True}]}
WAIT_S = 60.0
NUMBERS = itertools.count(1)


class Backend:
    """A sender's view of the stack, without a gateway in between."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self.sqs, self.s3, self._lambda = (stack.client(name) for name in ("sqs", "s3", "lambda"))
        self._replies = stack.subscribe(stack.outputs["ReplyTopicArn"], "test-replies")
        self._seen: dict[str, list[TransferState]] = {}

    def sender(self, body: bytes, **options) -> Sender:
        number = next(NUMBERS)
        fields = {"Bucket": self.stack.bucket, **options.pop("fields", {})}
        options.setdefault("ttl_ms", 60_000)
        return Sender(body, number, key=f"put/{number}", fields=fields, **options)

    def message(self, datagram: bytes, peer: str, received_at: float | None) -> GatewayMessage:
        remote = Remote("192.0.2.7", 4242, peer)
        return GatewayMessage(f"{next(NUMBERS):x}", remote, "gw", 1, received_at or time.time(), "us-east-1", datagram)

    def invoke_raw(self, payload: bytes):
        answer = self._lambda.invoke(FunctionName=self.stack.outputs["IngestorFunctionName"], Payload=payload)
        text = answer["Payload"].read()
        assert "FunctionError" not in answer, text
        return json.loads(text)

    def invoke(self, datagrams, peer=PEER, received_at=None) -> list[TransferState]:
        batch = build_batch(self.message(datagram, peer, received_at) for datagram in datagrams)
        return [parse_transfer_state(reply.data) for reply in parse_replies(self.invoke_raw(json.dumps(batch).encode()))]

    def enqueue(self, datagrams, peer=PEER) -> None:
        bodies = [json.dumps(build_message(self.message(datagram, peer, None))) for datagram in datagrams]
        self.enqueue_raw(bodies)

    def enqueue_raw(self, bodies) -> None:
        for start in range(0, len(bodies), 10):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
            self.sqs.send_message_batch(QueueUrl=self.stack.outputs["IngestionQueueUrl"], Entries=entries)

    def reply(self, sender: Sender, kind: StateType = StateType.COMPLETE) -> TransferState:
        """Wait until this state of this transfer comes through the topic."""
        deadline = time.monotonic() + WAIT_S
        while True:
            for state in self._seen.get(sender.object_id, ()):
                if state.type is kind:
                    return state
            assert time.monotonic() < deadline, f"no {kind.name}, but {self._seen.get(sender.object_id)}"
            self.receive_replies()

    def receive_replies(self, wait_s: int = 2) -> None:
        answer = self.sqs.receive_message(
            QueueUrl=self._replies, MaxNumberOfMessages=10, WaitTimeSeconds=wait_s, MessageAttributeNames=["All"]
        )
        for message in answer.get("Messages", ()):
            assert message["MessageAttributes"]["EgressRegion"]["StringValue"] == "us-east-1"
            for packet in parse_packets(message["Body"]):
                assert packet.remote == Remote("192.0.2.7", 4242, PEER)
                state = parse_transfer_state(packet.data)
                self._seen.setdefault(state.object_id, []).append(state)
            self.sqs.delete_message(QueueUrl=self._replies, ReceiptHandle=message["ReceiptHandle"])

    def sha256(self, key: str) -> str | None:
        try:
            body = self.s3.get_object(Bucket=self.stack.bucket, Key=key)["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return None
        return hashlib.sha256(body).hexdigest()

    def assert_stored(self, sender: Sender) -> None:
        assert self.sha256(sender.key) == hashlib.sha256(sender.body).hexdigest()


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    with LocalStack(tmp_path_factory.mktemp("stack"), policy=POLICY) as stack:
        yield Backend(stack)


def only(states):
    assert len(states) == 1, states
    return states[0]


def test_the_stack_has_all_its_parts(backend):
    outputs = backend.stack.outputs
    assert outputs["ListenerPort"] == str(backend.stack.gateway_endpoint.port)
    for name in ("IngestionQueueUrl", "CompletionQueueUrl"):
        attributes = backend.sqs.get_queue_attributes(QueueUrl=outputs[name], AttributeNames=["All"])["Attributes"]
        assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] in (5, "5")
    mappings = backend.stack.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert len(mappings) == 2
    assert all(mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"] for mapping in mappings)


@pytest.mark.parametrize("size", [0, 1, 1_000, 100_000])
def test_a_whole_batch_is_answered_inline(backend, size):
    sender = backend.sender(os.urandom(size), fields={"ContentType": "text/x", "Tagging": "a=b"})
    state = only(backend.invoke(sender.source()))
    assert state.type is StateType.COMPLETE
    assert state.fields["ETag"] == f'"{hashlib.md5(sender.body).hexdigest()}"'
    backend.assert_stored(sender)
    head = backend.s3.head_object(Bucket=backend.stack.bucket, Key=sender.key)
    assert head["ContentType"] == "text/x"


def test_the_queue_delivers_too(backend):
    sender = backend.sender(os.urandom(5_000))
    backend.enqueue(sender.source())
    assert backend.reply(sender).fields["ETag"]
    backend.assert_stored(sender)


def test_loss_duplicates_and_disorder_go_through_the_completer(backend):
    sender = backend.sender(os.urandom(60_000))
    k = sender.symbols
    symbols = [sender.datagram(esi) for esi in range(k + 6) if esi % 12 != 5]
    symbols += symbols[:9]
    random.Random(7).shuffle(symbols)
    for start in range(0, len(symbols), 13):
        backend.invoke(symbols[start : start + 13])
    state = backend.reply(sender)
    assert state.fields["ETag"] == f'"{hashlib.md5(sender.body).hexdigest()}"'
    backend.assert_stored(sender)
    # asked again, by a symbol never sent before
    assert only(backend.invoke([sender.datagram(k + 40)])).fields == state.fields


def test_too_few_symbols_are_reported_and_topped_up(backend):
    sender = backend.sender(os.urandom(9_000))
    k = sender.symbols
    state = only(backend.invoke([sender.datagram(esi) for esi in range(1, k)]))
    assert (state.type, state.received) == (StateType.PACKETS, k - 1)
    assert only(backend.invoke([sender.datagram(k + 2)])).type is StateType.ENOUGH_PACKETS
    backend.reply(sender)
    backend.assert_stored(sender)


def test_an_older_put_does_not_overwrite_a_newer_one(backend):
    older, newer = backend.sender(b"older"), backend.sender(b"newer")
    newer = Sender(b"newer", next(NUMBERS), key=older.key, fields={"Bucket": backend.stack.bucket})
    assert only(backend.invoke(older.source())).type is StateType.COMPLETE
    assert only(backend.invoke(newer.source())).type is StateType.COMPLETE
    assert only(backend.invoke(older.source())).type is StateType.COMPLETE  # a late second delivery
    assert only(backend.invoke([older.datagram(9)])).type is StateType.COMPLETE  # a late repair symbol
    backend.assert_stored(newer)


def test_past_its_time_to_live_nothing_is_written(backend):
    sender = backend.sender(b"late", ttl_ms=1_000)
    state = only(backend.invoke(sender.source(), received_at=time.time() - 1.5))
    assert state.type is StateType.CANCELLED
    assert backend.sha256(sender.key) is None


def test_a_cancel_is_promised_and_kept(backend):
    sender = backend.sender(os.urandom(5_000))
    backend.invoke(sender.source()[:2])
    assert only(backend.invoke([sender.cancel()])).type is StateType.CANCELLED
    assert only(backend.invoke(sender.source())).type is StateType.CANCELLED
    assert backend.sha256(sender.key) is None


def test_if_none_match_twice(backend):
    sender = backend.sender(b"lock", fields={"IfNoneMatch": "*"})
    first = only(backend.invoke(sender.source()))
    assert first.type is StateType.COMPLETE
    assert only(backend.invoke(sender.source())).fields == first.fields
    rival = Sender(b"other", next(NUMBERS), key=sender.key, fields={"Bucket": backend.stack.bucket, "IfNoneMatch": "*"})
    state = only(backend.invoke(rival.source()))
    assert (state.fields["Code"], state.fields["StatusCode"]) == ("PreconditionFailed", 412)
    backend.assert_stored(sender)


def test_s3_checks_the_body(backend):
    sender = backend.sender(b"x", fields={"ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
    state = only(backend.invoke(sender.source()))
    assert (state.fields["Code"], state.fields["StatusCode"]) == ("BadDigest", 400)


def test_peers_that_the_policy_does_not_name_are_refused(backend):
    sender = backend.sender(b"x")
    assert only(backend.invoke(sender.source(), peer=STRANGER)).fields["Code"] == "AccessDenied"
    assert backend.invoke(sender.source(), peer="") == []
    assert backend.sha256(sender.key) is None


def test_the_published_client_is_understood(backend):
    sender = published(f"2026/{next(NUMBERS)}.bin", os.urandom(9_000))
    k = sender.symbols
    backend.enqueue([sender.datagram(esi) for esi in range(3, k + 9)])
    state = backend.reply(sender)
    assert state.fields is None
    assert backend.sha256(f"published/{sender.object_id}") == hashlib.sha256(sender.body).hexdigest()


@pytest.mark.parametrize(
    "event", ['"text"', "null", "[]", "{}", '{"Messages": "x"}', '{"Messages": [1, {}, {"Data": "!"}]}', '{"Records": [{}]}']
)
def test_events_that_mean_nothing_are_dropped(backend, event):
    assert backend.invoke_raw(event.encode()) in ({"Replies": []}, {"batchItemFailures": []})


def test_a_payload_that_is_not_json_does_no_harm(backend):
    lambda_ = backend.stack.client("lambda")
    with contextlib.suppress(lambda_.exceptions.InvalidRequestContentException):  # where Lambda itself refuses it
        answer = lambda_.invoke(FunctionName=backend.stack.outputs["IngestorFunctionName"], Payload=b"not JSON")
        assert "FunctionError" not in answer
    sender = backend.sender(b"after")
    assert only(backend.invoke(sender.source())).type is StateType.COMPLETE


def test_garbage_in_the_queue_takes_nothing_with_it(backend):
    sender = backend.sender(os.urandom(3_000))
    good = [json.dumps(build_message(backend.message(each, PEER, None))) for each in sender.source()]
    backend.enqueue_raw(["not JSON", good[0], '{"Data": "AAAA"}', json.dumps([1]), good[1], "{}", good[2], good[3]])
    backend.reply(sender)
    backend.assert_stored(sender)
    for name in ("IngestionQueueUrl", "IngestionDeadLetterUrl"):
        assert _depth(backend, name) == 0
    assert "MessagesRefused" in backend.stack.lambda_log("Ingestor")


def test_a_large_object_is_joined_from_staged_blocks(backend):
    sender = backend.sender(random.Random(1).randbytes(6 << 20), fields={"ContentType": "x/large"}, ttl_ms=600_000)
    datagrams = sender.source()
    del datagrams[700]
    datagrams.append(sender.datagram(5_000, 1))
    random.Random(2).shuffle(datagrams)
    for start in range(0, len(datagrams), 1_500):
        backend.invoke(datagrams[start : start + 1_500])
    state = backend.reply(sender)
    assert state.fields["ETag"].endswith('-1"')
    backend.assert_stored(sender)
    head = backend.s3.head_object(Bucket=backend.stack.bucket, Key=sender.key)
    assert (head["ContentLength"], head["ContentType"]) == (6 << 20, "x/large")


def test_a_thousand_datagrams_of_many_puts_in_one_invocation(backend):
    senders = [backend.sender(os.urandom(2_500)) for _ in range(60)]
    mixed = [datagram for sender in senders for datagram in sender.source()]
    random.Random(3).shuffle(mixed)
    states = backend.invoke(mixed)
    assert [state.type for state in states] == [StateType.COMPLETE] * 60
    for sender in senders:
        backend.assert_stored(sender)


def test_the_encoder_sends_an_object_over_udp(backend):
    body = os.urandom(20_000)
    backend.s3.put_object(Bucket=backend.stack.bucket, Key="to-send", Body=body)
    from raptor_s3.codec import ObjectDecoder
    from raptor_s3.wire.datagram import parse_datagram
    from raptor_s3.wire.put_header import split_put_object

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(20)
        event = {
            "Key": "to-send",
            "Endpoint": f"udp://127.0.0.1:{udp.getsockname()[1]}",
            "Target": {"Bucket": "b", "Key": "k"},
        }
        function = backend.stack.outputs["EncoderFunctionName"]
        import threading

        answers = []
        client = backend.stack.client("lambda")
        thread = threading.Thread(
            target=lambda: answers.append(
                json.loads(client.invoke(FunctionName=function, Payload=json.dumps(event).encode())["Payload"].read())
            )
        )
        thread.start()
        decoder = None
        while decoder is None or not decoder.is_complete:
            data, source = udp.recvfrom(2048)
            datagram = parse_datagram(data)
            decoder = decoder or ObjectDecoder(datagram.oti)
            decoder.add(datagram.sbn, datagram.esi, datagram.symbol)
        fields, received = split_put_object(decoder.data())
        done = TransferState(StateType.COMPLETE, datagram.object_id, fields={"ETag": '"e"'})
        udp.sendto(build_transfer_state(done), source)
        thread.join(WAIT_S)
    assert (fields["Key"], bytes(received)) == ("k", body)
    assert (answers[0]["Outcome"], answers[0]["Answer"]) == ("CONFIRMED", {"ETag": '"e"'})


def _depth(backend: Backend, name: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    deadline = time.monotonic() + 10
    while True:
        url = backend.stack.outputs[name]
        attributes = backend.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        depth = sum(map(int, attributes.values()))
        if depth == 0 or time.monotonic() > deadline:
            return depth
        time.sleep(0.1)


class TestLife:
    def test_a_stack_that_fails_says_why_and_leaves_nothing(self, tmp_path):
        nowhere = "arn:aws:lambda:us-east-1:000000000000:function:nowhere"
        stack = LocalStack(tmp_path, parameters={"ProxylityServiceToken": nowhere})
        with pytest.raises(LocalStackError, match=r"(?s)Listener.*nowhere"), stack:
            pytest.fail("the stack came up")
        assert not list(tmp_path.glob("scratch-*"))
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", int(stack.endpoint_url.rpartition(":")[2])), 1)

    def test_sigterm_ends_everything(self, tmp_path):
        script = (
            "import sys, time; from backend.local import LocalStack\n"
            "with LocalStack(sys.argv[1], buckets=['mine'], parameters={'ObjectsBucketName': 'mine'}) as stack:\n"
            "    print(stack.endpoint_url, stack.bucket, flush=True); time.sleep(600)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        url, bucket = process.stdout.readline().split()
        assert bucket == "mine"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 1)
        assert not list(tmp_path.glob("scratch-*"))

    def test_a_gateway_that_does_not_start_says_why(self, backend, tmp_path):
        with pytest.raises(LocalStackError, match=r"raptor gateway ended(.|\n)*missing\.key"):
            backend.stack.start_gateway(tmp_path / "missing.key", tmp_path / "peers.json")
        assert not backend.stack.gateway_is_running
