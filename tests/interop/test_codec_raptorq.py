"""Our packets against PyPI `raptorq`, an independent RFC 6330 implementation: the same octets for the same SBN and ESI, and
each decodes the other's. The oracle takes symbol sizes that are multiples of 8 only; other sizes are compared between our own
kernels (tests/property/test_codec_roundtrip.py)."""

from __future__ import annotations

import random

import pytest

from raptor_s3.codec import ObjectDecoder, ObjectEncoder, ObjectTransmissionInformation, kernel

raptorq = pytest.importorskip("raptorq", reason="the oracle is not installed")

# Small K, both sides of steps of Table 2, powers of two, both sides of the largest K with a generator, the largest of all
SYMBOLS = [
    *(1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 17, 18, 19, 20, 21, 26, 27, 30, 31, 32, 33, 42, 49, 64, 65, 84, 101, 127, 128, 129),
    *(200, 255, 256, 257, 333, 400, 500, 511, 512, 513, 600, 777, 1000, 1023, 1024, 1025, 1500, 1999, 2041, 2048, 2049),
    *(2070, 3000, 4096, 5000, 8192, 10_017, 20_000, 37_000, 56_402, 56_403),
]
REPAIR = 40


def make_object(symbols: int, symbol_size: int) -> tuple[bytes, ObjectTransmissionInformation]:
    data = random.Random(symbols).randbytes(symbols * symbol_size)
    return data, ObjectTransmissionInformation(len(data), symbol_size, 1)


@pytest.mark.parametrize("symbols", SYMBOLS)
def test_packets_equal_the_oracles_and_decode(symbols: int) -> None:
    data, oti = make_object(symbols, 8)
    theirs = raptorq.Encoder.with_defaults(data, 8).get_encoded_packets(REPAIR)
    ours = bytearray(len(theirs) * 12)
    ObjectEncoder(data, oti).packets_into(ours, 0, 12, b"", 0, 0, symbols + REPAIR)
    assert ours == b"".join(theirs)

    received = random.Random(symbols).sample(theirs, symbols + min(2, REPAIR))
    decoder = ObjectDecoder(oti)
    decoder.add_packets(b"".join(received), 0, 12, len(received))
    for packet in theirs:  # in the rare case that these were singular
        if decoder.missing(0):
            decoder.add(0, int.from_bytes(packet[1:4], "big"), packet[4:])
    assert decoder.data() == data


@pytest.mark.parametrize("name", kernel.available())
@pytest.mark.parametrize(("symbols", "symbol_size"), [(1, 1024), (8, 1280), (100, 1000), (128, 800), (600, 64), (2100, 8)])
def test_every_kernel_equals_the_oracle(name: str, symbols: int, symbol_size: int) -> None:
    data, oti = make_object(symbols, symbol_size)
    theirs = raptorq.Encoder.with_defaults(data, symbol_size).get_encoded_packets(REPAIR)
    ours = bytearray(len(theirs) * (4 + symbol_size))
    kernel.use(name)
    try:
        ObjectEncoder(data, oti).packets_into(ours, 0, 4 + symbol_size, b"", 0, 0, len(theirs))
    finally:
        kernel.use(kernel.available()[0])
    assert ours == b"".join(theirs)


@pytest.mark.parametrize("symbols", [1, 10, 26, 128, 512, 2500])
def test_the_oracle_decodes_what_we_encoded(symbols: int) -> None:
    data, oti = make_object(symbols, 16)
    encoder = ObjectEncoder(data, oti)
    decoder = raptorq.Decoder.with_defaults(len(data), 16)
    esis = [*range(symbols // 3, symbols), *range(1000 + symbols, 1010 + symbols + symbols // 3)]
    for esi in esis:
        result = decoder.decode(bytes((0,)) + esi.to_bytes(3, "big") + encoder.symbol(0, esi))
        if result is not None:
            break
    assert result == data


def test_high_encoding_symbol_ids_equal_the_oracles_by_decoding() -> None:
    """get_encoded_packets can't be asked for ESI 2^24 - 1, but the oracle's decoder can be fed it."""
    data, oti = make_object(10, 8)
    encoder = ObjectEncoder(data, oti)
    decoder = raptorq.Decoder.with_defaults(len(data), 8)
    result = None
    for esi in range((1 << 24) - 14, 1 << 24):
        result = result or decoder.decode(bytes((0,)) + esi.to_bytes(3, "big") + encoder.symbol(0, esi))
    assert result == data
