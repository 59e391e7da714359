"""X25519 key pairs, and the base64 form in which `wg` and our settings write keys.

Private keys never appear in a repr. All functions raise ValueError on bad input: which setting was wrong is the
caller's knowledge.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from raptor_s3.wireguard.constants import KEY_SIZE
from raptor_s3.wireguard.sodium import x25519_public

if TYPE_CHECKING:
    from collections.abc import Callable


class KeyPair:
    """A static or ephemeral X25519 key pair, 32 octets each."""

    __slots__ = ("private", "public")

    def __init__(self, private: bytes) -> None:
        self.private = private
        self.public = x25519_public(private)

    def __repr__(self) -> str:
        return f"KeyPair(public={key_to_base64(self.public)})"


def generate_private_key(random: Callable[[int], bytes]) -> bytes:
    """A fresh private key, clamped as `wg genkey` does (RFC 7748 5). `random` must be cryptographic, e.g. `os.urandom`."""
    key = bytearray(random(KEY_SIZE))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return bytes(key)


def public_key(private: bytes) -> bytes:
    """The public key of a private key (32 octets each)."""
    return x25519_public(private)


def key_from_base64(text: str) -> bytes:
    """A key of 32 octets from its 44 characters of base64. Raises ValueError that does not repeat the text: it may be secret."""
    try:
        key = binascii.a2b_base64(text.strip().encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("not a key: expected 44 characters of base64") from None
    if len(key) != KEY_SIZE:
        raise ValueError(f"not a key: {len(key)} octets instead of {KEY_SIZE}")
    return key


def key_to_base64(key: bytes) -> str:
    """The 44 characters that `wg` prints for a key."""
    return binascii.b2a_base64(key, newline=False).decode("ascii")
