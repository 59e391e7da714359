"""Rate control and latency over links in virtual time: the design's targets, fixed seeds, no real clock."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from raptor_s3.transfer.outcome import Ending
from raptor_s3.transfer.pacing import WIRE_OVERHEAD
from raptor_s3.transfer.path import Learned
from tests.network import Client, CubicFlow, Network, Path, Server, burst_loss, everything_arrives, random_loss

BODY = os.urandom(1_000_000)


class Bench:
    """A client and a server across a link; puts a folder of equal files, `width` under way at a time."""

    def __init__(
        self,
        mbps: float,
        rtt_s: float,
        loss: float = 0.0,
        *,
        seed: int = 1,
        bursty: bool = False,
        jitter_s: float = 0.0,
        **client: Any,
    ) -> None:
        self.network = network = Network()
        fate = burst_loss if bursty else random_loss
        chance = random.Random(seed)

        def path(number: int) -> Path:
            arrives = fate(loss, number) if loss else everything_arrives
            return Path(network, mbps * 1e6, rtt_s / 2, 0.1, arrives, lambda: chance.random() * jitter_s)

        self.rate = mbps * 1e6
        self.forward, self.backward = path(seed), path(seed + 100)
        self.server = Server(network)
        self.client = Client(network, self.forward, self.backward, self.server, **client)

    def put_folder(self, files: int, size: int = 100_000, width: int = 16, limit_s: float = 200.0) -> float:
        """Returns the seconds it took."""
        client, left = self.client, iter(range(files))
        done = len(client.ended) + files

        def next_one(_: object = None) -> None:
            for index in left:
                client.put(f"k{index}", BODY[:size], timeout_s=60.0)
                break

        client.on_end = next_one
        started_at = self.network.now
        for _ in range(width):
            next_one()
        self.network.run(limit_s, lambda: len(client.ended) == done)
        assert len(client.ended) == done
        return self.network.now - started_at

    @property
    def overflow(self) -> float:
        return self.forward.overflow_tag.get("raptor", 0) / len(self.client.sent_at)

    def use(self, seconds: float) -> float:
        return self.forward.bytes_tag["raptor"] * 8 / seconds / self.rate


@pytest.mark.parametrize(
    ("mbps", "rtt_s", "files"), [(2, 0.02, 80), (2, 0.15, 80), (20, 0.05, 160), (20, 0.15, 160), (100, 0.05, 160)]
)
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_auto_finds_the_rate_and_spares_the_queue(mbps: float, rtt_s: float, files: int, loss: float) -> None:
    bench = Bench(mbps, rtt_s, loss)
    assert bench.use(bench.put_folder(files)) >= (0.75 if loss else 0.8)
    assert bench.overflow < 0.02


@pytest.mark.parametrize("options", [{"jitter_s": 0.03}, {"jitter_s": 0.03, "loss": 0.05}, {"loss": 0.05, "bursty": True}])
@pytest.mark.parametrize("rtt_s", [0.02, 0.15])
def test_neither_jitter_nor_bursts_are_taken_for_congestion(options: dict[str, Any], rtt_s: float) -> None:
    benches = [Bench(20, rtt_s, seed=seed, **options) for seed in range(1, 6)]
    assert min(bench.use(bench.put_folder(160)) for bench in benches) >= 0.7
    assert sum(bench.overflow for bench in benches) / len(benches) < 0.02


@pytest.mark.parametrize(("mbps", "rtt_s", "files"), [(2, 0.02, 40), (20, 0.02, 100), (20, 0.15, 100)])
def test_a_competing_tcp_flow_keeps_a_third(mbps: float, rtt_s: float, files: int) -> None:
    """On average over the moments of its sawtooth at which the puts begin."""
    shares = []
    for head_start_s in (10.0, 11.4, 12.8):
        bench = Bench(mbps, rtt_s)
        flow = CubicFlow(bench.network, bench.forward, bench.backward)
        flow.start()
        bench.network.run(head_start_s)
        before = flow.delivered
        seconds = bench.put_folder(files)
        shares.append((flow.delivered - before) * 8 / seconds / bench.rate)
        assert bench.use(seconds) >= 0.1
    assert sum(shares) / len(shares) >= 1 / 3


@pytest.mark.parametrize(("size", "limit_s"), [(1000, 0.0012), (10_000, 0.002), (100_000, 0.004)])
def test_puts_one_after_another_are_clocked_by_their_confirmations(size: int, limit_s: float) -> None:
    """Nothing of a lone small put tells of the link's rate, and 10 Mbit/s would be slow for a local network."""
    bench = Bench(1000, 0.0005)
    bench.put_folder(50, size, width=1)
    assert bench.put_folder(200, size, width=1) <= 200 * limit_s
    assert bench.overflow == 0


