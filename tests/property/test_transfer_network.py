"""Puts through a network in memory: hypothesis chooses loss, order, duplication, sizes and write times.

Safety holds for every network: what is written is what was sent, a confirmed put was written, and after an exception nothing is
written any more. Liveness: on a network that delivers something, every put ends well.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from raptor_s3.transfer.incoming import CollectorLimits
from raptor_s3.transfer.outcome import Ending
from raptor_s3.transfer.path import Learned
from tests.network import Client, Network, Path, Server

BODY = random.Random(7).randbytes(300_000)
SIZES = st.sampled_from([0, 1, 200, 1300, 2600, 10_000, 40_000, 150_000])


def build(seed: int, loss: float, duplication: float, jitter_s: float, delay_s: float, **server: Any) -> tuple[Network, Client]:
    network = Network()
    chance = random.Random(seed)

    def fate(_: float) -> int:
        if chance.random() < loss:
            return 0
        return 2 if chance.random() < duplication else 1

    forward, backward = (Path(network, 50e6, delay_s, 0.5, fate, lambda: chance.random() * jitter_s) for _ in range(2))
    learned = Learned(srtt_s=2 * delay_s + jitter_s, rttvar_s=jitter_s / 2)
    return network, Client(network, forward, backward, Server(network, **server), learned=learned)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.4),
    duplication=st.floats(0, 0.5),
    jitter_s=st.floats(0, 0.08),
    delay_s=st.floats(0.0005, 0.1),
    write_s=st.sampled_from([0.0, 0.004, 0.15]),
    sizes=st.lists(SIZES, min_size=1, max_size=6),
)
def test_every_put_is_confirmed_and_whole(
    seed: int, loss: float, duplication: float, jitter_s: float, delay_s: float, write_s: float, sizes: list[int]
) -> None:
    network, client = build(seed, loss, duplication, jitter_s, delay_s, write_s=write_s)
    puts = [client.put(f"k{i}", BODY[:size], timeout_s=60.0) for i, size in enumerate(sizes)]
    network.run(61, until=lambda: len(client.ended) == len(puts))
    assert [put.outcome for put in puts] == [Ending.CONFIRMED] * len(puts)
    written = {name: body for _, name, body in client.server.written}
    assert written == {f"k{i}": BODY[:size] for i, size in enumerate(sizes)}
    assert len(client.server.written) == len(puts), "one transfer reaches the sink once"


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.2, 0.6]),
    delay_share=st.sampled_from([0.001, 0.02, 0.05]),
    jitter_share=st.sampled_from([0.0, 0.04]),
    write_share=st.sampled_from([0.0, 0.05, 0.3, 0.6, 0.75, 0.9, 1.2]),
    size=SIZES,
    timeout_s=st.floats(0.3, 5),
    dark_share=st.tuples(st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.4]), st.floats(0, 0.9)),
    is_mute=st.booleans(),
    honours_cancel=st.booleans(),
)
def test_nothing_is_written_after_the_exception(
    seed: int,
    loss: float,
    delay_share: float,
    jitter_share: float,
    write_share: float,
    size: int,
    timeout_s: float,
    dark_share: tuple[float, float],
    is_mute: bool,
    honours_cancel: bool,
) -> None:
    """All times as shares of the timeout. Datagrams travel at most a tenth of it: the assumption of transfer.deadline.

    The way there is dark for a while, the way back perhaps for good, and the sink writes as late as it may.
    """
    network, client = build(seed, loss, 0.1, jitter_share * timeout_s, delay_share * timeout_s, write_s=write_share * timeout_s)
    server = client.server
    server.honours_cancel = honours_cancel
    started_at = network.now
    begin, length = (share * timeout_s for share in dark_share)
    lossy = client.forward.fate
    client.forward.fate = lambda now: 0 if begin <= now - started_at < begin + length else lossy(now)
    if is_mute:
        client.backward.fate = lambda now: 0
    put = client.put("key", BODY[:size], timeout_s=timeout_s)
    network.run(timeout_s + 0.01, until=lambda: bool(client.ended))
    assert put.outcome is not None, "a put ends by its timeout"
    ended_at = client.ended[0][0]
    assert ended_at <= started_at + timeout_s + 0.005
    network.run(60)
    if put.outcome is Ending.CONFIRMED:
        assert server.written
    else:
        assert all(written_at <= ended_at for written_at, _, _ in server.written)
    assert all(body == BODY[:size] for _, _, body in server.written)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.3), count=st.integers(1, 60))
def test_a_small_collector_loses_puts_but_never_damages_them(seed: int, loss: float, count: int) -> None:
    limits = CollectorLimits(max_bytes=60_000, max_bytes_per_peer=60_000, max_transfers_per_peer=5)
    network, client = build(seed, loss, 0.1, 0.01, 0.01, limits=limits)
    puts = [client.put(f"k{i}", BODY[: 500 * i], timeout_s=4.0) for i in range(count)]
    held = 0

    def look() -> None:
        nonlocal held
        held = max(held, client.server.collector.bytes_held)
        if len(client.ended) < count:
            network.at(network.now + 0.005, look)

    look()
    network.run(5)
    assert held <= 60_000
    assert len(client.ended) == count
    for i, put in enumerate(puts):
        if put.outcome is Ending.CONFIRMED:
            assert (f"k{i}", BODY[: 500 * i]) in {(name, body) for _, name, body in client.server.written}
    network.run(200)
    assert client.server.collector.bytes_held == 0
    assert client.server.collector.transfers == 0
