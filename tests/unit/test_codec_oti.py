"""F, T and Z: what RFC 6330 allows, and how they cut an object."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raptor_s3.codec import ObjectTransmissionInformation
from raptor_s3.errors import MalformedPacket


@pytest.mark.parametrize(
    ("transfer_length", "symbol_size", "source_blocks"),
    [
        (-1, 1, 1),
        (1 << 40, 65_535, 255),
        (10, 0, 1),
        (10, 65_536, 1),
        (10, 1, 0),
        (300, 1, 256),
        (10, 5, 3),  # two symbols can't be three blocks
        (0, 1, 2),
        (56_404, 1, 1),
        (255 * 56_403 + 1, 1, 255),
    ],
)
def test_out_of_range_is_malformed(transfer_length: int, symbol_size: int, source_blocks: int) -> None:
    with pytest.raises(MalformedPacket):
        ObjectTransmissionInformation(transfer_length, symbol_size, source_blocks)


@pytest.mark.parametrize(
    ("transfer_length", "symbol_size", "source_blocks"),
    [(0, 1, 1), (0, 65_535, 1), (56_403, 1, 1), (255 * 56_403, 1, 255), (10, 5, 2), (255 * 56_403 * 1400, 1400, 255)],
)
def test_the_limits_themselves_are_legal(transfer_length: int, symbol_size: int, source_blocks: int) -> None:
    oti = ObjectTransmissionInformation(transfer_length, symbol_size, source_blocks)
    assert (oti.transfer_length, oti.symbol_size, oti.source_blocks) == (transfer_length, symbol_size, source_blocks)


def test_an_empty_object_is_one_symbol() -> None:
    oti = ObjectTransmissionInformation(0, 7, 1)
    assert oti.block_symbols(0) == 1
    assert oti.block_range(0) == (0, 0)


@pytest.mark.parametrize("sbn", [-1, 3, 255, 256])
def test_a_block_that_is_not_there_is_malformed(sbn: int) -> None:
    oti = ObjectTransmissionInformation(100, 10, 3)
    for method in (oti.block, oti.block_symbols, oti.block_range):
        with pytest.raises(MalformedPacket):
            method(sbn)


@given(st.integers(0, 10**7), st.integers(1, 2000), st.integers(1, 255))
def test_blocks_cover_the_object_and_differ_by_one_symbol(transfer_length: int, symbol_size: int, source_blocks: int) -> None:
    try:
        oti = ObjectTransmissionInformation(transfer_length, symbol_size, source_blocks)
    except MalformedPacket:
        return
    symbols = [oti.block_symbols(sbn) for sbn in range(source_blocks)]
    assert sum(symbols) == max(1, -(-transfer_length // symbol_size))
    assert max(symbols) - min(symbols) <= 1
    assert symbols == sorted(symbols, reverse=True)  # the long blocks come first (RFC 6330 4.4.1.2)
    end = 0
    for sbn, count in enumerate(symbols):
        offset, length = oti.block_range(sbn)
        assert offset == end
        assert (count - 1) * symbol_size <= length <= count * symbol_size
        end = offset + length
    assert end == transfer_length


def test_it_is_a_frozen_value() -> None:
    oti = ObjectTransmissionInformation(100, 10, 3)
    with pytest.raises(AttributeError):
        oti.symbol_size = 5
    with pytest.raises(AttributeError):
        del oti.symbol_size
    assert oti == ObjectTransmissionInformation(100, 10, 3) != ObjectTransmissionInformation(100, 10, 2)
    assert len({oti, ObjectTransmissionInformation(100, 10, 3)}) == 1
    assert oti != (100, 10, 3)
    assert pickle.loads(pickle.dumps(oti)) == oti
    assert eval(repr(oti)) == oti
