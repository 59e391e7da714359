"""Forward mode without sockets: a Forwarder and real datagrams, destinations and AWS clients that a test scripts."""

from __future__ import annotations

import io
import os
import threading
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from raptor_s3.gateway.batching import MAX_WAIT_S
from raptor_s3.gateway.forward import Forwarder, LambdaDestination, SqsDestination
from raptor_s3.gateway.log_throttle import Throttle
from raptor_s3.gateway.stats import Stats
from raptor_s3.gateway.workers import Completions
from raptor_s3.wire.datagram import Datagram, build_datagram, plan_object

PEER = bytes(range(32))


class Rig:
    """One worker; `put` is one datagram that is an object."""

    def __init__(self, destination) -> None:
        self.now = 100.0
        self.stats = Stats()
        self.sent: list[bytes] = []
        self.done = threading.Semaphore(0)
        self.completions = Completions(self.done.release)
        self.forwarder = Forwarder(
            destination,
            self.completions,
            self.stats,
            send=lambda origin, payload: self.sent.append(payload),
            region="us-east-1",
            local=("127.0.0.1", 51820),
            workers=1,
            delay_s=0.05,
            max_memory=16 << 20,
        )

    def put(self) -> None:
        oti = plan_object(1, 22)
        data = build_datagram(Datagram(os.urandom(11).hex(), oti, 0, 0, 0, bytes(oti.symbol_size)))
        self.forwarder.receive(SimpleNamespace(address=("192.0.2.1", 9)), PEER, data, self.now)
        self.forwarder.flush(self.now)

    def wait(self) -> None:
        """Until the worker is done; what has waited for it goes."""
        assert self.done.acquire(timeout=10)
        self.completions.run()
        self.forwarder.flush(self.now)


class Gate:
    """A destination that takes batches once it is open."""

    max_count = 10
    max_bytes = 1 << 20

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.batches: list[int] = []

    def deliver(self, messages):
        assert self.opened.wait(10)
        self.batches.append(len(messages))
        return [], 0


def test_what_waited_too_long_for_a_worker_is_dropped_and_counted():
    gate = Gate()
    rig = Rig(gate)
    for _ in range(4):
        rig.put()
    rig.now += MAX_WAIT_S + 1
    rig.put()
    gate.opened.set()
    rig.wait()
    rig.wait()
    assert gate.batches == [1, 1]
    assert (rig.stats.forwarded, rig.stats.dropped_stale, rig.stats.dropped_full) == (2, 3, 0)
    assert not rig.forwarder.load


class Aws:
    """A client whose calls all end in the same way."""

    def __init__(self, outcome) -> None:
        self.outcome = outcome

    def invoke(self, **_):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return {**self.outcome, "Payload": io.BytesIO(self.outcome["Payload"])}

    def send_message_batch(self, **_):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


UNREADABLE = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
FORBIDDEN = ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "Call")


@pytest.fixture
def throttled(caplog):
    throttle = Throttle(clock=lambda: 100.0)
    caplog.handler.addFilter(throttle)
    yield caplog
    caplog.handler.removeFilter(throttle)


@pytest.mark.parametrize(
    ("destination", "lost"),
    [
        (SqsDestination(Aws(UNREADABLE), "queue"), 5),
        (SqsDestination(Aws(FORBIDDEN), "queue"), 5),
        (SqsDestination(Aws(None), "queue"), 5),
        (SqsDestination(Aws({"Failed": [1]}), "queue"), 5),
        (SqsDestination(Aws({"Failed": [{"Code": "no id"}]}), "queue"), 5),
        (LambdaDestination(Aws(UNREADABLE), "name"), 5),
        (LambdaDestination(Aws(FORBIDDEN), "name"), 5),
        (LambdaDestination(Aws({"Payload": b"Trace\nback", "FunctionError": "Unhandled"}), "name"), 5),
        (LambdaDestination(Aws({"Payload": b"\xff"}), "name"), 0),
    ],
)
def test_what_aws_answers_in_bad_hours_is_one_line_however_often(throttled, destination, lost):
    rig = Rig(destination)
    for _ in range(5):
        rig.put()
        rig.wait()
    assert (rig.stats.forward_batches, rig.stats.forward_failures) == (5, lost)
    assert len(throttled.text.splitlines()) == 1


def test_a_bug_of_ours_has_a_traceback_once(throttled, monkeypatch):
    monkeypatch.setattr("raptor_s3.gateway.forward.build_message", lambda _: 1 // 0)
    rig = Rig(SqsDestination(Aws({}), "queue"))
    for _ in range(3):
        rig.put()
        rig.wait()
    assert rig.stats.forward_failures == 3
    assert throttled.text.count("Traceback") == 1
