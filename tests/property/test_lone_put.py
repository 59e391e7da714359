"""A put that goes alone leaves everything as an OutgoingTransfer would have left it: what is on the wire and when, the
estimates, the pacer, the statistics; whether it ends alone or has to go on as one, and whatever happens then.
"""

from __future__ import annotations

import math
from dataclasses import astuple
from random import Random
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from raptor_s3.transfer import lone
from raptor_s3.transfer.outcome import Confirm, Ending, TransferStats
from raptor_s3.transfer.outgoing import OutgoingTransfer
from raptor_s3.transfer.path import Learned
from raptor_s3.transfer.plan import PutRequest
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.transfer_state import StateType, TransferState

FIELDS = {"Bucket": "b", "Key": "k", "ChecksumCRC32": "AAAAAA=="}
LEARNED = [
    Learned(0.05, 0.01, 0.0, 1e6, None),
    Learned(1e-4, 0.0, 0.016, None, None),
    Learned(0.15, 0.05, 0.017, 2e4, None),
    Learned(0.3, 0.1, 0.001, None, 3e5),
    None,
]
CONFIRMED = Ending.CONFIRMED
ANSWERS = [StateType.COMPLETE, StateType.COMPLETE, StateType.COMPLETE, *StateType]


class Alone(NamedTuple):
    """As the caller keeps it."""

    request: PutRequest
    started_at: float
    sent_at: float
    due: float
    datagram: bytes


class Way:
    """One sender and what it does in a play of puts; `alone`: puts go alone where they can."""

    def __init__(self, seed: int, cap: float | None, learned: Learned | None, *, alone: bool) -> None:
        self.chance = Random(seed)
        self.alone = alone
        self.now = 1000.0
        self.sender = Sender(self.now, cap=cap, learned=learned)
        self.sent: list[tuple[float, bytes]] = []
        self.ended: list[tuple[str, Any, Any, TransferStats]] = []
        self.lone: Alone | None = None
        self.were_alone = 0
        self.names = 0

    def begin(self, request: PutRequest, started_at: float) -> None:
        datagram = None
        if self.alone and self.lone is None and not self.sender:
            datagram = lone.lone_datagram(self.sender, request, started_at, self.now)
        if datagram is not None:
            self.lone = Alone(request, started_at, self.now, self.now + self.sender.path.rtt.timeout_s, datagram)
            self.sent.append((self.now, datagram))
            return
        self.join()
        self.sender.add(OutgoingTransfer(request, started_at, self.sender.path))
        self.flush()

    def join(self) -> None:
        if self.lone is not None:
            going, self.lone = self.lone, None
            transfer = lone.transfer_of(self.sender, going.request, going.started_at, going.datagram)
            lone.go_on(self.sender, transfer, going.sent_at)

    def flush(self) -> None:
        while (item := self.sender.next_run(self.now)) is not None:
            transfer, run = item
            arena = bytearray(run.length * transfer.datagram_size)
            transfer.write(run, arena, 0, transfer.datagram_size)
            self.sent += [
                (self.now, bytes(arena[at : at + transfer.datagram_size])) for at in range(0, len(arena), transfer.datagram_size)
            ]
        for transfer in self.sender.take_cancels():
            self.sent.append((self.now, transfer.take_cancel(self.now)))
        ended, self.sender.ended = self.sender.ended, []
        self.ended += [(each.object_id, each.outcome, each.answer, each.stats) for each in ended]

    def answer(self, state: TransferState, *, is_late: bool) -> None:
        going = self.lone
        if going is not None and state.object_id == going.request.object_id:
            if state.type is StateType.COMPLETE and not state.sbn and not is_late:
                self.lone = None
                self.were_alone += 1
                lone.confirm(self.sender, len(going.datagram), going.sent_at, self.now)
                stats = TransferStats()
                stats.datagrams_sent = stats.source_symbols = 1
                stats.rtt_s = self.now - going.sent_at
                self.ended.append((state.object_id, CONFIRMED, state.fields or {}, stats))
                return
            self.join()
        self.sender.receive_state(state, self.now, is_late=is_late)
        self.flush()

    def timer(self) -> float:
        due = self.sender.get_timer() if self.lone is None else self.lone.due
        return min(due, self.sender.next_send_at(self.now))

    def sleep(self, seconds: float) -> None:
        """With everything that is due on the way."""
        until = self.now + seconds
        while (due := max(self.timer(), self.now)) <= until:
            self.now = due
            self.join()
            self.sender.handle_timer(self.now)
            self.flush()
            if due == self.timer():
                self.now = math.nextafter(self.now, math.inf)
        self.now = until

    def play(self, scenes: int) -> None:
        chance = self.chance
        for _ in range(scenes):
            self.names += 1
            name, size = f"{self.names:022d}", chance.choice([0, 1, 20, 700, 1000, 1100, 1300, 3000])
            confirm = chance.choice([Confirm.FILE] * 9 + list(Confirm))
            fields = FIELDS if chance.random() < 0.95 else None
            overhead = chance.choice([None] * 9 + [0.0])
            timeout_s = chance.choice([0.3, 5.0, 5.0, 60.0])
            request = PutRequest(name, fields, chance.randbytes(size), timeout_s, confirm, overhead)
            started_at = self.now
            self.now += chance.choice([0.0, 1e-4, 1e-4, 0.05])
            self.begin(request, started_at)
            for _ in range(chance.choice([1, 1, 1, 2, 4])):
                self.sleep(chance.choice([0.0, 1e-4, 0.03, 0.05, 0.06, 0.2, 1.0]) * chance.random())
                about = name if chance.random() < 0.9 else f"{self.names - 1:022d}"
                state = TransferState(
                    chance.choice(ANSWERS), about, chance.choice([0, 0, 0, 1]), chance.choice([1, 1, 1, 0, 2]), {"a": 1}
                )
                self.answer(state, is_late=chance.random() < 0.05)
            self.sleep(chance.choice([0.0, 0.0, 1e-4, 0.5, 20.0]) * chance.random())


