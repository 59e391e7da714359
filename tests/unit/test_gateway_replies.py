"""The replies queue: whatever comes back from it, by botocore's own parser, over HTTP; and when it is asked again, by hand."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from raptor_s3.gateway.aws import make_client
from raptor_s3.gateway.log_throttle import Throttle
from raptor_s3.gateway.replies import EMPTY_INTERVALS_S, FAILED_INTERVALS_S, ReplyQueue
from raptor_s3.gateway.workers import Completions
from raptor_s3.wire.gateway_message import OutboundPacket, Remote, build_packets

REGION = "us-east-1"
PACKET = OutboundPacket(Remote("192.0.2.1", 9, "key"), b"state")


def message(body: object, *, handle: str = "good", region: object = REGION) -> dict:
    text = body if isinstance(body, str) else json.dumps(body)
    attributes = {"EgressRegion": {"DataType": "String", "StringValue": region}}
    return {"MessageId": handle, "ReceiptHandle": handle, "Body": text, "MessageAttributes": attributes}


GOOD = message(build_packets([PACKET]))


class Queue:
    """A ReplyQueue without threads; `answers` are what SQS says to ReceiveMessage: (status, octets)."""

    def __init__(self, client, answers: list[tuple[int, bytes]], deleted: list[str]) -> None:
        self.answers = answers
        self.deleted = deleted
        self.delivered: list[OutboundPacket] = []
        self.dropped = 0
        self.now = self.wait_s = 0.0
        self.completions = Completions(lambda: None)
        self.replies = ReplyQueue(
            client,
            f"{client.meta.endpoint_url}/0/replies",
            self.completions,
            region=REGION,
            deliver=self.delivered.append,
            count_dropped=self.count_dropped,
            threads=0,
            clock=self.clock,
        )

    def count_dropped(self) -> None:
        self.dropped += 1

    def clock(self) -> float:
        """A poll looks twice, and takes `wait_s`."""
        self.now += self.wait_s
        return self.now

    def turn(self, answer: object, interval_s: float = 0.0, *, status: int = 200) -> float:
        self.answers.append((status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()))
        interval_s = self.replies.turn(interval_s)
        self.completions.run()
        return interval_s


@pytest.fixture(scope="module")
def sqs():
    """A client of its own SQS; `answers`, used up one by one, and `deleted` are the server's."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.headers["X-Amz-Target"].endswith("ReceiveMessage"):
                status, octets = server.answers.pop(0)
            else:
                status, octets = 200, b"{}"
                server.deleted.extend(entry["ReceiptHandle"] for entry in request["Entries"])
            self.send_response(status)
            self.send_header("Content-Length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        server.client = make_client("sqs", region=REGION, endpoint_url=url, connections=2, read_timeout_s=5)
        yield server
        server.client.close()
        server.shutdown()


@pytest.fixture
def queue(sqs):
    sqs.answers, sqs.deleted = [], []
    return Queue(sqs.client, sqs.answers, sqs.deleted)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, b"<html>Mauvaise requ\xeate</html>"),
        (200, b"<html>\xff"),
        (200, b"[]"),
        (200, b"null"),
        (200, b'{"Messages": "x"}'),
        (200, b'{"Messages": {"Body": "x"}}'),
        (200, b'{"Messages": [1]}'),
        (200, b'{"Messages": [{"Body": "x"}]}'),
        (500, b"[]"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_failure_and_the_next_is_read(queue, caplog, request, status, answer):
    throttle = Throttle(clock=lambda: 100.0)
    caplog.handler.addFilter(throttle)
    request.addfinalizer(lambda: caplog.handler.removeFilter(throttle))
    assert queue.turn(answer, status=status) == FAILED_INTERVALS_S[0]
    assert queue.turn(answer, 0.75, status=status) == 1.5
    assert queue.turn(answer, FAILED_INTERVALS_S[1], status=status) == FAILED_INTERVALS_S[1]
    assert len([record for record in caplog.records if "can't read replies" in record.message]) == 1
    assert "Traceback" not in caplog.text
    assert queue.turn({"Messages": [GOOD]}, FAILED_INTERVALS_S[1]) == 0
    assert queue.delivered == [PACKET]


@pytest.mark.parametrize(
    "poison",
    [
        {"Type": "Notification", "MessageAttributes": [1], "Message": "secret"},
        {"Type": "Notification", "MessageAttributes": {"EgressRegion": REGION}, "Message": "secret"},
        {"Type": "Notification", "MessageAttributes": {"EgressRegion": {"Value": {"secret": 1}}}, "Message": "{}"},
        {"Type": "Notification", "MessageAttributes": {"EgressRegion": {"Value": REGION}}, "Message": ["secret"]},
        "\x00{secret",
        "[" * 100_000,
        "1" * 5000,
        ["secret"],
        {"Messages": [{"Remote": {"Address": "secret", "Port": 1e9}, "Data": ""}]},
    ],
    ids=str,
)
def test_a_message_that_makes_no_sense_is_deleted_and_the_others_are_delivered(queue, caplog, poison):
    assert queue.turn({"Messages": [GOOD, message(poison, handle="poison"), GOOD]}) == 0
    assert queue.delivered == [PACKET, PACKET]
    assert queue.dropped == 1
    assert sorted(queue.deleted) == ["good", "good", "poison"]
    assert "dropped a reply" in caplog.text
    assert "secret" not in caplog.text
    assert "Traceback" not in caplog.text


def test_a_message_without_a_body_is_deleted(queue):
    assert queue.turn({"Messages": [{"MessageId": "1", "ReceiptHandle": "empty"}]}) == 0
    assert queue.deleted == ["empty"]


@pytest.mark.parametrize("answer", [b"", b"{}", b"<html>portal</html>", b'{"Messages": []}'])
def test_polls_that_are_empty_at_once_are_spread_out(queue, caplog, answer):
    intervals = [0.0]
    for _ in range(8):
        intervals.append(queue.turn(answer, intervals[-1]))
    first_s, most_s = EMPTY_INTERVALS_S
    assert intervals[1:4] == [first_s, 2 * first_s, 4 * first_s]
    assert intervals[-2:] == [most_s, most_s]
    assert [record.message.partition(" says ")[2] for record in caplog.records] == ["at once that it is empty, again and again"]
    assert queue.turn({"Messages": [GOOD]}, most_s) == 0
    queue.wait_s = most_s
    assert queue.turn(answer, most_s) == 0
    queue.wait_s = most_s / 2
    assert queue.turn(answer, most_s) == most_s


def test_a_thread_asks_a_queue_that_does_not_wait_no_more_than_its_intervals_allow(queue):
    """The clock stands still but for the thread's own waits."""
    waits: list[float] = []
    ended = queue.replies._stopped

    def wait(timeout_s: float) -> None:
        waits.append(timeout_s)
        queue.now += timeout_s
        if len(waits) == 7:
            ended.set()

    queue.answers += [(200, b"{}")] * 7
    ended.wait = wait
    queue.replies._poll()
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_a_bug_does_not_end_a_turn_either(queue, caplog, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("raptor_s3.gateway.replies.parse_packets", lambda _: 1 // 0)
        assert queue.turn({"Messages": [GOOD]}) == 0
    assert "ZeroDivisionError" in caplog.text
    assert queue.dropped == 1
    assert queue.deleted == ["good"]
