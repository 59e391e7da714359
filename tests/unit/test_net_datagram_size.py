"""The longest datagram that a path takes: what is known, and for how long."""

from __future__ import annotations

import pytest

from raptor_s3.net import memory
from raptor_s3.net.datagram_size import DATAGRAM_SIZES, LEAST, REMEMBER_SIZE_S, DatagramSize, next_below
from raptor_s3.transfer.path import Learned
from raptor_s3.wire.datagram import MAX_DATAGRAM


@pytest.mark.parametrize(
    ("size", "smaller"), [(1400, 1200), (1399, 1200), (1200, 900), (560, LEAST), (LEAST, LEAST), (100, LEAST)]
)
def test_the_next_size_to_try(size: int, smaller: int) -> None:
    assert next_below(size) == smaller


def test_it_falls_rises_and_is_forgotten_in_time() -> None:
    size = DatagramSize()
    size.limit(900, 1000.0)
    size.limit(1200, 2000.0)
    assert (size.octets, size.until) == (900, 1000.0 + REMEMBER_SIZE_S)
    size.allow(1200)
    assert (size.octets, size.until) == (1200, 1000.0 + REMEMBER_SIZE_S)
    size.forget_in_time(999.0 + REMEMBER_SIZE_S)
    assert size.octets == 1200
    size.forget_in_time(1000.0 + REMEMBER_SIZE_S)
    assert size.octets == MAX_DATAGRAM
    size.limit(LEAST, 1000.0)
    size.allow(MAX_DATAGRAM)
    size.forget_in_time(1e12)
    assert size.octets == MAX_DATAGRAM


def test_a_suspicion_outlives_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raptor_s3.net.clock.wall_time", lambda: 2000.0)
    size = DatagramSize()
    size.suspect(1200, 1.0, 2.0, 2000.0)
    size = memory.parse_max_datagram(memory.build(Learned(), size, None))
    assert (size.octets, size.suspected) == (MAX_DATAGRAM, 1200)
    size.suspect(1200, 0.1, 0.2, 2000.0)
    assert (size.octets, size.suspected, size.until) == (1200, 0, 2000.0 + REMEMBER_SIZE_S)


def test_who_only_hands_it_on_does_not_renew_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    size = DatagramSize(900, 5000.0)
    for unix_time in (2000.0, 3000.0, 4999.0):
        monkeypatch.setattr("raptor_s3.net.clock.wall_time", lambda unix_time=unix_time: unix_time)
        size = memory.parse_max_datagram(memory.build(Learned(), size, None))
        assert (size.octets, size.until) == (900, 5000.0)
    monkeypatch.setattr("raptor_s3.net.clock.wall_time", lambda: 5000.0)
    assert memory.parse_max_datagram(memory.build(Learned(), size, None)).octets == DATAGRAM_SIZES[0]