def test_parallel_small_puts_find_a_fast_links_rate() -> None:
    bench = Bench(1000, 0.0005)
    bench.put_folder(500, 1000, width=64)
    assert bench.put_folder(2000, 1000, width=64) <= 2000 * 0.0003
    assert bench.overflow == 0


@pytest.mark.parametrize(("mbps", "rtt_s"), [(0.5, 0.1), (2, 0.05), (2, 0.15)])
def test_parallel_small_puts_adapt_to_a_thin_link(mbps: float, rtt_s: float) -> None:
    """The first 64 are too many for its queue. What overflowed then is not taken for the path's own loss."""
    bench = Bench(mbps, rtt_s)
    assert bench.use(bench.put_folder(1600, 1000, width=64)) >= 0.75
    assert bench.overflow < 0.06
    assert len(bench.client.sent_at) < 1.6 * 1600
    assert bench.client.sender.path.loss.rate < 0.03


@pytest.mark.parametrize("mbps", [0.5, 8.0])
def test_the_cap_holds_over_every_interval(mbps: float) -> None:
    bench = Bench(100, 0.05, cap=mbps * 1e6 / 8)
    bench.put_folder(6, width=3)
    rate, sent = mbps * 1e6 / 8, bench.client.sent_at
    burst = max(min(15_000, max(rate * 0.02, 3000)), rate * 0.008)
    for window_s in (0.01, 0.1, 1.0):
        start = total = 0
        for time, size in sent:
            total += size
            while sent[start][0] < time - window_s:
                total -= sent[start][1]
                start += 1
            assert total <= rate * window_s + burst + 3000


@pytest.mark.parametrize(("files", "size", "width"), [(10, 100_000, 3), (2000, 100, 64)])
def test_the_cap_holds_on_ipv6_too(files: int, size: int, width: int) -> None:
    rate = 0.5e6 / 8
    bench = Bench(100, 0.05, cap=rate)
    bench.put_folder(files, size, width)
    sent = bench.client.sent_at
    octets = sum(size - WIRE_OVERHEAD + 32 + 8 + 40 for _, size in sent)
    assert octets <= rate * (sent[-1][0] - sent[0][0]) + 3000 + 1500


def test_the_rate_is_remembered() -> None:
    first = Bench(20, 0.15)
    first.put_folder(40)
    learned = first.client.sender.learned
    assert learned.rate == pytest.approx(20e6 / 8, rel=0.1)
    second = Bench(20, 0.15, learned=learned)
    assert second.put_folder(1, size=1_000_000, width=1) <= 0.7
    assert second.overflow == 0


def capped(mbps: float, *, learned: Learned | None = None, cap: float, files: int = 4, **path: Any) -> Learned:
    """What a process with a cap leaves to the next."""
    bench = Bench(mbps, 0.1, learned=learned, cap=cap * 1e6 / 8, **path)
    bench.put_folder(files)
    return bench.client.sender.learned


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.1])
def test_a_cap_is_not_taken_for_the_paths_rate(loss: float) -> None:
    """Else the next process, without a cap, would send as slowly, and lose what its timeout does not allow."""
    learned = capped(50, cap=0.5, loss=loss)
    assert learned.rate is None
    assert 0.5 * 0.5e6 / 8 <= (learned.floor or 0.0) <= 0.5e6 / 8
    assert Bench(50, 0.1, learned=learned).put_folder(1, 1_000_000, 1) <= 1.1 * Bench(50, 0.1).put_folder(1, 1_000_000, 1)


def test_a_cap_takes_nothing_away_from_what_is_remembered() -> None:
    assert capped(50, cap=0.5, learned=Learned(0.1, 0.001, 0.0, 50e6 / 8)).rate == 50e6 / 8
    assert capped(50, cap=0.5, learned=Learned(0.1, 0.001, 0.0, None, 1e6)).floor == 1e6
    assert capped(50, cap=8, learned=Learned(0.1, 0.001, 0.0, 2e6 / 8), files=200).rate == pytest.approx(8e6 / 8, rel=0.1)


def test_a_path_that_is_slower_than_the_cap_is_remembered() -> None:
    learned = capped(2, cap=20, files=40)
    assert learned.rate == pytest.approx(2e6 / 8, rel=0.1)
    assert learned.floor is None


def test_a_cap_that_was_never_reached_is_no_floor() -> None:
    assert capped(2, cap=1000, files=0) == Learned()


