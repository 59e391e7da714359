"""Handshake messages and keys: exact layouts, exact sizes."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest

from raptor_s3.errors import MalformedPacket
from raptor_s3.wireguard import messages
from raptor_s3.wireguard.keys import KeyPair, generate_private_key, key_from_base64, key_to_base64, public_key

NOISE_INITIATION = bytes(range(108))
NOISE_RESPONSE = bytes(range(48))
MAC1, MAC2 = b"1" * 16, b"2" * 16


def test_initiation() -> None:
    built = messages.build_initiation(0x04030201, NOISE_INITIATION) + MAC1 + MAC2
    assert built == bytes.fromhex("01000000" + "01020304") + NOISE_INITIATION + MAC1 + MAC2
    assert len(built) == messages.INITIATION_SIZE == 148
    assert messages.parse_initiation(memoryview(built)) == (0x04030201, NOISE_INITIATION, MAC1, MAC2)
    assert messages.before_mac1(built) == built[:116]
    assert messages.before_mac2(built) == built[:132]


def test_response() -> None:
    built = messages.build_response(1, 0xFFFFFFFF, NOISE_RESPONSE) + MAC1 + MAC2
    assert built == bytes.fromhex("02000000" + "01000000" + "ffffffff") + NOISE_RESPONSE + MAC1 + MAC2
    assert len(built) == messages.RESPONSE_SIZE == 92
    assert messages.parse_response(built) == (1, 0xFFFFFFFF, NOISE_RESPONSE, MAC1, MAC2)


def test_cookie_reply() -> None:
    built = messages.build_cookie_reply(7, b"n" * 24, b"c" * 32)
    assert built == bytes.fromhex("03000000" + "07000000") + b"n" * 24 + b"c" * 32
    assert len(built) == messages.COOKIE_REPLY_SIZE == 64
    assert messages.parse_cookie_reply(bytearray(built)) == (7, b"n" * 24, b"c" * 32)


@pytest.mark.parametrize(
    ("parse", "message_type", "size"),
    [
        (messages.parse_initiation, 1, 148),
        (messages.parse_response, 2, 92),
        (messages.parse_cookie_reply, 3, 64),
    ],
)
def test_wrong_sizes_types_and_reserved_bits(parse, message_type, size) -> None:  # type: ignore[no-untyped-def]
    good = bytes((message_type, 0, 0, 0)) + bytes(size - 4)
    parse(good)
    for bad in (good[:-1], good + b"\0", b"", bytes((message_type + 1,)) + good[1:], good[:3] + b"\1" + good[4:]):
        with pytest.raises(MalformedPacket):
            parse(bad)


@pytest.mark.parametrize("header", ["", "01", "010000", "00000000", "05000000", "01010000", "01000001", "ff000000"])
def test_not_a_message_type(header: str) -> None:
    with pytest.raises(MalformedPacket):
        messages.message_type(bytes.fromhex(header))


def test_private_keys_are_clamped_as_wg_does() -> None:
    key = generate_private_key(lambda size: b"\xff" * size)
    assert key == b"\xf8" + b"\xff" * 30 + b"\x7f"
    assert generate_private_key(bytes) == bytes(31) + b"\x40"


def test_keys_as_base64() -> None:
    pair = KeyPair(generate_private_key(lambda size: bytes(range(size))))
    text = key_to_base64(pair.public)
    assert text == base64.b64encode(pair.public).decode()
    assert key_from_base64(f" {text}\n") == pair.public == public_key(pair.private)


@pytest.mark.parametrize("text", ["", "xyz", "AAAA", "A" * 44, base64.b64encode(bytes(31)).decode(), "é" * 44, "!" * 43 + "="])
def test_bad_keys_are_not_repeated_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a key") as raised:
        key_from_base64(text)
    assert not text or text not in str(raised.value)


def test_secrets_are_not_in_reprs() -> None:
    pair = KeyPair(generate_private_key(lambda size: b"\xab" * size))
    assert key_to_base64(pair.private) not in repr(pair)
    assert repr(pair.private) not in repr(pair)


def test_imports_stay_light() -> None:
    """The handshake's libraries come with the first handshake; a restored session needs none of them."""
    program = (
        "import sys, raptor_s3.wireguard.tunnel, raptor_s3.wireguard.session, raptor_s3.net.session_store;"
        "print([m for m in ('noise', 'cryptography', 'nacl.bindings', 'botocore', 'numpy') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert output.stdout.strip() == "[]"
