"""A network in memory and in virtual time: bottleneck, queue, loss, delay, duplication; a sender and a Collector at its ends.

    network = Network()
    forward = Path(network, rate=20e6, delay_s=0.075, queue_s=0.1, loss=random_loss(0.05, seed=1))
    client = Client(network, forward, backward, server)
    client.put(...); network.run(until)

Everything is deterministic: the seeds decide. Rates are bits per second on the wire, as people name links.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from raptor_s3.transfer.events import CancelWrite, ObjectReady, SendState, TransferKey
from raptor_s3.transfer.incoming import Collector, CollectorLimits
from raptor_s3.transfer.outgoing import OutgoingTransfer
from raptor_s3.transfer.pacing import WIRE_OVERHEAD
from raptor_s3.transfer.path import Learned
from raptor_s3.transfer.plan import PutRequest
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.datagram import parse_datagram
from raptor_s3.wire.put_header import crc32_field
from raptor_s3.wire.transfer_state import StateType, TransferState, build_transfer_state, parse_transfer_state

PEER = b"p" * 32
Fate = Callable[[float], int]
"""How many copies of the datagram that leaves at this time arrive: 0 lost, 1, 2 duplicated."""


class Network:
    """Virtual time, and what is to happen in it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._order), action))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, at most so long, or until the condition holds."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            if until():
                return
            self.now, _, action = heapq.heappop(self._events)
            action()
        if not until():
            self.now = end


def everything_arrives(_: float) -> int:
    return 1


def random_loss(share: float, seed: int) -> Fate:
    chance = random.Random(seed)
    return lambda now: int(chance.random() >= share)


def burst_loss(share: float, seed: int, mean_burst_s: float = 0.02) -> Fate:
    """A Gilbert-Elliott chain clocked in time: everything is lost in a burst, nothing outside."""
    chance = random.Random(seed)
    ends_at = starts_at = -1.0

    def fate(now: float) -> int:
        nonlocal ends_at, starts_at
        while now >= ends_at:
            begin = max(ends_at, 0.0) if ends_at > 0 else now
            starts_at = begin + chance.expovariate(share / (mean_burst_s * (1 - share)))
            ends_at = starts_at + chance.expovariate(1 / mean_burst_s)
        return int(now < starts_at)

    return fate


@dataclass
class Path:
    """One direction: drop-tail queue, serialiser, loss, delay (in this order)."""

    network: Network
    rate: float | None = None
    delay_s: float = 0.0
    queue_s: float = 0.1
    fate: Fate = everything_arrives
    jitter: Callable[[], float] = field(default=lambda: 0.0)
    sent: int = 0
    overflowed: int = 0
    lost: int = 0
    bytes_out: int = 0
    free_at: float = 0.0
    overflow_tag: dict[str, int] = field(default_factory=dict)
    bytes_tag: dict[str, int] = field(default_factory=dict)

    def send(self, size: int, deliver: Callable[[], None], tag: str = "") -> None:
        now = self.network.now
        self.sent += 1
        leaves_at = now
        if self.rate is not None:
            if max(self.free_at - now, 0.0) > self.queue_s:
                self.overflowed += 1
                self.overflow_tag[tag] = self.overflow_tag.get(tag, 0) + 1
                return
            self.free_at = leaves_at = max(self.free_at, now) + size * 8 / self.rate
        copies = self.fate(leaves_at)
        self.bytes_out += size
        self.bytes_tag[tag] = self.bytes_tag.get(tag, 0) + size
        if not copies:
            self.lost += 1
        for _ in range(copies):
            self.network.at(leaves_at + self.delay_s + self.jitter(), deliver)


