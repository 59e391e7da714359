"""The sliding window (RFC 6479) and the counters that are sent."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable

import pytest

from raptor_s3.errors import SessionExpired
from raptor_s3.wireguard import arena
from raptor_s3.wireguard.constants import REJECT_AFTER_MESSAGES, WINDOW_SIZE
from raptor_s3.wireguard.counters import CounterRange, Reservation
from raptor_s3.wireguard.replay import ReplayWindow

KEY = bytes(32)


def take_in_python(window: ReplayWindow, counter: int) -> bool:
    fresh = window.is_fresh(counter)
    if fresh:
        window.mark(counter)
    return fresh


def take_in_c(window: ReplayWindow, counter: int) -> bool:
    """The same by a message with this counter."""
    fresh = window.is_fresh(counter)
    opened = arena.open_fresh(KEY, 1, window, arena.seal_message(KEY, 1, counter, b""), REJECT_AFTER_MESSAGES)
    assert opened == (b"" if fresh else arena.NOT_FRESH)
    return fresh


@pytest.fixture(params=["python", pytest.param("c", marks=pytest.mark.skipif(not arena.HAS_C, reason="_arena.c is not built"))])
def take(request: pytest.FixtureRequest) -> Callable[[ReplayWindow, int], bool]:
    return take_in_c if request.param == "c" else take_in_python


def test_window_is_8128_wide(take) -> None:  # type: ignore[no-untyped-def]
    assert WINDOW_SIZE == 8128
    window = ReplayWindow()
    assert take(window, 0)
    assert take(window, WINDOW_SIZE)
    assert not window.is_fresh(0)
    assert take(window, 1)
    assert take(window, WINDOW_SIZE + 63)
    assert not take(window, 63)
    assert take(window, 64)


def test_a_block_that_begins_is_cleared(take) -> None:  # type: ignore[no-untyped-def]
    """After the last counter of a block comes the next one's first, where bits of the ring's last turn are."""
    window = ReplayWindow()
    for counter in (*range(64), 8192 - 1, *range(8192, 8192 + 64)):
        assert take(window, counter), counter


def test_asking_changes_nothing(take) -> None:  # type: ignore[no-untyped-def]
    window = ReplayWindow()
    for _ in range(2):
        assert window.is_fresh(10**6)
    assert window.greatest == -1
    assert take(window, 0)


@pytest.mark.parametrize("step", [1, 2, 63, 64, 65, 8127, 8128, 8191, 8192, 8193, 100_000])
def test_each_counter_once_at_any_stride(take, step: int) -> None:  # type: ignore[no-untyped-def]
    window = ReplayWindow()
    sent = [step * number for number in range(300)]
    assert all(take(window, counter) for counter in sent)
    assert not any(take(window, counter) for counter in sent)


def test_jump_clears_what_it_leaves_behind(take) -> None:  # type: ignore[no-untyped-def]
    """Bits of the ring's last turn must not stand for counters of this one."""
    window = ReplayWindow()
    for counter in range(8192):
        assert take(window, counter)
    assert take(window, 3 * 8192 + 5)
    for counter in range(3 * 8192 + 5 - WINDOW_SIZE + 1, 3 * 8192 + 5):
        assert take(window, counter), counter


@pytest.mark.parametrize("spread", [3, 64, 100, 1000, 8000])
def test_reordering_within_the_window_loses_nothing(take, spread: int) -> None:  # type: ignore[no-untyped-def]
    """Each counter of a dense stream, displaced by up to `spread`, over several turns of the ring."""
    shuffle = random.Random(spread)
    stream = sorted(range(40_000), key=lambda counter: counter + shuffle.uniform(0, spread))
    window = ReplayWindow()
    assert all(take(window, counter) for counter in stream)
    assert not any(window.is_fresh(counter) for counter in stream)


def test_last_counters(take) -> None:  # type: ignore[no-untyped-def]
    window = ReplayWindow()
    last = REJECT_AFTER_MESSAGES - 1
    assert take(window, last)
    assert take(window, last - WINDOW_SIZE + 1)
    assert not take(window, last - WINDOW_SIZE)
    assert not take(window, last)


@pytest.mark.parametrize("floor", [0, 1, 63, 64, 1000, 8191, 8192, 10**9])
def test_floor_counts_as_received(take, floor: int) -> None:  # type: ignore[no-untyped-def]
    window = ReplayWindow(floor)
    assert not any(window.is_fresh(counter) for counter in range(max(0, floor - 10_000), floor + 1))
    assert take(window, floor + 3)
    assert take(window, floor + 1)
    assert not take(window, floor + 1)
    assert not window.is_fresh(floor)
    assert window.greatest == floor + 3


def test_a_window_is_its_memory(take) -> None:  # type: ignore[no-untyped-def]
    """As `open_fresh` in C reads it: the ring, one more than the greatest, the first that may come."""
    window = ReplayWindow(8192)
    assert take(window, 8192 + 17)
    assert window == bytes(2) + b"\2" + bytes(1021) + (8192 + 18).to_bytes(8, "little") + (8193).to_bytes(8, "little")
    assert ReplayWindow() == bytes(1040)


def test_a_counter_that_no_window_holds_changes_nothing() -> None:
    window = ReplayWindow(5)
    with pytest.raises(struct.error):
        window.mark(2**64 - 1)
    assert window == ReplayWindow(5)


def test_counters_of_a_private_range() -> None:
    counters = CounterRange(5, 9)
    assert [counters.take(1, 0.0), counters.take(2, 1e12), counters.take(1, 0.0)] == [5, 6, 8]
    with pytest.raises(SessionExpired):
        counters.take(1, 0.0)
    assert not counters.is_shared


def test_counters_are_asked_for_when_the_range_ends_or_its_time_is_up() -> None:
    asked: list[tuple[Reservation, int]] = []

    def reserve(held: Reservation, count: int, now: float) -> Reservation:
        asked.append((held, count))
        return Reservation(100 * len(asked), 100 * len(asked) + 10, now + 1.0)

    counters = CounterRange(reserve=reserve, next=0, end=0, valid_until=0.0)
    assert counters.take(8, 0.0) == 100
    assert counters.take(2, 0.9) == 108
    assert counters.take(1, 0.9) == 200
    assert counters.take(1, 2.0) == 300
    assert counters.take(10, 2.0) == 400
    assert [count for _, count in asked] == [8, 1, 1, 10]
    assert asked[2][0] == (201, 210, 1.9)
    assert counters.is_shared


def test_revoked_counters_are_never_asked_for_again() -> None:
    counters = CounterRange(reserve=lambda held, count, now: Reservation(0, 10, math.inf), next=0, end=0, valid_until=0.0)
    counters.take(1, 0.0)
    counters.revoke()
    with pytest.raises(SessionExpired):
        counters.take(1, 0.0)
    assert counters.is_revoked
