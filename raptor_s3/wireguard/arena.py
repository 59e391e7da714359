"""Many transport messages at once: equal-size plaintexts out of one arena, messages back to back into another, for UDP GSO.

A loop in C over libsodium's AEAD where it was built (`_arena.c`), else the same loop in Python; `seal_messages` is the one
in use. docs/wireguard.md has both speeds.

Invariant: either every length fits its buffer, or ValueError and nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptor_s3.wireguard.constants import KEY_SIZE, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from raptor_s3.wireguard.messages import NONCE, TRANSPORT_HEADER, TYPE_TRANSPORT
from raptor_s3.wireguard.sodium import NULL, aead_encrypt, aead_encrypt_address, ffi

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

try:
    from raptor_s3.wireguard import _arena
except ImportError:  # built without a C compiler
    _arena = None  # type: ignore[assignment]


def seal_messages_in_python(
    key: bytes, index: int, counter: int, arena: Buffer, count: int, size: int, stride: int, out: Buffer
) -> int:
    """Seal `count` plaintexts, `stride` apart, under counters `counter`, `counter + 1`, ...; returns the octets written."""
    message_size = size + TRANSPORT_OVERHEAD
    source, target = ffi.from_buffer(arena), ffi.from_buffer(out, require_writable=True)
    if (
        len(key) != KEY_SIZE
        or count < 1
        or not 0 <= size <= stride
        or (count - 1) * stride + size > len(source)
        or count * message_size > len(target)
    ):
        raise ValueError("a buffer is too small, or the key has not 32 octets")
    view = memoryview(out).cast("B")
    plaintext, ciphertext = source + 0, target + TRANSPORT_HEADER_SIZE
    for offset in range(0, count * message_size, message_size):
        TRANSPORT_HEADER.pack_into(view, offset, TYPE_TRANSPORT, index, counter)
        aead_encrypt(ciphertext, NULL, plaintext, size, NULL, 0, NULL, NONCE.pack(counter), key)
        plaintext += stride
        ciphertext += message_size
        counter += 1
    return count * message_size


def seal_messages_in_c(
    key: bytes, index: int, counter: int, arena: Buffer, count: int, size: int, stride: int, out: Buffer
) -> int:
    """As `seal_messages_in_python`; without the GIL while it runs."""
    return _arena.seal_messages(aead_encrypt_address, key, index, counter, arena, count, size, stride, out)


HAS_C = _arena is not None
seal_messages: Callable[[bytes, int, int, Buffer, int, int, int, Buffer], int] = (
    seal_messages_in_c if HAS_C else seal_messages_in_python
)
