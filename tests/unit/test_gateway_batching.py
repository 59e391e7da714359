"""Which datagrams leave together, and when: no clock, no AWS."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from raptor_s3.codec import ObjectTransmissionInformation
from raptor_s3.gateway.batching import MAX_WAIT_S, Batcher, Envelope, message_bytes
from raptor_s3.gateway.workers import Completions, WorkerPool
from raptor_s3.wire.datagram import FLAG_CANCEL, Datagram

DELAY_S = 0.05


def batcher(**more) -> Batcher:
    return Batcher(**{"delay_s": DELAY_S, "max_count": 100, "max_bytes": 1 << 20, "max_waiting_bytes": 1 << 20, **more})


def add(
    target: Batcher, name: str, esi: int, *, symbols: int = 3, now: float = 0.0, flags: int = 0, peer: bytes = b"peer"
) -> bool:
    oti = ObjectTransmissionInformation(symbols * 100, 100, 1)
    return target.add(Envelope(f"{name}{esi}".encode(), peer, None, 0.0, now), Datagram(name, oti, flags, 0, esi, b""))


def taken(target: Batcher, now: float) -> list[bytes]:
    return [envelope.data for envelope in target.take(now)]


def test_a_whole_object_is_due_at_once_and_leaves_together():
    target = batcher()
    for esi in range(2):
        add(target, "a", esi)
    assert not target.is_due(0.0)
    add(target, "a", 2)
    assert target.is_due(0.0)
    assert taken(target, 0.0) == [b"a0", b"a1", b"a2"]
    assert target.get_timer() is None
    assert target.waiting_bytes == 0


def test_an_incomplete_object_waits_its_delay_and_not_longer():
    target = batcher()
    add(target, "a", 0, now=1.0)
    add(target, "b", 0, now=1.04)
    assert target.get_timer() == 1.05
    assert taken(target, 1.04) == []
    assert taken(target, 1.05) == [b"a0"]
    assert taken(target, 1.09) == [b"b0"]


def test_what_completes_an_object_that_went_in_parts_does_not_wait():
    target = batcher()
    add(target, "a", 0)
    add(target, "a", 1)
    assert taken(target, DELAY_S) == [b"a0", b"a1"]
    add(target, "a", 2, now=DELAY_S)
    assert taken(target, DELAY_S) == [b"a2"]
    add(target, "a", 3, now=1.0)  # a question about a finished transfer
    assert taken(target, 1.0) == [b"a3"]


def test_a_cancel_does_not_wait():
    target = batcher()
    add(target, "a", 0)
    add(target, "a", 0, flags=FLAG_CANCEL)
    assert target.is_due(0.0)


def test_small_objects_share_a_batch_and_are_not_cut():
    target = batcher(max_count=7)
    for name in "abc":
        for esi in range(3):
            add(target, name, esi)
    assert taken(target, 0.0) == [b"a0", b"a1", b"a2", b"b0", b"b1", b"b2"]
    assert taken(target, 0.0) == [b"c0", b"c1", b"c2"]


def test_an_object_that_exceeds_a_batch_is_cut():
    target = batcher(max_count=2)
    for esi in range(3):
        add(target, "a", esi)
    assert [taken(target, 0.0), taken(target, 0.0), taken(target, 0.0)] == [[b"a0", b"a1"], [b"a2"], []]


def test_what_does_not_fit_is_refused_and_half_is_the_most_that_one_peer_gets():
    target = batcher(max_waiting_bytes=5 * message_bytes(b"a0"))
    assert [add(target, "a", esi, peer=b"one") for esi in range(3)] == [True, True, False]
    assert [add(target, "a", esi, peer=b"two") for esi in range(3)] == [True, True, False]
    assert [add(target, "a", esi, peer=b"three") for esi in range(2)] == [True, False]
    target.expire_all()
    assert len(taken(target, 0.0)) == 5
    assert add(target, "a", 3, peer=b"one")


def test_peers_take_turns_and_what_one_has_waiting_does_not_delay_the_others():
    target = batcher(max_count=3)
    for number in range(6):
        add(target, f"a{number}-", 0, symbols=1, peer=b"one")
    add(target, "b", 0, symbols=1, peer=b"two")
    add(target, "c", 0, symbols=1, peer=b"three")
    add(target, "d", 0, symbols=1, peer=b"two")
    assert taken(target, 0.0) == [b"a0-0", b"b0", b"c0"]
    assert taken(target, 0.0) == [b"a1-0", b"d0", b"a2-0"]
    assert taken(target, 0.0) == [b"a3-0", b"a4-0", b"a5-0"]
    assert not target.is_due(0.0)


def test_an_object_in_many_batches_lets_other_peers_in_between():
    target = batcher(max_count=2)
    for esi in range(5):
        add(target, "a", esi, symbols=5, peer=b"one")
    for number in range(2):
        add(target, f"b{number}-", 0, symbols=1, peer=b"two")
    assert taken(target, 0.0) == [b"a0", b"a1"]
    assert taken(target, 0.0) == [b"b0-0"]
    assert taken(target, 0.0) == [b"a2", b"a3"]
    assert taken(target, 0.0) == [b"b1-0", b"a4"]


def test_what_has_waited_too_long_is_dropped_and_what_came_later_goes():
    target = batcher()
    late = DELAY_S + MAX_WAIT_S + 0.01
    add(target, "a", 0, now=0.0)
    add(target, "a", 1, now=0.0)
    add(target, "b", 0, now=0.0, symbols=1)
    add(target, "a", 2, now=1.0)
    add(target, "c", 0, now=1.0, symbols=1)
    assert taken(target, late) == [b"a2", b"c0"]
    assert target.dropped_stale == 3
    assert target.waiting_bytes == 0
    add(target, "a", 3, now=late)  # one of three was forwarded: it is not known to be whole
    assert not target.is_due(late)
    add(target, "a", 4, now=late)
    assert taken(target, late) == [b"a3", b"a4"]


def test_what_is_all_too_old_makes_no_batch_and_frees_its_room():
    target = batcher(max_waiting_bytes=4 * message_bytes(b"a0"))
    assert [add(target, "a", esi) for esi in range(3)] == [True, True, False]
    late = DELAY_S + MAX_WAIT_S + 0.01
    assert target.is_due(late)
    assert taken(target, late) == []
    assert not target.is_due(late)
    assert target.get_timer() is None
    assert target.waiting_bytes == 0
    assert [add(target, "b", esi, now=late) for esi in range(3)] == [True, True, False]


def test_a_long_delay_is_no_reason_to_drop():
    target = batcher(delay_s=5.0)
    add(target, "a", 0)
    assert taken(target, 4.9) == []
    assert taken(target, 5.1) == [b"a0"]


@given(
    steps=st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 9), st.floats(0, 0.03), st.booleans()), max_size=80),
    max_count=st.integers(1, 12),
    max_bytes=st.integers(100, 5000),
)
def test_every_datagram_leaves_once_and_within_the_bounds(steps, max_count, max_bytes):
    target = batcher(max_count=max_count, max_bytes=max_bytes)
    now, given_in, left = 0.0, [], []

    def take() -> None:
        while batch := target.take(now):
            assert len(batch) <= max_count
            assert len(batch) == 1 or sum(message_bytes(envelope.data) for envelope in batch) <= max_bytes
            left.extend(envelope.data for envelope in batch)

    for number, (name, symbols, pause, is_drained) in enumerate(steps):
        now += pause
        assert add(target, name, number, symbols=symbols, now=now)
        given_in.append(f"{name}{number}".encode())
        if is_drained:
            take()
            timer = target.get_timer()
            assert timer is None or timer > now
    target.expire_all()
    take()
    assert sorted(left) == sorted(given_in)
    assert target.waiting_bytes == 0


def test_no_completion_is_lost_between_threads_and_loop():
    woken = threading.Event()
    completions = Completions(woken.set)
    seen = []

    def produce(start: int) -> None:
        for number in range(start, start + 2000):
            completions.put(lambda number=number: seen.append(number))

    threads = [threading.Thread(target=produce, args=(start,)) for start in (0, 2000, 4000)]
    for thread in threads:
        thread.start()
    while len(seen) < 6000:
        assert woken.wait(10), f"the loop sleeps on {6000 - len(seen)} completions"
        woken.clear()
        completions.run()
    assert sorted(seen) == list(range(6000))


def test_the_pool_is_bounded_and_survives_a_job_that_raises(caplog):
    gate, begun = threading.Event(), threading.Event()
    pool = WorkerPool("test", threads=1, limit=2)

    def first() -> None:
        begun.set()
        gate.wait(10)
        raise ZeroDivisionError

    assert pool.submit(first)
    assert begun.wait(10)
    done = []
    last = lambda: done.append(1)  # noqa: E731
    taken_back = lambda: done.append(2)  # noqa: E731
    assert pool.submit(last)
    assert pool.submit(taken_back)
    assert not pool.submit(last)
    assert pool.remove(taken_back)
    assert not pool.remove(first)
    gate.set()
    assert pool.close(10)
    assert done == [1]
    assert "ZeroDivisionError" in caplog.text
    assert not pool.submit(last)