def known(sender: Sender) -> dict[str, Any]:
    """All that a sender has learned and still intends."""
    path, controller = sender.path, sender.controller
    estimates = {
        f"{type(each).__name__}{i}": _slots(each)
        for i, each in enumerate([path.rtt, path.confirmation, path.loss, controller.pacer])
    }
    values = {name: list(value) if hasattr(value, "__iter__") else value for name, value in vars(controller).items()}
    del values["_path"], values["pacer"]
    return {**estimates, **values, "repair": path.initial_repair, "order": path.reordering}


def _slots(value: Any) -> list[Any]:
    return [getattr(value, name) for name in type(value).__slots__]


def assert_close(one: Any, other: Any, where: str = "") -> None:
    """Times are added up in another order: equal but for rounding."""
    if isinstance(one, float) and isinstance(other, float):
        assert one == other or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_close(one[name], other[name], f"{where} {name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_close(a, b, f"{where} {i}")
    else:
        assert one == other, where


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, 2e4, 1e6]), st.sampled_from(LEARNED), st.integers(1, 25))
def test_nobody_can_tell_afterwards(seed: int, cap: float | None, learned: Learned | None, scenes: int) -> None:
    ways = [Way(seed, cap, learned, alone=alone) for alone in (True, False)]
    for way in ways:
        way.play(scenes)
        way.sleep(200.0)
        assert way.lone is None
        assert not way.sender
    alone, usual = ways
    assert_close(alone.sent, usual.sent, "sent")
    assert_close(
        [(*end[:3], astuple(end[3])) for end in alone.ended], [(*end[:3], astuple(end[3])) for end in usual.ended], "ended"
    )
    assert_close(known(alone.sender), known(usual.sender), "known")


def test_most_small_puts_on_a_good_path_do_go_alone() -> None:
    way = Way(1, None, LEARNED[0], alone=True)
    for number in range(100):
        way.begin(PutRequest(f"{number:022d}", FIELDS, bytes(1000), 5.0), way.now)
        way.sleep(0.05)
        way.answer(TransferState(StateType.COMPLETE, f"{number:022d}", 0, 1, {}), is_late=False)
    assert way.were_alone == 100
