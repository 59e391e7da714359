"""Our packets against PyPI `raptorq`, an independent RFC 6330 implementation: the same bytes for the same SBN and ESI, and each decodes the other's."""

from __future__ import annotations

import random

import pytest
import raptorq

from raptor_s3.codec import ObjectDecoder, ObjectEncoder, ObjectTransmissionInformation

SYMBOL_SIZE = 16  # the oracle takes multiples of 8 only
SMALL = [1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 17, 18, 26, 27, 32, 49, 64, 101, 128, 200, 256, 257, 400, 512, 513, 1000, 1024]


def _object(symbols: int) -> tuple[bytes, ObjectTransmissionInformation]:
    data = random.Random(symbols).randbytes(symbols * SYMBOL_SIZE)
    return data, ObjectTransmissionInformation(len(data), SYMBOL_SIZE, 1)


def _oracle_packets(data: bytes, repair: int) -> list[tuple[int, int, bytes]]:
    packets = raptorq.Encoder.with_defaults(data, SYMBOL_SIZE).get_encoded_packets(repair)
    return [(packet[0], int.from_bytes(packet[1:4], "big"), packet[4:]) for packet in packets]


@pytest.mark.parametrize("symbols", SMALL)
def test_packets_equal_the_oracles(symbols: int) -> None:
    data, oti = _object(symbols)
    encoder = ObjectEncoder(data, oti)
    theirs = _oracle_packets(data, 12)
    assert [esi for _, esi, _ in theirs] == list(range(symbols + 12))
    assert [encoder.symbol(sbn, esi) for sbn, esi, _ in theirs] == [symbol for _, _, symbol in theirs]


@pytest.mark.parametrize("symbols", SMALL)
def test_we_decode_what_the_oracle_encoded(symbols: int) -> None:
    data, oti = _object(symbols)
    packets = _oracle_packets(data, symbols // 4 + 4)
    random.Random(symbols).shuffle(packets)
    decoder = ObjectDecoder(oti)
    for packet in packets:
        decoder.add(*packet)
        if decoder.is_complete:
            break
    assert decoder.data() == data
