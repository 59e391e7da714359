"""Any object, any loss, order and duplication, on every kernel: the object comes back, and all kernels agree on every octet."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raptor_s3.codec import DegreeTable, ObjectDecoder, ObjectEncoder, ObjectTransmissionInformation, kernel, numpy_kernel, plans
from raptor_s3.codec.header import plan_header
from raptor_s3.errors import MalformedPacket


@contextmanager
def running_on(name: str) -> Iterator[None]:
    kernel.use(name)
    plans.forget_plans()
    try:
        yield
    finally:
        kernel.use(kernel.available()[0])
        plans.forget_plans()


@st.composite
def objects(draw: st.DrawFn, most_symbols: int) -> tuple[bytes, ObjectTransmissionInformation, DegreeTable]:
    symbol_size = draw(st.integers(1, 300))
    blocks = draw(st.integers(1, 3))
    symbols = draw(st.integers(blocks, most_symbols))
    length = draw(st.integers((symbols - 1) * symbol_size + 1, symbols * symbol_size))
    data = random.Random(draw(st.integers(0, 2**32))).randbytes(length)
    return data, ObjectTransmissionInformation(length, symbol_size, blocks), draw(st.sampled_from(DegreeTable))


@pytest.mark.parametrize("name", kernel.available())
@settings(max_examples=40, deadline=None)
@given(made=objects(most_symbols=90), seed=st.integers(0, 2**32), loss=st.floats(0, 1), in_batch=st.booleans())
def test_any_symbols_in_any_order_give_the_object(
    name: str, made: tuple[bytes, ObjectTransmissionInformation, DegreeTable], seed: int, loss: float, in_batch: bool
) -> None:
    with running_on(name):
        check_round_trip(made, seed, loss, in_batch)


def check_round_trip(
    made: tuple[bytes, ObjectTransmissionInformation, DegreeTable], seed: int, loss: float, in_batch: bool
) -> None:
    data, oti, table = made
    choice = random.Random(seed)
    encoder, decoder = ObjectEncoder(data, oti, table), ObjectDecoder(oti, table)
    sent = [(sbn, esi) for sbn in range(oti.source_blocks) for esi in range(oti.block_symbols(sbn)) if choice.random() >= loss]
    sent += choice.sample(sent, len(sent) // 4)  # duplicates
    choice.shuffle(sent)
    if in_batch and sent:
        stride = 4 + oti.symbol_size
        arena = bytearray(len(sent) * stride)
        for i, (sbn, esi) in enumerate(sent):
            encoder.packets_into(arena, i * stride, stride, b"", sbn, esi, 1)
        assert decoder.add_packets(arena, 0, stride, len(sent)) == len(set(sent))
    else:
        for sbn, esi in sent:
            decoder.add(sbn, esi, encoder.symbol(sbn, esi))
    for sbn in range(oti.source_blocks):
        assert decoder.received(sbn) == len({esi for block, esi in sent if block == sbn})
        esi = choice.randrange(oti.block_symbols(sbn), 1 << 23)
        sent_repair = 0
        while (missing := decoder.missing(sbn)) and sent_repair < 200:
            for _ in range(missing):
                assert decoder.add(sbn, esi, encoder.symbol(sbn, esi))
                esi += 1
                sent_repair += 1
    assert decoder.data() == data


@settings(max_examples=30, deadline=None)
@given(
    made=objects(most_symbols=300),
    first=st.integers(0, 400),
    count=st.integers(1, 60),
    prefix=st.binary(max_size=40),
    gap=st.integers(0, 9),
)
def test_all_kernels_write_the_same_packets(
    made: tuple[bytes, ObjectTransmissionInformation, DegreeTable], first: int, count: int, prefix: bytes, gap: int
) -> None:
    data, oti, table = made
    stride = len(prefix) + 4 + oti.symbol_size + gap
    arenas = {}
    try:
        for name in kernel.available():
            kernel.use(name)
            arena = bytearray(b"\xa5") * (5 + count * stride)
            assert ObjectEncoder(data, oti, table).packets_into(
                arena, 5, stride, prefix, oti.source_blocks - 1, first, count
            ) == len(arena)
            arenas[name] = bytes(arena)
    finally:
        kernel.use(kernel.available()[0])
    assert len(set(arenas.values())) == 1
    slots = [arenas["numpy"][5 + i * stride :][:stride] for i in range(count)]
    assert all(slot.startswith(prefix) and slot.endswith(b"\xa5" * gap) for slot in slots)
    assert arenas["numpy"][:5] == b"\xa5" * 5


@settings(max_examples=40, deadline=None)
@given(
    symbols=st.integers(1, 60), seed=st.integers(0, 2**32), surplus=st.integers(-2, 3), sparse=st.booleans(), tamper=st.booleans()
)
def test_all_kernels_give_the_same_answer_to_any_set(symbols: int, seed: int, surplus: int, sparse: bool, tamper: bool) -> None:
    """Too few, singular and surplus sets too, and symbols that nobody encoded."""
    choice = random.Random(seed)
    size, length = 21, symbols * 21 - choice.randrange(21)
    data = choice.randbytes(length)
    header = plan_header(symbols)
    plan = header if sparse else numpy_kernel.make_plan(header)
    esis = choice.sample(range(3 * symbols + 6), max(symbols + surplus, 1))
    esis += [choice.choice(esis)]
    packets = bytearray()
    oti = ObjectTransmissionInformation(length, size, 1)
    encoder = ObjectEncoder(data, oti)
    for esi in esis:
        symbol = choice.randbytes(size) if tamper else encoder.symbol(0, esi)
        packets += bytes((0,)) + esi.to_bytes(3, "big") + symbol
    answers: dict[str, Any] = {}
    try:
        for name in kernel.available():
            kernel.use(name)
            answers[name] = kernel.active.decode(plan, plan, packets, 4, size + 4, len(esis), None, 1, size, length)
    finally:
        kernel.use(kernel.available()[0])
    expected = answers["numpy"]
    assert all(answer == expected for answer in answers.values())
    assert expected[0] == (len(set(esis)),)
    assert (expected[2] is None) == (expected[1] > 0)
    if expected[2] is not None and not tamper:
        assert expected[2] == data


@settings(max_examples=100, deadline=None)
@given(
    fields=st.tuples(st.integers(0, 5000), st.integers(1, 80), st.integers(1, 4)),
    packets=st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 1 << 24), st.binary(max_size=81)), max_size=30),
)
def test_hostile_packets_are_refused_or_counted(fields: tuple[int, int, int], packets: list[tuple[int, int, bytes]]) -> None:
    try:
        decoder = ObjectDecoder(ObjectTransmissionInformation(*fields))
    except MalformedPacket:
        return
    for sbn, esi, symbol in packets:
        try:
            decoder.add(sbn, esi, symbol)
        except MalformedPacket:
            continue
        assert decoder.received(sbn) > 0
    if decoder.is_complete:
        assert len(decoder.data()) == fields[0]