def test_processes_of_one_put_each_find_the_rate_together() -> None:
    """Each of them ends before it has seen the link's rate; the next goes on from what the path has carried so far."""
    learned: Learned | None = None
    for _ in range(3):
        bench = Bench(20, 0.15, learned=learned)
        seconds = bench.put_folder(1, size=100_000, width=1)
        learned = bench.client.sender.learned
    assert learned is not None
    assert learned.rate is None
    assert learned.floor == pytest.approx(10e6 / 8, rel=0.2)
    assert seconds <= 0.205
    assert bench.overflow == 0


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.1])
def test_the_rate_is_not_lost_from_process_to_process(loss: float) -> None:
    """A few rounds each: too few to tell the path's own loss from a queue's, unless that is remembered too."""
    learned: Learned | None = None
    times = []
    for number in range(10):
        bench = Bench(20, 0.15, loss, seed=number + 1, learned=learned)
        times.append(bench.put_folder(1, size=1_000_000, width=1))
        learned = bench.client.sender.learned
        assert bench.overflow < 0.02
    assert learned is not None
    assert learned.rate == pytest.approx(20e6 / 8, rel=0.15)
    assert max(times[1:]) <= 0.8


def put_and_wait(bench: Bench) -> Ending | None:
    transfer = bench.client.put("k", BODY[:1000], timeout_s=5.0)
    bench.network.run(6.0, lambda: transfer.outcome is not None)
    return transfer.outcome


def test_a_path_that_was_too_slow_for_the_timeout_is_tried_again() -> None:
    """Once a put is refused for its round trips, none would ever measure a better one."""
    bench = Bench(20, 0.05)
    for _ in range(20):
        bench.client.sender.path.rtt.sample(4.0, bench.network.now)
    assert put_and_wait(bench) is Ending.NOTHING_SENT
    bench.network.run(11.0)
    assert put_and_wait(bench) is Ending.CONFIRMED
    assert put_and_wait(bench) is Ending.CONFIRMED, "the old round trips are forgotten with the first new one"


def test_a_remembered_round_trip_may_be_wrong() -> None:
    assert put_and_wait(Bench(20, 0.05, learned=Learned(4.0, 1.0, 0.01))) is Ending.CONFIRMED


def latencies(bench: Bench, size: int, count: int, warm: int = 20) -> list[float]:
    times = []
    for index in range(count + warm):
        seconds = bench.put_folder(1, size, width=1)
        if index >= warm:
            times.append(seconds)
        bench.network.run(0.3)
    return sorted(times)


@pytest.mark.parametrize(
    ("size", "rtt_s", "loss", "median_s", "p99_s"),
    [
        (1000, 0.15, 0.0, 1.1 * 0.15, 1.2 * 0.15),
        (10_000, 0.15, 0.0, 1.1 * 0.15, 1.2 * 0.15),
        (1000, 0.15, 0.1, 1.1 * 0.15, 2.3 * 0.15),
        (10_000, 0.15, 0.05, 1.1 * 0.15, 2.3 * 0.15),
        (100_000, 0.15, 0.05, 0.26, 0.5),
        (100_000, 0.02, 0.10, 0.12, 0.2),
    ],
)
def test_latency(size: int, rtt_s: float, loss: float, median_s: float, p99_s: float) -> None:
    times = latencies(Bench(20, rtt_s, loss, seed=3), size, 200)
    assert times[100] <= median_s
    assert times[198] <= p99_s


@pytest.mark.parametrize(("loss", "median_s", "p99_s"), [(0.01, 0.75, 1.1), (0.05, 0.8, 1.1)])
def test_latency_of_a_megabyte_on_a_known_link(loss: float, median_s: float, p99_s: float) -> None:
    times = latencies(Bench(20, 0.15, loss, seed=3), 1_000_000, 50, warm=10)
    assert times[25] <= median_s
    assert times[-1] <= p99_s


def test_a_wrong_memory_of_the_rate_is_corrected() -> None:
    bench = Bench(2, 0.05, learned=Learned(0.05, 0.005, 0.01, 100e6 / 8))
    assert bench.use(bench.put_folder(60)) >= 0.8
    assert bench.overflow < 0.2
    assert bench.client.sender.learned.rate == pytest.approx(2e6 / 8, rel=0.15)


def test_the_sender_survives_a_blackout() -> None:
    bench = Bench(20, 0.05)
    bench.put_folder(20)
    fate, begin = bench.forward.fate, bench.network.now + 0.1
    bench.forward.fate = lambda now: 0 if begin <= now < begin + 1.0 else fate(now)
    assert bench.put_folder(20) < 6.0


@pytest.mark.parametrize("seed", [5, 7])
@pytest.mark.parametrize("loss", [0.02, 0.05, 0.1])
def test_repair_that_was_not_needed_is_taken_for_neither_a_slower_nor_a_faster_link(loss: float, seed: int) -> None:
    """A small put's spare datagram arrives when nobody speaks of it any more. Uncounted, it would halve the rate every round;

    counted when another one's was due, which left much later, it would multiply it.
    """
    bench = Bench(2, 0.15, loss, seed=seed)
    bench.put_folder(1600, 1000, width=64)
    assert bench.use(bench.put_folder(800, 1000, width=64)) >= 0.5
    assert bench.client.sender.controller.bandwidth * 8 == pytest.approx(2e6, rel=0.4)
