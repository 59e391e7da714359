"""Forward mode on a local AWS: a real Lambda that answers by Tag, real queues, a real topic."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile

import pytest
from gateway_rig import Client, GatewayProcess, Transfer, local_aws, wait_until

from raptor_s3.wire.gateway_message import OutboundPacket, Remote, build_packets, parse_message
from raptor_s3.wire.transfer_state import StateType, TransferState, build_transfer_state
from raptor_s3.wireguard.keys import key_to_base64, public_key

# Writes what it got to a bucket, and answers each message with a state that says how many came with it. No backend here.
INGESTOR = """
import base64, json, os, boto3

def handler(event, context):
    messages = event["Messages"]
    s3 = boto3.client("s3")
    s3.put_object(Bucket="batches", Key=messages[0]["Tag"], Body=json.dumps(event))
    replies = []
    for message in messages:
        data = base64.b64decode(message["Data"])
        object_id = data[1:1 + data[0]]
        head = b"rapt" + bytes([3]) + len(messages).to_bytes(2, "big") + bytes([0, len(object_id)])
        replies.append({"Tag": message["Tag"], "Data": base64.b64encode(head + object_id).decode()})
    return {"Replies": replies}
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with local_aws(tmp_path_factory.mktemp("aws")) as client:
        client("s3").create_bucket(Bucket="batches")
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("ingestor.py", INGESTOR)
        client("lambda").create_function(
            FunctionName="ingestor",
            Runtime="python3.11",
            Role="arn:aws:iam::000000000000:role/r",
            Handler="ingestor.handler",
            Code={"ZipFile": archive.getvalue()},
            Timeout=30,
        )
        yield client


@pytest.fixture
def queues(aws):
    sqs = aws("sqs")
    suffix = os.urandom(4).hex()
    return tuple(sqs.create_queue(QueueName=f"{name}-{suffix}")["QueueUrl"] for name in ("ingest", "replies"))


def batches(aws) -> list[dict]:
    s3 = aws("s3")
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket="batches").get("Contents", [])]
    return [json.loads(s3.get_object(Bucket="batches", Key=key)["Body"].read()) for key in keys]


def of_transfer(messages, transfer: Transfer) -> list:
    return [message for message in messages if message.data[1:23] == transfer.object_id.encode()]


@pytest.fixture
def lambda_gateway(aws, tmp_path):
    options = ("--forward-lambda", "ingestor", "--aws-endpoint-url", aws.url, "--workers", "2")
    with GatewayProcess(tmp_path, *options, peers={"cam": {}, "other": {}}) as gateway:
        yield gateway


def test_an_object_reaches_the_lambda_in_one_batch_and_the_answer_its_sender(lambda_gateway, aws):
    client = lambda_gateway.client("cam").handshake()
    transfer = Transfer.put(os.urandom(20_000))
    sent_at = time.time()
    for datagram in transfer.source():
        client.send(datagram)
    state = client.wait_final(transfer.object_id)
    assert state.received == len(transfer.sent)
    (batch,) = [batch for batch in batches(aws) if of_transfer(map(parse_message, batch["Messages"]), transfer)]
    messages = [parse_message(message) for message in batch["Messages"]]
    assert sorted(message.data for message in messages) == sorted(transfer.sent)
    assert {message.remote.peer_key for message in messages} == {key_to_base64(public_key(lambda_gateway.private_keys["cam"]))}
    assert {message.remote.address for message in messages} == {"127.0.0.1"}
    assert {message.remote.port for message in messages} == {client.socket.getsockname()[1]}
    assert {message.ingress_region for message in messages} == {"us-east-1"}
    assert {message.local_port for message in messages} == {lambda_gateway.ready["port"]}
    assert all(sent_at - 1 < message.received_at < time.time() for message in messages)
    assert len({message.tag for message in messages}) == len(messages)


def test_an_incomplete_object_goes_after_the_delay_and_its_rest_later(lambda_gateway):
    client = lambda_gateway.client("cam").handshake()
    transfer = Transfer.put(os.urandom(20_000))
    *some, last = transfer.source()
    for datagram in some:
        client.send(datagram)
    assert client.wait_final(transfer.object_id).received == len(some)
    client.states.clear()
    client.send(last)
    wait_until(lambda: client.receive(0.1) and any(state.received == 1 for state in client.states), "the rest is not answered")


