"""Transport messages (whitepaper 5.4.6): one, or many at once out of one arena, back to back into another, for UDP GSO.

In C where it was built (`_arena.c`), else in Python; both give the same bytes. Runs of messages are sealed by OpenSSL where
there is one: a message of 1 KB takes two thirds to three quarters of libsodium's time (docs/wireguard.md). Finding it costs
more than a few messages are worth, so it is looked for only by a process that seals many, and has to agree with libsodium
before it is used. `choose` forces one of the two, for tests and benchmarks.

Invariant: either every length fits its buffer, or ValueError and nothing is written. A run that fails leaves zeros in its
place, and is an error. A replay window changes only when a tag has verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from raptor_s3.errors import WireGuardError
from raptor_s3.wireguard.constants import KEY_SIZE, TAG_SIZE, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from raptor_s3.wireguard.messages import NONCE, TRANSPORT_HEADER, TYPE_TRANSPORT
from raptor_s3.wireguard.sodium import NULL, aead_addresses, aead_decrypt, aead_encrypt, ffi

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from raptor_s3.wireguard.replay import ReplayWindow

    SealMessages = Callable[[bytes, int, int, Buffer, int, int, int, Buffer], int]

try:
    from raptor_s3.wireguard import _arena
except ImportError:  # built without a C compiler
    _arena = None  # type: ignore[assignment]

# Why a message was not opened, the first that applies; _arena.c has the same numbers.
NOT_OURS: Final = 1  # no transport message to this index, or too short for one
PAST_LIMIT: Final = 2
NOT_FRESH: Final = 3
FORGED: Final = 4

# OpenSSL takes longer to begin a run, and no less for a short message.
OPENSSL_LEAST_COUNT: Final = 4
OPENSSL_LEAST_SIZE: Final = 640
# So many such messages pay for looking for a libcrypto: one that the process has (0.1 to 0.9 ms), any (2.4 ms).
OPENSSL_AFTER: Final = 1000
OPENSSL_AFTER_UNLOADED: Final = 8000
OPENSSL_LIBRARIES: Final = ("libcrypto.so.3", "libcrypto.so.1.1")

_PLACES: Final = ((OPENSSL_AFTER, True), (OPENSSL_AFTER_UNLOADED, False))
_MAX_COUNTER = 2**64 - 1


def seal_message_in_python(key: bytes, index: int, counter: int, plaintext: Buffer) -> bytes:
    """A whole transport message: header, ciphertext, tag. ValueError unless `key` has 32 octets."""
    if len(key) != KEY_SIZE:
        raise ValueError("the key has not 32 octets")
    source = ffi.from_buffer(plaintext)
    message = bytearray(len(source) + TRANSPORT_OVERHEAD)
    TRANSPORT_HEADER.pack_into(message, 0, TYPE_TRANSPORT, index, counter)
    ciphertext = ffi.from_buffer(message) + TRANSPORT_HEADER_SIZE
    aead_encrypt(ciphertext, NULL, source, len(source), NULL, 0, NULL, NONCE.pack(counter), key)
    return bytes(message)


def open_fresh_in_python(key: bytes, index: int, window: ReplayWindow, message: Buffer, limit: int) -> bytes | int:
    """The plaintext of a transport message to receiver `index`, and its counter is marked; or why not, and nothing has changed.

    Counters from `limit` on are refused. ValueError unless `key` has 32 octets.
    """
    if len(key) != KEY_SIZE:
        raise ValueError("the key has not 32 octets")
    source = ffi.from_buffer(message)
    size = len(source) - TRANSPORT_OVERHEAD
    if size < 0:
        return NOT_OURS
    kind, receiver, counter = TRANSPORT_HEADER.unpack_from(message)
    if kind != TYPE_TRANSPORT or receiver != index:
        return NOT_OURS
    if counter >= limit:
        return PAST_LIMIT
    if not window.is_fresh(counter):
        return NOT_FRESH
    plaintext = bytearray(size)
    ciphertext, nonce = source + TRANSPORT_HEADER_SIZE, NONCE.pack(counter)
    if aead_decrypt(ffi.from_buffer(plaintext), NULL, NULL, ciphertext, size + TAG_SIZE, NULL, 0, nonce, key):
        return FORGED
    window.mark(counter)
    return bytes(plaintext)


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
        or not 0 <= counter <= _MAX_COUNTER - count + 1
        or not 0 <= index < 2**32
    ):
        raise ValueError("a buffer is too small, the counters run out, or the key has not 32 octets")
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
    """As `seal_messages_in_python`; more than 16 KiB without the GIL."""
    return _arena.seal_messages(False, key, index, counter, arena, count, size, stride, out)


def seal_messages_with_openssl(
    key: bytes, index: int, counter: int, arena: Buffer, count: int, size: int, stride: int, out: Buffer
) -> int:
    """As `seal_messages_in_c`. Should OpenSSL fail, WireGuardError, and libsodium from then on."""
    global _has_openssl
    try:
        return _arena.seal_messages(True, key, index, counter, arena, count, size, stride, out)
    except RuntimeError as error:
        _has_openssl = False
        raise WireGuardError("OpenSSL could not seal") from error


def seal_messages_in_best_way(
    key: bytes, index: int, counter: int, arena: Buffer, count: int, size: int, stride: int, out: Buffer
) -> int:
    """As `seal_messages_in_c`, by OpenSSL once that pays."""
    if count >= _least_count and size >= _least_size and (_has_openssl or (_has_openssl is None and _look_after(count))):
        return seal_messages_with_openssl(key, index, counter, arena, count, size, stride, out)
    return _arena.seal_messages(False, key, index, counter, arena, count, size, stride, out)


def choose(cipher: Literal["auto", "openssl", "sodium"]) -> None:
    """Seal every run with `cipher`, or as it pays. ValueError if that can't be had: a test must not pass on another path."""
    global _has_openssl, _least_count, _least_size, _places, _sealed
    if _arena is None:
        raise ValueError("_arena.c is not built")
    if cipher == "openssl" and not _has_openssl and not _load_openssl(True) and not _load_openssl(False):
        raise ValueError("no OpenSSL that can be used")
    _has_openssl = {"auto": None, "openssl": True, "sodium": False}[cipher]
    _least_count, _least_size = (0, 0) if cipher == "openssl" else (OPENSSL_LEAST_COUNT, OPENSSL_LEAST_SIZE)
    _sealed, _places = 0, list(_PLACES)


