"""Round trip, loss, flight sizes, deadline, pacer: the arithmetic of transfer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raptor_s3.transfer.deadline import plan_deadline
from raptor_s3.transfer.loss import MAX_LOSS, LossEstimate, flight_size
from raptor_s3.transfer.pacing import Pacer
from raptor_s3.transfer.rtt import INITIAL_TIMEOUT_S, MAX_TIMEOUT_S, MIN_TIMEOUT_S, RoundTrip


def test_rtt_follows_rfc_6298() -> None:
    rtt = RoundTrip()
    assert rtt.timeout_s == INITIAL_TIMEOUT_S
    rtt.sample(0.2, now=0)
    assert (rtt.smoothed_s, rtt.variation_s, rtt.timeout_s) == (0.2, 0.1, pytest.approx(0.6))
    rtt.sample(0.3, now=1)
    # RTTVAR <- 3/4 RTTVAR + 1/4 |SRTT - R'|, then SRTT <- 7/8 SRTT + 1/8 R'
    assert rtt.variation_s == pytest.approx(0.75 * 0.1 + 0.25 * 0.1)
    assert rtt.smoothed_s == pytest.approx(0.2 * 7 / 8 + 0.3 / 8)


def test_rtt_of_a_steady_path_asks_soon_after_the_round_trip() -> None:
    rtt = RoundTrip()
    for i in range(30):
        rtt.sample(0.15, now=i)
    assert 0.15 < rtt.timeout_s < 0.15 * 1.2


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_rtt_timeout_stays_in_bounds(samples: list[float]) -> None:
    rtt = RoundTrip()
    for i, sample in enumerate(samples):
        rtt.sample(sample, now=float(i))
        assert MIN_TIMEOUT_S <= rtt.timeout_s <= MAX_TIMEOUT_S


def test_least_round_trip_is_forgotten() -> None:
    rtt = RoundTrip()
    rtt.sample(0.05, now=0)
    for i in range(1, 100):
        rtt.sample(0.2, now=float(i))
    assert rtt.min_s == pytest.approx(0.2)


@given(st.lists(st.tuples(st.integers(-50, 2000), st.integers(-50, 2000)), max_size=40))
def test_loss_estimate_stays_in_bounds(counts: list[tuple[int, int]]) -> None:
    estimate = LossEstimate()
    for sent, received in counts:
        estimate.count(sent, received)
        assert 0 < estimate.rate <= MAX_LOSS


def test_loss_estimate_learns_and_forgets() -> None:
    estimate = LossEstimate()
    for _ in range(50):
        estimate.count(100, 90)
    assert estimate.rate == pytest.approx(0.1, abs=0.01)
    for _ in range(200):
        estimate.count(100, 100)
    assert estimate.rate < 0.005


@pytest.mark.parametrize("needed", [1, 2, 8, 16, 64, 65, 128, 1024])
@pytest.mark.parametrize("loss", [0.01, 0.05, 0.1, 0.3])
def test_flight_suffices_with_the_promised_probability(needed: int, loss: float) -> None:
    sent = flight_size(needed, loss)
    enough = sum(
        math.exp(
            math.lgamma(sent + 1)
            - math.lgamma(lost + 1)
            - math.lgamma(sent - lost + 1)
            + lost * math.log(loss)
            + (sent - lost) * math.log(1 - loss)
        )
        for lost in range(sent - needed + 1)
    )
    assert enough >= 0.98
    assert sent <= needed / (1 - loss) + 4 * math.sqrt(needed * loss) + 2


def test_flight_sizes_that_the_latency_targets_rest_on() -> None:
    assert flight_size(1, 0.01) == 1
    assert flight_size(1, 0.05) == 2
    assert flight_size(0, 0.05) == 0
    assert flight_size(100, 0.05, overhead=0.1) == 110


@given(st.floats(0.01, 3600), st.floats(MIN_TIMEOUT_S, MAX_TIMEOUT_S))
def test_deadline_parts_never_exceed_the_timeout(timeout_s: float, retransmission_s: float) -> None:
    deadline = plan_deadline(timeout_s, retransmission_s)
    if deadline is None:
        assert 2 * retransmission_s > timeout_s or timeout_s < 0.02
        return
    assert min(deadline) > 0
    assert deadline.settle_s >= retransmission_s
    assert sum(deadline) <= timeout_s * (1 + 1e-9)


@given(
    rate=st.floats(1e3, 1e9),
    steps=st.lists(st.tuples(st.floats(0, 0.1), st.integers(1, 60_000)), min_size=1, max_size=200),
)
def test_pacer_never_exceeds_rate_and_burst(rate: float, steps: list[tuple[float, int]]) -> None:
    """Whoever sends only what is available stays under the line, whatever the timing."""
    pacer = Pacer(rate, 0.0, burst_bytes=3000)
    burst = max(3000, rate * 0.008)
    now = sent = 0.0
    for pause, size in steps:
        now += pause
        if pacer.available(now) >= size:
            pacer.spend(size)
            sent += size
        assert sent <= burst + rate * now + 1e-6 * sent + 1


def test_pacer_says_when() -> None:
    pacer = Pacer(1000.0, 0.0, burst_bytes=3000)
    pacer.spend(pacer.available(0.0))
    ready_at = pacer.ready_at(500, 0.0)
    assert ready_at == pytest.approx(0.5)
    assert pacer.available(ready_at) == pytest.approx(500)