def test_answers_reach_the_peer_that_asked(lambda_gateway):
    clients = [lambda_gateway.client(name).handshake() for name in ("cam", "other", "cam")]
    transfers = [Transfer.put(os.urandom(3000)) for _ in clients]
    for client, transfer in zip(clients, transfers, strict=True):
        for datagram in transfer.source():
            client.send(datagram)
    for client, transfer in zip(clients, transfers, strict=True):
        client.wait_final(transfer.object_id)
        assert {state.object_id for state in client.states} == {transfer.object_id}


def test_garbage_does_not_reach_the_lambda_and_term_forwards_what_waits(lambda_gateway, aws):
    client = lambda_gateway.client("cam").handshake()
    client.send(b"\x16no datagram")
    transfer = Transfer.put(os.urandom(20_000))
    client.send(transfer.source()[0])
    wait_until(lambda: '"data": 1' in lambda_gateway.log, "the datagram is not counted")
    stats = lambda_gateway.stop()
    assert stats["dropped_malformed"] == 1
    assert stats["forwarded"] == 1
    assert any(of_transfer(map(parse_message, batch["Messages"]), transfer) for batch in batches(aws))


def test_a_lambda_that_does_not_exist_is_counted_and_not_fatal(aws, tmp_path):
    options = ("--forward-lambda", "nowhere", "--aws-endpoint-url", aws.url)
    with GatewayProcess(tmp_path, *options, peers={"cam": {}}) as gateway:
        client = gateway.client("cam").handshake()
        for datagram in Transfer.put(b"x").source():
            client.send(datagram)
        wait_until(lambda: "could not be forwarded" in gateway.log, "no complaint")
        assert gateway.stop()["forward_failures"] == 1


@pytest.mark.parametrize("is_raw", [False, True])
def test_sqs_gets_one_message_a_datagram_and_sns_brings_the_answer(aws, queues, tmp_path, is_raw):
    sqs, sns = aws("sqs"), aws("sns")
    ingest, replies = queues
    arn = sqs.get_queue_attributes(QueueUrl=replies, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=f"replies-{os.urandom(4).hex()}")["TopicArn"]
    attributes = {"RawMessageDelivery": "true"} if is_raw else {}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)
    options = ("--forward-sqs", ingest, "--replies-queue", replies, "--aws-endpoint-url", aws.url)
    with GatewayProcess(tmp_path, *options, peers={"cam": {}}) as gateway:
        client = gateway.client("cam").handshake()
        transfer = Transfer.put(os.urandom(30_000))
        for datagram in transfer.source():
            client.send(datagram)
        messages = []

        def all_there() -> bool:
            answer = sqs.receive_message(QueueUrl=ingest, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            messages.extend(parse_message(message["Body"]) for message in answer.get("Messages", []))
            return len(messages) >= len(transfer.sent)

        wait_until(all_there, "datagrams are missing in the queue")
        assert sorted(message.data for message in messages) == sorted(transfer.sent)

        def reply(state_type: StateType, remote: Remote, **more) -> None:
            packet = OutboundPacket(remote, build_transfer_state(TransferState(state_type, transfer.object_id)))
            sns.publish(TopicArn=topic, Message=json.dumps(build_packets([packet])), **more)

        def region(name: str) -> dict:
            return {"MessageAttributes": {"EgressRegion": {"DataType": "String", "StringValue": name}}}

        remote = messages[0].remote
        reply(StateType.FAILED, remote)
        reply(StateType.FAILED, remote, **region("mars-north-1"))
        reply(StateType.FAILED, remote._replace(peer_key=key_to_base64(os.urandom(32))), **region("us-east-1"))
        sns.publish(TopicArn=topic, Message="nonsense", **region("us-east-1"))
        reply(StateType.BLOCK_COMPLETE, remote._replace(port=9), **region("us-east-1"))
        reply(StateType.COMPLETE, remote, **region("us-east-1"))
        assert client.wait_final(transfer.object_id).type is StateType.COMPLETE
        wait_until(lambda: client.receive(0.1) or len(client.states) == 2, "the moved peer's packet is missing")
        stats = gateway.stop()
        assert stats["dropped_unroutable"] == 4
        assert stats["replies"] == 2
        assert stats["forwarded"] == len(transfer.sent)


def test_plaintext_forwards_without_a_peer_key(aws, tmp_path):
    options = ("--forward-lambda", "ingestor", "--aws-endpoint-url", aws.url, "--plaintext")
    with GatewayProcess(tmp_path, *options) as gateway:
        client = Client(gateway.ready, None)
        transfer = Transfer.put(b"open")
        for datagram in transfer.source():
            client.send(datagram)
        client.wait_final(transfer.object_id)
        (message,) = [
            message for batch in batches(aws) for message in of_transfer(map(parse_message, batch["Messages"]), transfer)
        ]
        assert message.remote.peer_key == ""
