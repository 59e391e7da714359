"""Primitives for noiseprotocol: PyNaCl and hashlib instead of its default backend.

The default backend imports `cryptography` (30 ms of CPU, docs/wireguard.md); this one shares the primitives of the
transport. Only `handshake` imports this module, and only when a handshake starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noise.backends.noise_backend import NoiseBackend
from noise.functions.cipher import Cipher
from noise.functions.dh import DH
from noise.functions.hash import Hash
from noise.functions.keypair import KeyPair as NoiseKeyPair

from raptor_s3.wireguard import symmetric
from raptor_s3.wireguard.sodium import aead_open, aead_seal, x25519

if TYPE_CHECKING:
    from raptor_s3.wireguard.keys import KeyPair


class KeyPair25519(NoiseKeyPair):  # type: ignore[misc]
    """noiseprotocol's triple of private, public and public octets."""

    @classmethod
    def from_private_bytes(cls, private_bytes: bytes) -> KeyPair25519:
        raise NotImplementedError("key pairs come from raptor_s3.wireguard.keys")

    @classmethod
    def from_public_bytes(cls, public_bytes: bytes) -> KeyPair25519:
        return cls(public=public_bytes, public_bytes=public_bytes)

    @classmethod
    def from_key_pair(cls, pair: KeyPair) -> KeyPair25519:
        return cls(private=pair.private, public=pair.public, public_bytes=pair.public)


class _X25519(DH):  # type: ignore[misc]
    klass = KeyPair25519
    dhlen = 32

    def generate_keypair(self) -> KeyPair25519:
        raise NotImplementedError("ephemeral keys are injected: nothing here draws randomness")

    def dh(self, private_key: bytes, public_key: bytes) -> bytes:
        return x25519(private_key, public_key)


class _ChaChaPoly(Cipher):  # type: ignore[misc]
    klass = bytes

    def encrypt(self, key: bytes, counter: int, additional_data: bytes, plaintext: bytes) -> bytes:
        return aead_seal(key, bytes(4) + counter.to_bytes(8, "little"), plaintext, additional_data)

    def decrypt(self, key: bytes, counter: int, additional_data: bytes, ciphertext: bytes) -> bytes:
        return aead_open(key, bytes(4) + counter.to_bytes(8, "little"), ciphertext, additional_data)


class _Blake2s(Hash):  # type: ignore[misc]
    fn = None
    hashlen = 32
    blocklen = 64

    def hash(self, data: bytes) -> bytes:
        return symmetric.hash_blake2s(data)


class SodiumBackend(NoiseBackend):  # type: ignore[misc]
    """25519, ChaChaPoly and BLAKE2s: all that WireGuard's construction names."""

    def __init__(self) -> None:
        super().__init__()
        self.diffie_hellmans = {"25519": _X25519}
        self.ciphers = {"ChaChaPoly": _ChaChaPoly}
        self.hashes = {"BLAKE2s": _Blake2s}
        self.keypairs = {"25519": KeyPair25519}
        self.hmac = _hmac


def _hmac(key: bytes, data: bytes, algorithm: object) -> bytes:
    return symmetric.hmac(key, data)