class Server:
    """A Collector, and a sink that answers after `write_s`."""

    def __init__(self, network: Network, limits: CollectorLimits | None = None, write_s: float = 0.0) -> None:
        self.network = network
        self.limits = limits
        self.write_s = write_s
        self.collector = Collector(limits)
        self.written: list[tuple[float, str, bytes]] = []
        self.ready: list[ObjectReady] = []
        self.stopped: set[TransferKey] = set()
        self.answer: Callable[[ObjectReady], TransferState] = self.write
        self.is_deaf = False
        self.honours_cancel = False
        self._due = float("inf")

    def restart(self) -> None:
        """Lose everything that is in memory."""
        self.collector = Collector(self.limits)
        self._due = float("inf")

    def receive(self, data: bytes, reply: Callable[[bytes], None]) -> None:
        if self.is_deaf:
            return
        self.carry_out(self.collector.receive(PEER, parse_datagram(data), self.network.now, reply))

    def carry_out(self, events: Any) -> None:
        for event in events:
            if isinstance(event, SendState):
                for _ in range(event.copies):
                    event.origin(build_transfer_state(event.state))
            elif isinstance(event, ObjectReady):
                self.ready.append(event)
                if self.write_s:
                    self.network.at(self.network.now + self.write_s, lambda event=event: self._finish(event))
                else:
                    self._finish(event)
            elif isinstance(event, CancelWrite) and self.honours_cancel:
                self.stopped.add(event.transfer)
                self.carry_out(self.collector.finish(event.transfer, StateType.CANCELLED, None, self.network.now))
        due = self.collector.get_timer()
        if due is not None and due < self._due:
            self._due = due
            self.network.at(due, self._wake)

    def _finish(self, ready: ObjectReady) -> None:
        if ready.transfer in self.stopped:
            return
        collector, state = self.collector, self.answer(ready)
        try:
            self.carry_out(collector.finish(ready.transfer, state.type, state.fields, self.network.now))
        except KeyError:
            pass  # the server was restarted meanwhile

    def write(self, ready: ObjectReady) -> TransferState:
        if self.network.now >= ready.expires_at:
            return TransferState(StateType.CANCELLED, ready.transfer.object_id)
        name = ready.fields["Key"] if ready.fields else ready.transfer.object_id
        self.written.append((self.network.now, name, bytes(ready.body)))
        return TransferState(StateType.COMPLETE, ready.transfer.object_id, fields={"ETag": '"e"'})

    def _wake(self) -> None:
        self._due = float("inf")
        self.carry_out(self.collector.handle_timer(self.network.now))


