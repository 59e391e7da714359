"""Whatever order, duplication, division into events and whichever crashes: one object, whole, or a promise kept."""

from __future__ import annotations

import itertools

import pytest
from backend_rig import Crash, Sender, rig
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backend.objects import Unfinished
from raptor_s3.wire.transfer_state import StateType

NUMBERS = itertools.count(1)
TTL_MS = 3_600_000
K = 6
BODY = bytes(range(200)) * 16

BATCHES = st.lists(st.lists(st.integers(0, K + 8), min_size=1, max_size=K + 2), max_size=8)
CRASHES = st.lists(st.none() | st.tuples(st.integers(0, 6), st.booleans()), max_size=8)
"""For each function: after how many AWS calls it dies, and whether its event is delivered again."""


@pytest.fixture(scope="module")
def backend():
    with rig() as made:
        yield made


def sender() -> Sender:
    number = next(NUMBERS)
    made = Sender(BODY, number, key=f"in/{number}", ttl_ms=TTL_MS)
    assert made.symbols <= K
    return made


class Run:
    """One put, driven through crashing functions by a queue that delivers again."""

    def __init__(self, backend, put, crashes) -> None:
        self.backend = backend
        self.put = put
        self.crashes = list(crashes)
        self.said: list[StateType] = []

    def event(self, work) -> None:
        """Run `work` as a function; where it crashes, the next delivery comes when its lease is over."""
        is_delivered_again = True
        while is_delivered_again:
            crash = self.crashes.pop(0) if self.crashes else None
            self.backend.crash_after, is_delivered_again = crash or (None, False)
            try:
                self.said += [each.state.type for each in work() if each.state.object_id == self.put.object_id]
            except (Crash, Unfinished):
                self.backend.now += 61
            else:
                break
            finally:
                self.backend.crash_after = None

    def deliver(self, datagrams) -> None:
        self.event(lambda: self.backend.deliver(datagrams, received_at=self.backend.now))

    def complete(self) -> None:
        self.event(self.backend.complete)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, completions=st.lists(st.booleans(), max_size=8), crashes=CRASHES)
def test_a_put_is_written_whole(backend, batches, completions, crashes):
    put = sender()
    run = Run(backend, put, crashes)
    backend.calls.clear()
    for batch, completes in itertools.zip_longest(batches, completions):
        if batch:
            run.deliver([put.datagram(esi) for esi in batch])
        if completes:
            run.complete()
    for esi in range(100, 100 + 3 * K):
        if StateType.COMPLETE in run.said:
            break
        run.deliver([put.datagram(esi)])
        run.complete()
    assert run.said[-1] is StateType.COMPLETE
    assert StateType.FAILED not in run.said
    assert backend.object(put.key) == BODY
    if not crashes:
        assert backend.called("s3") == ["PutObject"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, cancel_at=st.integers(0, 8), crashes=CRASHES)
@example(batches=[], cancel_at=1, crashes=[(2, False)])  # dies after the write, before the outcome
def test_a_promise_that_nothing_will_be_written_is_kept(backend, batches, cancel_at, crashes):
    put = sender()
    run = Run(backend, put, crashes)
    for number, batch in enumerate([*batches, range(K), range(50, 50 + K)]):
        if number == cancel_at:
            run.deliver([put.cancel()])
        run.deliver([put.datagram(esi) for esi in batch])
        run.complete()
    written = backend.object(put.key)
    assert written in (None, BODY)
    if StateType.CANCELLED in run.said:
        assert written is None
        assert StateType.COMPLETE not in run.said


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(3)), crashes=CRASHES)
def test_an_older_put_never_overwrites_a_newer_one_that_was_called_after_it_returned(backend, order, crashes):
    older = sender()
    newer = Sender(BODY[::-1], next(NUMBERS), key=older.key, ttl_ms=TTL_MS)
    for put in (older, newer):
        run = Run(backend, put, crashes)
        while StateType.COMPLETE not in run.said:
            run.deliver(put.source())
    stragglers = [older.source(), [older.datagram(40)], [older.datagram(esi) for esi in range(60, 60 + K)]]
    for number in order:
        Run(backend, older, crashes).deliver(stragglers[number])
    backend.complete()
    assert backend.object(older.key) == newer.body
