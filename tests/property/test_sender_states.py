"""The sender against a receiver that says anything, and a caller that does anything, at any time: the books stay right.

Bytes in flight are the transfers' own, every transfer that was added ends exactly once, nothing leaves after an end or a cancel,
a cap holds on the wire, and there is always a timer until all have ended.
"""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from raptor_s3.transfer.outcome import Confirm
from raptor_s3.transfer.outgoing import OutgoingTransfer
from raptor_s3.transfer.pacing import WIRE_OVERHEAD
from raptor_s3.transfer.path import Learned
from raptor_s3.transfer.plan import PutRequest
from raptor_s3.transfer.probe import Probe
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.transfer_state import StateType, TransferState

BODY = bytes(1_500_000)
FIELDS = {"Bucket": "b", "Key": "k", "ChecksumCRC32": "AAAAAA=="}
LEARNED = [None, Learned(0.05, 0.01, 0.02, 1e6, None), Learned(1e-6, 0.0, 0.0, None, 1e7), Learned(50.0, 50.0, 0.3, 1.0, None)]


class Rig:
    """A sender, and what is to be true of it."""

    def __init__(self, chance: Random, cap: float | None) -> None:
        self.chance = chance
        self.now = 1000.0
        self.cap = cap
        self.sender = Sender(self.now, cap=cap, learned=chance.choice(LEARNED))
        self.all: list[OutgoingTransfer] = []
        self.live: list[OutgoingTransfer] = []
        self.cancelled: set[int] = set()
        self.sent: list[tuple[float, int]] = []
        self.names = 0

    def add(self) -> None:
        chance, path = self.chance, self.sender.path
        size, timeout_s = chance.choice([0, 1, 1000, 20_000, 100_000, 600_000, 1_500_000]), chance.choice([0.2, 1.0, 5.0, 60.0])
        self.names += 1
        name, kind = f"{self.names:022d}", chance.random()
        if kind < 0.05:
            transfer: OutgoingTransfer = Probe(name, timeout_s, self.now, path)
        else:
            name = name if kind > 0.3 else chance.choice("pqr")  # a path may come again as soon as it has ended
            fields = FIELDS if kind > 0.3 else None
            request = PutRequest(name, fields, BODY[:size], timeout_s, chance.choice(list(Confirm)), chance.choice([None, 0.05]))
            transfer = OutgoingTransfer(request, self.now, path)
        if any(other.object_id == name for other in self.live):
            return
        self.sender.add(transfer)
        self.all.append(transfer)
        self.live.append(transfer)

    def pump(self) -> None:
        for transfer in self.sender.take_cancels():
            transfer.take_cancel(self.now)
        while True:
            before = list(self.live)
            item = self.sender.next_run(self.now)
            if item is None:
                break
            transfer, run = item
            assert any(transfer is other for other in before), "a symbol of a transfer that has ended"
            assert id(transfer) not in self.cancelled, "a symbol after the cancel"
            self.sent.append((self.now, run.length * (transfer.datagram_size + WIRE_OVERHEAD)))
            self.settle()
        self.settle()

    def hear(self) -> None:
        chance = self.chance
        transfer = chance.choice(self.all[-12:])
        blocks = transfer._blocks
        block = chance.choice(blocks)
        sent = block.next_esi
        sbn = chance.choice([blocks.index(block), chance.randrange(256)])
        received = chance.choice([0, 1, sent, sent + 1, chance.randrange(sent + 1), block.symbols, 65_535])
        esi = chance.choice([-1, 0, sent, max(sent - 1, 0), chance.randrange(sent + 1), 2**40, "1", None, True, 1.0])
        wait = chance.choice([0, 1, 100_000, 60_000_000, 10**400, -1, "1", None, True, 1.5])
        fields = chance.choice([None, {}, {"Esi": esi}, {"Esi": esi, "Wait": wait}])
        kind = chance.choice([StateType.PACKETS] * 6 + list(StateType))
        self.sender.receive_state(TransferState(kind, transfer.object_id, sbn, min(received, 65_535), fields), self.now)

    def meddle(self) -> None:
        transfer, what = self.chance.choice(self.live), self.chance.random()
        if what < 0.5:
            self.cancelled.add(id(transfer))
            self.sender.cancel(transfer, self.now)
        elif what < 0.7:
            self.sender.drop(transfer)
            self.live = [other for other in self.live if other is not transfer]
        elif what < 0.85 or not self.sender.insist(transfer, self.now):
            self.sender.change_session(transfer, self.now)

    def step(self) -> None:
        chance = self.chance
        if chance.random() < 0.6:  # else the clock stands still
            self.now += chance.choice([1e-6, 1e-3, 0.01, 0.05, 0.3, 1.0, 5.0]) * chance.random()
        what = chance.random()
        if what < 0.15:
            if len(self.live) < 12:
                self.add()
        elif what < 0.55:
            self.pump()
        elif what < 0.9:
            if self.all:
                self.hear()
        elif what < 0.95:
            self.sender.handle_timer(self.now)
        elif self.live:
            self.meddle()
        self.settle()
        self.sender.next_send_at(self.now)
        assert self.sender.get_timer() < float("inf") or not self.live, "nothing would ever happen again"

    def settle(self) -> None:
        sender = self.sender
        ended, sender.ended[:] = list(sender.ended), []
        for transfer in ended:
            assert transfer.outcome is not None
            assert any(transfer is other for other in self.live), "ended twice"
            self.live = [other for other in self.live if other is not transfer]
        assert len(sender) == len(self.live)
        assert all(transfer.outcome is None and transfer.backlog >= 0 <= transfer.flight_bytes for transfer in self.live)
        assert sender._flight_bytes == sum(transfer.flight_bytes for transfer in self.live)
        controller = sender.controller
        assert 0 < controller.pacer.rate <= (self.cap or 1.25e9 * 2.5)
        assert 0 < controller.window_bytes < 1e12
        assert 0 < sender.path.loss.rate <= 0.3

    def finish(self) -> None:
        for _ in range(20_000):
            if not self.live:
                break
            self.now = max(self.now, self.sender.get_timer())
            self.sender.handle_timer(self.now)
            self.settle()
            self.pump()
        assert not self.live, "a transfer that never ends"
        assert self.sender.next_run(self.now) is None
        assert self.sender._flight_bytes == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), cap=st.sampled_from([None, None, 2000.0, 1e5, 1e7]))
def test_whatever_is_heard_and_done_the_books_are_right(seed: int, cap: float | None) -> None:
    rig = Rig(Random(seed), cap)
    for _ in range(200):
        rig.step()
    rig.finish()
    if cap is not None:
        burst = max(min(15_000.0, max(cap * 0.02, 3000.0)), cap * 0.008) + 1.0
        level, last = 0.0, rig.now  # a leaky bucket: how far ahead of the cap the wire ever was
        for at, octets in rig.sent:
            level = max(level - cap * max(at - last, 0.0), 0.0) + octets
            last = at
            assert level <= burst
