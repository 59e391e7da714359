"""libsodium through PyNaCl's cffi layer: ChaCha20-Poly1305, XChaCha20-Poly1305 and X25519 (RFC 8439, RFC 7748).

The cffi module is used directly because `nacl.bindings` costs 12 ms of CPU to import and 5 us a call in checks and copies
(docs/wireguard.md has the numbers). This is the only module that knows about it.

Invariant: every length that reaches C has been checked against the buffer it belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nacl._sodium import ffi as _ffi  # type: ignore[import-not-found]
from nacl._sodium import lib as _lib

from raptor_s3.errors import AuthenticationFailed

if TYPE_CHECKING:
    from typing_extensions import Buffer

if _lib.sodium_init() < 0:
    raise ImportError("libsodium could not be initialised")

ffi: Final[Any] = _ffi
NULL: Final[Any] = _ffi.NULL
aead_encrypt: Final[Any] = _lib.crypto_aead_chacha20poly1305_ietf_encrypt
aead_decrypt: Final[Any] = _lib.crypto_aead_chacha20poly1305_ietf_decrypt

_KEY_SIZE = 32
_TAG_SIZE = 16


def aead_addresses() -> tuple[int, int]:
    """Where `aead_encrypt` and `aead_decrypt` are, for C that is handed them instead of linking libsodium."""
    encrypt, decrypt = (_ffi.addressof(_lib, f"crypto_aead_chacha20poly1305_ietf_{name}crypt") for name in ("en", "de"))
    return int(_ffi.cast("uintptr_t", encrypt)), int(_ffi.cast("uintptr_t", decrypt))


def aead_seal(key: bytes, nonce: bytes, plaintext: Buffer, additional_data: bytes = b"") -> bytes:
    """ChaCha20-Poly1305 (RFC 8439 2.8): ciphertext and tag. `key` 32 octets, `nonce` 12."""
    return _seal(aead_encrypt, 12, key, nonce, plaintext, additional_data)


def aead_open(key: bytes, nonce: bytes, ciphertext: Buffer, additional_data: bytes = b"") -> bytes:
    """The plaintext of `aead_seal`. Raises AuthenticationFailed."""
    return _open(aead_decrypt, 12, key, nonce, ciphertext, additional_data)


def xaead_seal(key: bytes, nonce: bytes, plaintext: Buffer, additional_data: bytes = b"") -> bytes:
    """XChaCha20-Poly1305: as `aead_seal` with a `nonce` of 24 octets, which may be random."""
    return _seal(_lib.crypto_aead_xchacha20poly1305_ietf_encrypt, 24, key, nonce, plaintext, additional_data)


def xaead_open(key: bytes, nonce: bytes, ciphertext: Buffer, additional_data: bytes = b"") -> bytes:
    """The plaintext of `xaead_seal`. Raises AuthenticationFailed."""
    return _open(_lib.crypto_aead_xchacha20poly1305_ietf_decrypt, 24, key, nonce, ciphertext, additional_data)


def x25519(private_key: bytes, public_key: bytes) -> bytes:
    """The shared secret. Raises AuthenticationFailed when it is all zeros (a low-order public key, RFC 7748 6.1)."""
    _check_sizes((private_key, _KEY_SIZE), (public_key, _KEY_SIZE))
    shared = _ffi.new("unsigned char[32]")
    if _lib.crypto_scalarmult(shared, private_key, public_key):
        raise AuthenticationFailed("low-order public key")
    return bytes(_ffi.buffer(shared))


def x25519_public(private_key: bytes) -> bytes:
    """The public key of `private_key`."""
    _check_sizes((private_key, _KEY_SIZE))
    public = _ffi.new("unsigned char[32]")
    _lib.crypto_scalarmult_base(public, private_key)
    return bytes(_ffi.buffer(public))


def is_equal(left: bytes, right: bytes) -> bool:
    """Comparison in constant time, for tags of one size."""
    return len(left) == len(right) and _lib.sodium_memcmp(left, right, len(left)) == 0


def _seal(function: Any, nonce_size: int, key: bytes, nonce: bytes, plaintext: Buffer, additional_data: bytes) -> bytes:
    _check_sizes((key, _KEY_SIZE), (nonce, nonce_size))
    source = _ffi.from_buffer(plaintext)
    out = bytearray(len(source) + _TAG_SIZE)
    function(_ffi.from_buffer(out), NULL, source, len(source), additional_data, len(additional_data), NULL, nonce, key)
    return bytes(out)


def _open(function: Any, nonce_size: int, key: bytes, nonce: bytes, ciphertext: Buffer, additional_data: bytes) -> bytes:
    _check_sizes((key, _KEY_SIZE), (nonce, nonce_size))
    source = _ffi.from_buffer(ciphertext)
    if len(source) < _TAG_SIZE:
        raise AuthenticationFailed("shorter than a tag")
    out = bytearray(len(source) - _TAG_SIZE)
    if function(_ffi.from_buffer(out), NULL, NULL, source, len(source), additional_data, len(additional_data), nonce, key):
        raise AuthenticationFailed("tag does not verify")
    return bytes(out)


def _check_sizes(*fields: tuple[bytes, int]) -> None:
    for value, size in fields:
        if len(value) != size:
            raise ValueError(f"expected {size} octets, got {len(value)}")