class Client:
    """A Sender on one end of the paths. `timer_s` is the coarseness of its clock (poll rounds up to milliseconds)."""

    def __init__(
        self,
        network: Network,
        forward: Path,
        backward: Path,
        server: Server,
        *,
        cap: float | None = None,
        learned: Learned | None = None,
        timer_s: float = 0.001,
    ) -> None:
        self.network = network
        self.forward = forward
        self.backward = backward
        self.server = server
        self.sender = Sender(network.now, cap=cap, learned=learned)
        self.ended: list[tuple[float, OutgoingTransfer]] = []
        self.on_end: Callable[[OutgoingTransfer], None] = lambda transfer: None
        self.sent_at: list[tuple[float, int]] = []
        self._timer_s = timer_s
        self._wake_at = float("inf")
        self._ids = itertools.count()

    def put(self, key: str, body: bytes, timeout_s: float = 5.0, **options: Any) -> OutgoingTransfer:
        fields = {"Bucket": "b", "Key": key, "ChecksumCRC32": crc32_field(body)}
        request = PutRequest(f"{next(self._ids):022d}", fields, body, timeout_s, **options)
        transfer = OutgoingTransfer(request, self.network.now, self.sender.path)
        self.sender.add(transfer)
        self.pump()
        return transfer

    def pump(self) -> None:
        now = self.network.now
        sender = self.sender
        if sender.get_timer() <= now:
            sender.handle_timer(now)
        for transfer in sender.take_cancels():
            self._send(transfer.take_cancel(now))
        while (item := sender.next_run(now)) is not None:
            transfer, run = item
            size = transfer.datagram_size
            arena = bytearray(run.length * size)
            transfer.write(run, arena, 0, size)
            for start in range(0, len(arena), size):
                self._send(bytes(arena[start : start + size]))
            if transfer.is_unconfirmed:
                sender.all_left(transfer)
        ended, sender.ended[:] = list(sender.ended), []
        for transfer in ended:
            self.ended.append((now, transfer))
            self.on_end(transfer)
        due = min(sender.get_timer(), sender.next_send_at(now))
        if due < float("inf"):
            due = max(due, now + 1e-6)
            if self._timer_s:
                due = now + -(-(due - now) // self._timer_s) * self._timer_s
            if due < self._wake_at or self._wake_at <= now:
                self._wake_at = due
                self.network.at(due, self._wake)

    def _wake(self) -> None:
        if self.network.now >= self._wake_at:
            self._wake_at = float("inf")
            self.pump()

    def _send(self, data: bytes) -> None:
        self.sent_at.append((self.network.now, len(data) + WIRE_OVERHEAD))
        self.forward.send(len(data) + WIRE_OVERHEAD, lambda: self.server.receive(data, self._reply), "raptor")

    def _reply(self, data: bytes) -> None:
        self.backward.send(len(data) + WIRE_OVERHEAD, lambda: self._receive(data))

    def _receive(self, data: bytes) -> None:
        self.sender.receive_state(parse_transfer_state(data), self.network.now)
        self.pump()


class CubicFlow:
    """A bulk TCP flow with CUBIC (RFC 9438) and fast recovery, in packets of 1,500 octets; enough of it to compete honestly."""

    C, BETA = 0.4, 0.7

    def __init__(self, network: Network, forward: Path, backward: Path) -> None:
        self.network, self.forward, self.backward = network, forward, backward
        self.cwnd, self.ssthresh = 10.0, float("inf")
        self.next, self.acked, self.in_flight = 0, 0, 0
        self.w_max, self.epoch, self.k = 0.0, None, 0.0
        self.rtt = self.min_rtt = 0.2
        self.recover = -1
        self.received: set[int] = set()
        self.outstanding: dict[int, float] = {}
        self.delivered = 0
        self.stopped = False

    def start(self) -> None:
        self.network.at(self.network.now, self._fill)

    def _fill(self) -> None:
        while not self.stopped and len(self.outstanding) < self.cwnd:
            self._transmit(self.next)
            self.next += 1

    def _transmit(self, number: int) -> None:
        sent_at = self.network.now
        self.outstanding[number] = sent_at
        self.forward.send(1500, lambda: self.backward.send(60, lambda: self._ack(number, sent_at)), "tcp")
        self.network.at(sent_at + 1.0, lambda: self._timeout(number, sent_at))

    def _timeout(self, number: int, sent_at: float) -> None:
        if self.outstanding.get(number) == sent_at:
            del self.outstanding[number]
            self._lose(number)

    def _ack(self, number: int, sent_at: float) -> None:
        if self.outstanding.pop(number, None) is None:
            return
        self.delivered += 1500
        rtt = self.network.now - sent_at
        self.rtt += (rtt - self.rtt) / 8
        self.min_rtt = min(self.min_rtt, rtt)
        lost = [other for other, _ in itertools.takewhile(lambda item: item[0] < number - 3, self.outstanding.items())]
        for other in lost:
            del self.outstanding[other]
        if lost:
            self._lose(lost[-1])
        if self.cwnd < self.ssthresh:
            self.cwnd += 1
            if rtt > self.min_rtt + max(0.004, min(self.min_rtt / 8, 0.016)):  # HyStart
                self.ssthresh = self.cwnd
        else:
            self._grow()
        self._fill()

    def _grow(self) -> None:
        now = self.network.now
        if self.epoch is None:
            self.epoch = now
            self.w_max = max(self.w_max, self.cwnd)
            self.k = ((self.w_max - self.cwnd) / self.C) ** (1 / 3)
        target = self.C * (now - self.epoch + self.rtt - self.k) ** 3 + self.w_max
        self.cwnd += max(target - self.cwnd, 0.01) / self.cwnd if target > self.cwnd else 0.01 / self.cwnd

    def _lose(self, number: int) -> None:
        if number <= self.recover:
            return
        self.recover = self.next
        self.w_max = self.cwnd * (2 - self.BETA) / 2 if self.cwnd < self.w_max else self.cwnd
        self.cwnd = max(self.cwnd * self.BETA, 2.0)
        self.ssthresh = self.cwnd
        self.epoch = None
