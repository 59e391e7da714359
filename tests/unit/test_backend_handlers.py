"""The three handlers as Lambda calls them: real event JSON in, partial failures out."""

from __future__ import annotations

import json

import pytest
from backend_rig import PEER, Sender, rig
from botocore.exceptions import ClientError

from raptor_s3.wire.gateway_message import build_message, parse_packets, parse_replies
from raptor_s3.wire.transfer_state import StateType, parse_transfer_state

BODY = bytes(3000)


class Context:
    """What the handlers use of a Lambda context."""

    function_name = "ingestor"
    memory_limit_in_mb = 1024
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:ingestor"
    aws_request_id = "6bc28136-xmpl-4365-b021-0ce6b2e64ab0"

    def get_remaining_time_in_millis(self) -> int:
        return 15_000


def sqs_event(bodies, *, fifo: bool = False):
    """As Lambda's documentation shows it: developer guide, "Using Lambda with Amazon SQS"."""
    return {
        "Records": [
            {
                "messageId": f"059f36b4-87a3-44ab-83d2-66197596{number:04d}",
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1545082649183",
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                    "ApproximateFirstReceiveTimestamp": "1545082649185",
                    **({"MessageGroupId": "g", "MessageDeduplicationId": str(number)} if fifo else {}),
                },
                "messageAttributes": {},
                "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:queue",
                "awsRegion": "us-east-1",
            }
            for number, body in enumerate(bodies)
        ]
    }


