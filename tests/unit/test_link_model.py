"""The link's arithmetic: queue, serialiser, loss and delay, on times chosen here."""

from __future__ import annotations

from itertools import groupby
from random import Random

import pytest

from benchmarks.link.model import BurstLoss, Conditions, Direction

MBIT = 1e6


def direction(seed: int = 0, **conditions: float | bool) -> Direction:
    return Direction(Conditions(**conditions), f"{seed}/forward")  # type: ignore[arg-type]


def test_an_idle_link_delays_by_serialisation_and_half_the_rtt() -> None:
    assert direction(rtt_s=0.150, rate_mbps=20).admit(10.0, 1500) == pytest.approx(10 + 1500 * 8 / (20 * MBIT) + 0.075)


def test_packets_leave_at_the_rate_however_they_arrive() -> None:
    link = direction(rtt_s=0.0, rate_mbps=12, queue_s=1.0)
    dues = [link.admit(0.0, 1500) for _ in range(100)]
    assert dues == pytest.approx([(n + 1) * 0.001 for n in range(100)])


def test_a_pause_is_not_credited_to_later_packets() -> None:
    link = direction(rtt_s=0.0, rate_mbps=12)
    link.admit(0.0, 1500)
    assert [link.admit(5.0, 1500), link.admit(5.0, 1500)] == pytest.approx([5.001, 5.002])


def test_the_queue_drops_what_would_wait_longer_than_its_depth() -> None:
    link = direction(rtt_s=0.0, rate_mbps=12, queue_s=0.0105)
    dues = [link.admit(0.0, 1500) for _ in range(50)]
    # One is being sent, ten more wait up to 10 ms behind it.
    assert sum(due is not None for due in dues) == 11
    assert dues[11:] == [None] * 39
    assert link.stats.queue_drops == 39
    assert link.admit(0.005, 1500) == pytest.approx(0.012)


def test_dropped_packets_take_no_time_on_the_link() -> None:
    link = direction(rtt_s=0.0, rate_mbps=12, queue_s=0.0)
    assert link.admit(0.0, 1500) == pytest.approx(0.001)
    assert link.admit(0.0005, 1500) is None
    assert link.admit(0.001, 1500) == pytest.approx(0.002)


def test_lost_packets_have_used_the_link() -> None:
    lossy = direction(seed=3, rtt_s=0.0, rate_mbps=12, queue_s=10.0, loss=0.5)
    dues = [lossy.admit(0.0, 1500) for _ in range(200)]
    survivors = [(n, due) for n, due in enumerate(dues) if due is not None]
    assert 60 < len(survivors) < 140
    assert [due for _, due in survivors] == pytest.approx([(n + 1) * 0.001 for n, _ in survivors])


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.10])
def test_random_loss_has_the_mean_asked_for(loss: float) -> None:
    link = direction(rate_mbps=1000, loss=loss)
    count = 50_000
    lost = sum(link.admit(n * 0.001, 100) is None for n in range(count))
    assert abs(lost / count - loss) < 4 * (loss * (1 - loss) / count) ** 0.5
    assert link.stats.lost == lost


def test_the_nth_packet_has_the_same_fate_whatever_its_size_and_time() -> None:
    dense = direction(seed=5, rate_mbps=1000, loss=0.1)
    sparse = direction(seed=5, rate_mbps=1000, loss=0.1)
    fates = [dense.admit(n * 0.0001, 1500) is None for n in range(2000)]
    assert fates == [sparse.admit(n * 0.7, 40 + n % 900) is None for n in range(2000)]
    assert any(fates)


def test_another_seed_gives_another_fate() -> None:
    first, second = direction(seed=1, loss=0.1), direction(seed=2, loss=0.1)
    assert [first.admit(float(n), 40) is None for n in range(500)] != [second.admit(float(n), 40) is None for n in range(500)]


def test_queue_drops_do_not_shift_the_fate_of_later_packets() -> None:
    roomy = direction(seed=5, rate_mbps=12, queue_s=100.0, loss=0.1)
    tight = direction(seed=5, rate_mbps=12, queue_s=0.002, loss=0.1)
    lost_roomy = {n for n in range(500) if roomy.admit(n * 0.0007, 1500) is None}
    lost_tight = {n for n in range(500) if tight.admit(n * 0.0007, 1500) is None}
    assert tight.stats.queue_drops > 100
    assert lost_roomy < lost_tight


def test_bursts_are_clocked_in_time() -> None:
    """A sender that sends every 50 ms and one that sends every millisecond meet the same bad times."""
    dense = BurstLoss(0.05, 0.020, Random("x"))
    sparse = BurstLoss(0.05, 0.020, Random("x"))
    states = [dense.is_lost(n * 0.001) for n in range(60_000)]
    assert [sparse.is_lost(n * 0.050) for n in range(1200)] == states[::50]


def test_bursts_have_the_mean_loss_and_mean_length_asked_for() -> None:
    chain = BurstLoss(0.05, 0.020, Random("mean"))
    states = [chain.is_lost(n * 0.0005) for n in range(2_000_000)]
    bursts = [len(list(run)) * 0.0005 for is_bad, run in groupby(states) if is_bad]
    assert sum(states) / len(states) == pytest.approx(0.05, rel=0.1)
    assert sum(bursts) / len(bursts) == pytest.approx(0.020, rel=0.1)


def test_jitter_stays_in_its_range_and_keeps_order() -> None:
    link = direction(rtt_s=0.020, rate_mbps=1000, jitter_s=0.030)
    dues = [link.admit(n * 0.001, 100) for n in range(2000)]
    assert all(due is not None for due in dues)
    delays = [due - n * 0.001 for n, due in enumerate(dues) if due is not None]
    assert min(delays) >= 0.010
    assert 0.035 < max(delays) < 0.0401
    assert dues == sorted(due for due in dues if due is not None)


def test_reordering_is_only_on_request() -> None:
    link = direction(rtt_s=0.020, rate_mbps=1000, jitter_s=0.030, reorder=True)
    dues = [due for n in range(2000) if (due := link.admit(n * 0.001, 100)) is not None]
    assert dues != sorted(dues)


def test_the_largest_packet_is_remembered() -> None:
    link = direction()
    for size in (40, 1500, 700):
        link.admit(0.0, size)
    assert link.stats.largest_bytes == 1500
    assert link.stats.bytes == 2240


@pytest.mark.parametrize("bad", [{"loss": 1.0}, {"loss": -0.1}, {"rate_mbps": 0.0}, {"rtt_s": -1.0}, {"queue_s": -0.1}])
def test_impossible_links_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"loss|positive rate"):
        Conditions(**bad)  # type: ignore[arg-type]
