"""Forward mode without sockets: a Forwarder and real datagrams, destinations and AWS clients that a test scripts."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

from raptor_s3.gateway.batching import MAX_WAIT_S
from raptor_s3.gateway.forward import Forwarder
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
