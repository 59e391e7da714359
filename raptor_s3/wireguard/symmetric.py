"""BLAKE2s, its HMAC and KDF, and TAI64N (whitepaper 5.4, RFC 7693, RFC 2104, RFC 5869).

`mac` is BLAKE2s's own keyed mode with 16 octets of output; `hmac` is RFC 2104 over the unkeyed hash: the whitepaper
uses both, and they are not the same function.
"""

from __future__ import annotations

try:
    from _blake2 import blake2s  # CPython's own; hashlib would load OpenSSL for its other functions, 3 ms in a first put
except ImportError:
    from hashlib import blake2s

from raptor_s3.wireguard.constants import MAC_SIZE

_BLOCK_SIZE = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
# TAI64N labels 1970-01-01 00:00:10 TAI as 2^62 + 10 seconds; leap seconds since are not counted, as in the reference.
_TAI64_EPOCH = 2**62 + 10
_NS_PER_S = 1_000_000_000


def hash_blake2s(data: bytes) -> bytes:
    """HASH of the whitepaper: BLAKE2s, 32 octets."""
    return blake2s(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    """MAC of the whitepaper: keyed BLAKE2s, 16 octets. `key` has 16 (a cookie) or 32."""
    return blake2s(data, key=key, digest_size=MAC_SIZE).digest()


def hmac(key: bytes, data: bytes) -> bytes:
    """HMAC-BLAKE2s (RFC 2104), 32 octets. `key` has at most 64, as every key in this protocol."""
    if len(key) > _BLOCK_SIZE:
        raise ValueError("HMAC keys here have at most 64 octets")
    padded = key.ljust(_BLOCK_SIZE, b"\0")
    inner = blake2s(padded.translate(_INNER_PAD) + data).digest()
    return blake2s(padded.translate(_OUTER_PAD) + inner).digest()


def kdf(chaining_key: bytes, data: bytes, outputs: int) -> tuple[bytes, ...]:
    """KDF_n of the whitepaper: HKDF (RFC 5869) over HMAC-BLAKE2s with an empty info; `outputs` keys of 32 octets."""
    secret = hmac(chaining_key, data)
    keys: list[bytes] = []
    previous = b""
    for number in range(1, outputs + 1):
        previous = hmac(secret, previous + bytes((number,)))
        keys.append(previous)
    return tuple(keys)


def tai64n(unix_ns: int) -> bytes:
    """A TAI64N label, 12 octets, of nanoseconds since 1970; labels compare as bytes in the order of time."""
    seconds, nanoseconds = divmod(unix_ns, _NS_PER_S)
    return (_TAI64_EPOCH + seconds).to_bytes(8, "big") + nanoseconds.to_bytes(4, "big")
