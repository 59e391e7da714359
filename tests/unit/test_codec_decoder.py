"""What a decoder says and keeps: distinct symbols, how many are missing, errors by blame, batches, bounded memory."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from raptor_s3.codec import DegreeTable, ObjectDecoder, ObjectEncoder, ObjectTransmissionInformation
from raptor_s3.errors import MalformedPacket

OTI = ObjectTransmissionInformation(transfer_length=9_950, symbol_size=100, source_blocks=2)  # 50 symbols each
DATA = random.Random(1).randbytes(OTI.transfer_length)


@pytest.fixture
def encoder() -> ObjectEncoder:
    return ObjectEncoder(DATA, OTI)


def test_without_loss_the_last_symbol_is_padded_and_cut_again(encoder: ObjectEncoder) -> None:
    assert encoder.symbol(1, 49) == DATA[9_900:] + bytes(50)
    decoder = ObjectDecoder(OTI)
    for sbn in (1, 0):
        for esi in reversed(range(50)):
            assert decoder.add(sbn, esi, encoder.symbol(sbn, esi))
    assert decoder.is_complete
    assert decoder.data() == DATA


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_symbols_come_as_any_buffer_and_are_copied(encoder: ObjectEncoder, form: type) -> None:
    decoder = ObjectDecoder(OTI)
    for sbn in range(2):
        for esi in range(3, 54):
            buffer = bytearray(encoder.symbol(sbn, esi))
            decoder.add(sbn, esi, form(buffer))
            buffer[:] = bytes(100)
    assert decoder.data() == DATA


def test_it_counts_distinct_symbols_and_those_that_are_missing(encoder: ObjectEncoder) -> None:
    decoder = ObjectDecoder(OTI)
    assert (decoder.received(0), decoder.missing(0)) == (0, 50)
    assert decoder.add(0, 7, encoder.symbol(0, 7))
    assert not decoder.add(0, 7, encoder.symbol(0, 7))
    assert decoder.add(0, 70, encoder.symbol(0, 70))
    assert (decoder.received(0), decoder.missing(0)) == (2, 48)
    assert (decoder.received(1), decoder.missing(1)) == (0, 50)
    for esi in range(100, 152):
        decoder.add(0, esi, encoder.symbol(0, esi))
    assert decoder.missing(0) == 0
    assert decoder.received(0) >= 50
    assert not decoder.is_complete
    with pytest.raises(ValueError, match="1 of 2 source blocks"):
        decoder.data()


def test_symbols_of_a_decoded_block_are_still_told_apart(encoder: ObjectEncoder) -> None:
    decoder = ObjectDecoder(OTI)
    for esi in range(50):
        decoder.add(0, esi, encoder.symbol(0, esi))
    assert decoder.add(0, 50, encoder.symbol(0, 50))
    assert not decoder.add(0, 50, encoder.symbol(0, 50))
    assert not decoder.add(0, 3, encoder.symbol(0, 3))
    assert decoder.received(0) == 51


@pytest.mark.parametrize(
    ("sbn", "esi", "symbol"),
    [(2, 0, bytes(100)), (-1, 0, bytes(100)), (0, 1 << 24, bytes(100)), (0, -1, bytes(100)), (0, 0, bytes(99)), (0, 0, b"")],
)
def test_impossible_symbols_are_malformed_and_change_nothing(sbn: int, esi: int, symbol: bytes) -> None:
    decoder = ObjectDecoder(OTI)
    with pytest.raises(MalformedPacket):
        decoder.add(sbn, esi, symbol)
    assert [decoder.received(block) for block in range(2)] == [0, 0]


def test_a_wide_memoryview_is_measured_in_octets() -> None:
    decoder = ObjectDecoder(OTI)
    with pytest.raises(MalformedPacket):
        decoder.add(0, 0, memoryview(bytes(400)).cast("I"))
    assert decoder.add(0, 0, memoryview(bytes(100)).cast("I"))


@pytest.mark.parametrize("sbn", [2, -1])
def test_questions_about_a_block_that_is_not_there_are_malformed(sbn: int) -> None:
    decoder = ObjectDecoder(OTI)
    with pytest.raises(MalformedPacket):
        decoder.received(sbn)
    with pytest.raises(MalformedPacket):
        decoder.missing(sbn)


def _singular_esis(symbols: int) -> list[int]:
    """K ESIs that don't determine the block, found by trying: about one set in two hundred."""
    choice = random.Random(symbols)
    oti = ObjectTransmissionInformation(symbols, 1, 1)
    encoder = ObjectEncoder(bytes(symbols), oti)
    while True:
        esis = choice.sample(range(5000), symbols)
        decoder = ObjectDecoder(oti)
        for esi in esis:
            decoder.add(0, esi, encoder.symbol(0, esi))
        if not decoder.is_complete:
            return esis


@pytest.mark.parametrize("symbols", [10, 26])
def test_a_singular_set_asks_for_more_and_then_decodes(symbols: int) -> None:
    oti = ObjectTransmissionInformation(symbols * 8, 8, 1)
    data = random.Random(2).randbytes(oti.transfer_length)
    encoder, decoder = ObjectEncoder(data, oti), ObjectDecoder(oti)
    for esi in _singular_esis(symbols):
        assert decoder.add(0, esi, encoder.symbol(0, esi))
    assert decoder.missing(0) >= 1
    assert decoder.received(0) == symbols
    for esi in range(6000, 6010):
        decoder.add(0, esi, encoder.symbol(0, esi))
    assert decoder.data() == data