def _look_after(count: int) -> bool:
    """Look for OpenSSL if `count` more messages make it worth it; True if it is in use from now on."""
    global _has_openssl, _places, _sealed
    _sealed += count
    (pays_after, is_loaded), *rest = _places
    if _sealed >= pays_after:
        _has_openssl = _load_openssl(is_loaded) or (None if rest else False)
        _places = rest or _places
    return bool(_has_openssl)


def _load_openssl(is_loaded: bool) -> bool:
    """Find one that agrees with libsodium; first of all, what the interpreter's own ssl and hashlib have loaded."""
    for name in OPENSSL_LIBRARIES:
        try:
            _arena.load_openssl(name, is_loaded)
            if _agrees():
                return True
        except (ImportError, RuntimeError):
            continue
    return False


def _agrees() -> bool:
    plaintexts = bytes(range(251)) * 10
    for size in (0, 1, 64, 301, 1100):
        results = []
        for with_openssl in (False, True):
            out = bytearray(2 * (size + TRANSPORT_OVERHEAD))
            _arena.seal_messages(with_openssl, plaintexts[:KEY_SIZE], 1, 2**40 + 2**32 - 1, plaintexts, 2, size, size + 1, out)
            results.append(out)
        if results[0] != results[1]:
            return False
    return True


HAS_C: Final = _arena is not None
_has_openssl: bool | None = None  # None: it was not looked for
_least_count, _least_size = OPENSSL_LEAST_COUNT, OPENSSL_LEAST_SIZE
_sealed, _places = 0, list(_PLACES)  # while there are places where it was not looked for

seal_messages: SealMessages = seal_messages_in_python
seal_message: Callable[[bytes, int, int, Buffer], bytes] = seal_message_in_python
open_fresh: Callable[[bytes, int, ReplayWindow, Buffer, int], bytes | int] = open_fresh_in_python
if HAS_C:
    _arena.use_sodium(*aead_addresses())
    seal_messages, seal_message, open_fresh = seal_messages_in_best_way, _arena.seal_message, _arena.open_fresh