@pytest.fixture
def backend(monkeypatch):
    from backend import completer, ingestor

    with rig() as made:
        for module in (ingestor, completer):
            monkeypatch.setattr(module, "runtime", lambda: made.runtime)
        monkeypatch.setattr("backend.runtime.time.time", lambda: made.now)
        queue = made.sqs.create_queue(QueueName="replies")["QueueUrl"]
        arn = made.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        made.sns.subscribe(TopicArn=made.topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
        made.replies = queue
        yield made


def ingest(event):
    from backend.ingestor import handler

    return handler(event, Context())


def complete(event):
    from backend.completer import handler

    return handler(event, Context())


def bodies(backend, datagrams):
    return [json.dumps(build_message(backend.message(datagram))) for datagram in datagrams]


def published_states(backend):
    messages = backend.sqs.receive_message(QueueUrl=backend.replies, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
        "Messages", []
    )
    assert all(message["MessageAttributes"]["EgressRegion"]["StringValue"] == "us-east-1" for message in messages)
    return [parse_transfer_state(packet.data) for message in messages for packet in parse_packets(message["Body"])]


class TestIngestor:
    def test_a_batch_of_the_gateway_is_answered_inline_by_tag(self, backend):
        messages = [build_message(backend.message(each)) for each in Sender(BODY).source()]
        reply = parse_replies(ingest({"Messages": messages}))[0]
        assert reply.tag == messages[-1]["Tag"]
        assert parse_transfer_state(reply.data).type is StateType.COMPLETE
        assert published_states(backend) == []

    def test_records_of_the_queue_are_answered_through_the_topic(self, backend):
        assert ingest(sqs_event(bodies(backend, Sender(BODY).source()))) == {"batchItemFailures": []}
        assert [state.type for state in published_states(backend)] == [StateType.COMPLETE]
        assert backend.object() == BODY

    def test_only_the_records_of_the_transfer_that_failed_come_again(self, backend):
        good, bad = Sender(BODY, 1, key="in/good"), Sender(BODY, 2, key="in/bad")
        mixed = [each for pair in zip(good.source(), bad.source(), strict=True) for each in pair]

        def throttle_bad(real, **parameters):
            if parameters["Key"] == "in/bad":
                details = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
                raise ClientError(details, "PutObject")
            return real(**parameters)

        backend.replace_s3("put_object", throttle_bad)
        event = sqs_event(["garbage", *bodies(backend, mixed)])
        failed = {entry["itemIdentifier"] for entry in ingest(event)["batchItemFailures"]}
        assert failed == {record["messageId"] for record in event["Records"][2::2]}
        assert (backend.object("in/good"), backend.object("in/bad")) == (BODY, None)

    def test_when_all_fail_all_come_again(self, backend):
        backend.dynamodb.delete_table(TableName="inflight")
        event = sqs_event(bodies(backend, Sender(BODY).source()))
        assert len(ingest(event)["batchItemFailures"]) == len(event["Records"])

    def test_without_a_queue_what_failed_is_not_answered(self, backend):
        backend.dynamodb.delete_table(TableName="inflight")
        messages = [build_message(backend.message(each)) for each in Sender(BODY).source()]
        assert ingest({"Messages": messages}) == {"Replies": []}

    def test_a_lost_reply_is_no_failure(self, backend):
        backend.sns.delete_topic(TopicArn=backend.topic)
        assert ingest(sqs_event(bodies(backend, Sender(BODY).source()))) == {"batchItemFailures": []}
        assert backend.object() == BODY

    @pytest.mark.parametrize(
        "event",
        [None, "text", 7, [], {}, {"Records": None}, {"Messages": {}}, {"Messages": [None, 1, "x", {"Data": 3}]}],
    )
    def test_nonsense_is_dropped(self, backend, event, capsys):
        assert ingest(event) in ({"Replies": []}, {"batchItemFailures": []})
        assert "Refused" in capsys.readouterr().out

    def test_a_message_that_no_parser_takes_is_dropped_alone(self, backend):
        puts = [Sender(BODY[:50], number, key=f"in/{number}") for number in range(1, 10)]
        good = [build_message(backend.message(put.source()[0])) for put in puts]
        bad = good[0] | {"ReceivedAt": 10**400}
        assert ingest(sqs_event([json.dumps(each) for each in [bad, *good]])) == {"batchItemFailures": []}
        assert len(parse_replies(ingest({"Messages": [bad, *good]}))) == 9
        assert all(backend.object(put.key) == put.body for put in puts)

    @pytest.mark.parametrize("records", [[], [None], [{"messageId": 1}], [{"messageId": []}], [{}], ["x"]])
    def test_records_that_are_none_are_dropped(self, backend, records):
        assert ingest({"Records": records}) == {"batchItemFailures": []}
        assert complete({"Records": records}) == {"batchItemFailures": []}

    def test_neither_bodies_nor_keys_are_logged(self, backend, capsys):
        sender = Sender(b"very secret body", fields={"SSEKMSKeyId": "secret-key"})
        ingest({"Messages": [build_message(backend.message(each)) for each in sender.source()]})
        output = capsys.readouterr()
        assert "secret" not in output.out + output.err


class TestCompleter:
    def test_completes_and_publishes(self, backend):
        sender = Sender(BODY)
        for datagram in sender.source():
            backend.deliver([datagram])
        messages = backend.sqs.receive_message(QueueUrl=backend.completion_url, MaxNumberOfMessages=10)["Messages"]
        assert complete(sqs_event([message["Body"] for message in messages], fifo=True)) == {"batchItemFailures": []}
        assert published_states(backend)[0].type is StateType.COMPLETE
        assert backend.object() == BODY

    def test_what_fails_comes_again_and_holds_up_its_group(self, backend):
        sender = Sender(BODY)
        for datagram in sender.source():
            backend.deliver([datagram])
        body = backend.sqs.receive_message(QueueUrl=backend.completion_url)["Messages"][0]["Body"]
        backend.fail_s3([ClientError({"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": 500}}, "P")] * 99)
        from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError

        with pytest.raises(BatchProcessingError):  # Lambda takes it for the failure of all
            complete(sqs_event([body, body], fifo=True))
        answer = complete(sqs_event(["garbage", body, body], fifo=True))
        assert len(answer["batchItemFailures"]) == 2

    @pytest.mark.parametrize("body", ["", "[]", "{}", '{"PeerKey": 1}', "null", '{"PeerKey":"","ObjectId":"","Sbn":"x"}'])
    def test_garbage_is_dropped(self, backend, body):
        assert complete(sqs_event([body])) == {"batchItemFailures": []}

    @pytest.fixture
    def message(self, backend):
        """Of an object that only the completer still has to write."""
        for datagram in Sender(BODY).source():
            backend.deliver([datagram])
        return backend.sqs.receive_message(QueueUrl=backend.completion_url)["Messages"][0]["Body"]

    @pytest.mark.parametrize(
        "change",
        [{"Sbn": sbn} for sbn in (-1, 256, 10**400, 1e999, True, "0", [])]
        + [{name: value} for name in ("PeerKey", "ObjectId", "Region") for value in (1, None, [], {}, "\ud800")]
        + [{"Remote": remote} for remote in ("x", None, {}, {"Address": "192.0.2.7", "Port": 10**400, "PeerKey": ""})],
    )
    def test_a_message_with_a_bad_field_is_dropped_alone(self, backend, message, change):
        bad = json.dumps(json.loads(message) | change)
        assert complete(sqs_event([bad, message], fifo=True)) == {"batchItemFailures": []}
        assert backend.object() == BODY

    @pytest.mark.parametrize(
        "change",
        [{"messageId": value} for value in ([], {}, None, 5)]
        + [{"attributes": value} for value in (True, None, [], "x", 1.5, {"MessageGroupId": {}}, {"MessageGroupId": []})],
    )
    def test_a_record_that_is_none_is_dropped_alone(self, backend, message, change, capsys):
        event = sqs_event([message, message], fifo=True)
        event["Records"][0] |= change
        assert complete(event) == {"batchItemFailures": []}
        assert backend.object() == BODY
        assert '"EventsRefused":[1.0]' in capsys.readouterr().out.replace(" ", "")

    def test_a_block_that_can_not_be(self, backend):
        sender = Sender(bytes(6 << 20), ttl_ms=60_000)
        backend.deliver([sender.datagram(0)])
        from backend.ingestion import CompletionMessage
        from backend.replies import Route
        from backend.transfers import TransferKey
        from raptor_s3.wire.gateway_message import Remote

        message = CompletionMessage(TransferKey(PEER, sender.object_id), 250, Route(Remote("192.0.2.1", 1, PEER), "r"))
        assert complete(sqs_event([message.build()])) == {"batchItemFailures": []}


class TestEncoder:
    @pytest.mark.parametrize(
        "event",
        [None, {}, {"Key": 1}, {"Key": "k"}, {"Key": "k", "Endpoint": "wg://h:1"}, {"Key": "k", "Endpoint": "udp://h"}]
        + [{"Key": "k", "Endpoint": "udp://h:1", "RateMbps": rate} for rate in (0, -1, "x", 1e9)],
    )
    def test_says_what_is_wrong_with_its_event(self, event):
        from backend.encoder import handler
        from raptor_s3.errors import ConfigError

        with pytest.raises(ConfigError):
            handler(event, Context())