@pytest.mark.parametrize("size", [0, 1, 5])
def test_small_objects(size: int) -> None:
    oti = ObjectTransmissionInformation(size, 5, 1)
    for esi in (0, 1, 9, (1 << 24) - 1):
        decoder = ObjectDecoder(oti)
        decoder.add(0, esi, ObjectEncoder(DATA[:size], oti).symbol(0, esi))
        assert decoder.data() == DATA[:size]


@pytest.mark.parametrize("table", DegreeTable)
def test_each_degree_table_decodes_its_own(table: DegreeTable) -> None:
    encoder, decoder = ObjectEncoder(DATA, OTI, table), ObjectDecoder(OTI, table)
    for sbn in range(2):
        for esi in range(20, 72):
            decoder.add(sbn, esi, encoder.symbol(sbn, esi))
    assert decoder.data() == DATA


def test_the_degree_tables_differ() -> None:
    rfc, published = (ObjectEncoder(DATA, OTI, table) for table in DegreeTable)
    assert all(rfc.symbol(0, esi) == published.symbol(0, esi) for esi in range(50))
    assert any(rfc.symbol(0, esi) != published.symbol(0, esi) for esi in range(50, 60))


class TestBatches:
    """add_packets: symbols behind their payload ids in one buffer."""

    PREFIX = b"header"
    STRIDE = 6 + 4 + 100 + 5

    def arena(self, encoder: ObjectEncoder, *runs: tuple[int, int, int]) -> tuple[bytearray, int]:
        count = sum(length for _, _, length in runs)
        arena, at = bytearray(count * self.STRIDE), 0
        for sbn, first_esi, length in runs:
            at = encoder.packets_into(arena, at, self.STRIDE, self.PREFIX, sbn, first_esi, length)
        return arena, count

    def test_a_whole_object_at_once(self, encoder: ObjectEncoder) -> None:
        arena, count = self.arena(encoder, (0, 2, 53), (1, 0, 50))
        decoder = ObjectDecoder(OTI)
        assert decoder.add_packets(arena, 6, self.STRIDE, count) == 103
        assert decoder.is_complete
        assert decoder.data() == DATA
        assert [decoder.received(sbn) for sbn in range(2)] == [53, 50]
        assert [decoder.missing(sbn) for sbn in range(2)] == [0, 0]

    def test_in_parts_with_duplicates_and_single_symbols(self, encoder: ObjectEncoder) -> None:
        decoder = ObjectDecoder(OTI)
        arena, count = self.arena(encoder, (0, 0, 30), (1, 40, 30), (0, 10, 30))
        assert decoder.add_packets(arena, 6, self.STRIDE, count) == 70
        assert decoder.add_packets(arena, 6, self.STRIDE, count) == 0
        assert [decoder.missing(sbn) for sbn in range(2)] == [10, 20]
        arena, count = self.arena(encoder, (1, 0, 20), (0, 60, 12))
        decoder.add_packets(arena, 6, self.STRIDE, count)
        assert decoder.data() == DATA

    def test_one_block_whole_and_one_in_part(self, encoder: ObjectEncoder) -> None:
        decoder = ObjectDecoder(OTI)
        arena, count = self.arena(encoder, (1, 0, 52), (0, 0, 10))
        assert decoder.add_packets(arena, 6, self.STRIDE, count) == 62
        assert [decoder.missing(sbn) for sbn in range(2)] == [40, 0]
        assert [decoder.received(sbn) for sbn in range(2)] == [10, 52]
        for esi in range(10, 50):
            decoder.add(0, esi, encoder.symbol(0, esi))
        assert decoder.data() == DATA

    def test_a_block_number_that_is_not_there_is_malformed(self, encoder: ObjectEncoder) -> None:
        arena, count = self.arena(encoder, (0, 0, 3))
        arena[6] = 2
        with pytest.raises(MalformedPacket):
            ObjectDecoder(OTI).add_packets(arena, 6, self.STRIDE, count)

    @pytest.mark.parametrize(
        ("offset", "stride", "count"), [(6, 115, 4), (-1, 115, 1), (250, 115, 1), (0, 0, 3), (0, -1, 2), (0, 115, -1)]
    )
    def test_symbols_outside_the_arena_are_an_error(self, offset: int, stride: int, count: int) -> None:
        with pytest.raises(ValueError, match="arena"):
            ObjectDecoder(OTI).add_packets(bytes(345), offset, stride, count)


def test_a_claim_costs_nothing() -> None:
    """Memory follows the symbols received, not F, T, Z or ESI."""
    oti = ObjectTransmissionInformation(255 * 56_403 * 1000, 1000, 255)
    decoder = ObjectDecoder(oti)
    decoder.add(0, 0, bytes(1000))  # plans and imports aside
    tracemalloc.start()
    try:
        for sbn in range(255):
            decoder.add(sbn, (1 << 24) - 1, bytes(1000))
        assert tracemalloc.get_traced_memory()[1] < 255 * 3000
    finally:
        tracemalloc.stop()
