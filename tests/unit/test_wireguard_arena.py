"""Transport messages in C, in Python and by OpenSSL: the same octets, the same refusals, every bound checked."""

from __future__ import annotations

import os
import random
import struct
import sys
from collections.abc import Iterator

import pytest

from raptor_s3.wireguard import arena
from raptor_s3.wireguard.arena import FORGED, NOT_FRESH, NOT_OURS, PAST_LIMIT
from raptor_s3.wireguard.constants import REJECT_AFTER_MESSAGES
from raptor_s3.wireguard.replay import ReplayWindow

KEY = bytes(range(32))
LIMIT = 2**64 - 1
needs_c = pytest.mark.skipif(not arena.HAS_C, reason="_arena.c is not built")


def has_openssl() -> bool:
    try:
        arena.choose("openssl")
    except ValueError:
        return False
    arena.choose("auto")
    return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    if arena.HAS_C:
        arena.choose("auto")


@pytest.fixture(params=["python", "sodium", pytest.param("openssl", marks=pytest.mark.skipif(not has_openssl(), reason="none"))])
def seal_messages(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """Each way to seal a run."""
    if request.param == "python":
        return arena.seal_messages_in_python
    if not arena.HAS_C:
        pytest.skip("_arena.c is not built")
    arena.choose(request.param)
    return arena.seal_messages


@pytest.fixture(params=["python", pytest.param("c", marks=needs_c)])
def is_c(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "c")


@pytest.fixture
def open_fresh(is_c: bool):  # type: ignore[no-untyped-def]
    return arena.open_fresh if is_c else arena.open_fresh_in_python


# One message


def test_the_key_stream_of_rfc_8439(seal_messages, open_fresh, is_c: bool) -> None:  # type: ignore[no-untyped-def]
    """RFC 8439 2.4.2: its nonce begins with 32 zero bits, as ours do; block 0 is the tag's, so the text begins with block 1."""
    text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    expected = bytes.fromhex(
        "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b3571639d624e65152ab"
        "8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab77937365af90bbf74a35be6b40b8eedf2785e42"
        "874d"
    )
    counter = int.from_bytes(bytes.fromhex("0000004a00000000"), "little")
    out = bytearray(len(text) + 32)
    seal_messages(KEY, 7, counter, text, 1, len(text), len(text), out)
    assert out[:16] == bytes.fromhex("04000000070000000000004a00000000")
    assert out[16:-16] == expected
    seal = arena.seal_message if is_c else arena.seal_message_in_python
    assert seal(KEY, 7, counter, text) == out
    assert open_fresh(KEY, 7, ReplayWindow(), out, LIMIT) == text


def test_the_tag_of_rfc_8439(seal_messages) -> None:  # type: ignore[no-untyped-def]
    """RFC 8439 2.6.2: this nonce's one-time key. The tag of nothing is that of one block of zeros (2.8): 2^128 r + s."""
    key, counter = bytes(range(0x80, 0xA0)), int.from_bytes(bytes(range(8)), "little")
    one_time_key = bytes.fromhex("8ad5a08b905f81cc815040274ab29471a833b637e3fd0da508dbb8e2fdd1a646")
    r = int.from_bytes(one_time_key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(one_time_key[16:], "little")
    out = bytearray(32)
    seal_messages(key, 1, counter, b"", 1, 0, 0, out)
    assert out[16:] == (((r << 128) % (2**130 - 5) + s) % 2**128).to_bytes(16, "little")


@needs_c
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_one_message_in_c_is_one_in_python(kind: type) -> None:
    for size in (*range(300), 511, 512, 513, 1023, 1024, 1025, 1063, 1368, 1500, 65_000):
        key, plaintext, counter = os.urandom(32), os.urandom(size), random.randrange(LIMIT)
        message = arena.seal_message(key, 0xFFFFFFFF, counter, kind(plaintext))
        assert message == arena.seal_message_in_python(key, 0xFFFFFFFF, counter, kind(plaintext))
        for open_fresh in (arena.open_fresh, arena.open_fresh_in_python):
            window = ReplayWindow()
            assert open_fresh(key, 0xFFFFFFFF, window, kind(message), LIMIT) == plaintext
            assert window.greatest == counter
            assert open_fresh(key, 0xFFFFFFFF, window, kind(message), LIMIT) == NOT_FRESH


def test_changed_messages(open_fresh) -> None:  # type: ignore[no-untyped-def]
    """Each octet counts, and a message that is not opened leaves the window as it was."""
    message, window = arena.seal_message(KEY, 1, 5, bytes(70)), ReplayWindow(3)
    untouched = bytes(window)
    for position in range(8, len(message)):
        changed = bytearray(message)
        changed[position] ^= 1 << position % 8
        assert open_fresh(KEY, 1, window, changed, LIMIT) == FORGED
    for end in range(32, len(message)):
        assert open_fresh(KEY, 1, window, message[:end], LIMIT) == FORGED
    assert open_fresh(KEY, 1, window, message + b"\0", LIMIT) == FORGED
    assert open_fresh(bytes(32), 1, window, message, LIMIT) == FORGED
    assert window == untouched
    assert open_fresh(KEY, 1, window, message, LIMIT) == bytes(70)
    assert window.greatest == 5


def test_other_headers(open_fresh) -> None:  # type: ignore[no-untyped-def]
    message, window = arena.seal_message(KEY, 0x80000001, 5, b""), ReplayWindow()
    assert open_fresh(KEY, 1, window, message, LIMIT) == NOT_OURS
    for position in range(8):
        changed = bytearray(message)
        changed[position] ^= 0x10
        assert open_fresh(KEY, 0x80000001, window, changed, LIMIT) == NOT_OURS
    for size in range(32):
        assert open_fresh(KEY, 0x80000001, window, message[:size], LIMIT) == NOT_OURS
        assert open_fresh(KEY, 0x80000001, window, memoryview(message)[:size], LIMIT) == NOT_OURS
    assert window == ReplayWindow()
    assert open_fresh(KEY, 0x80000001, window, message, LIMIT) == b""


def test_the_first_reason_counts(open_fresh) -> None:  # type: ignore[no-untyped-def]
    message, window = arena.seal_message(KEY, 1, 5, b"text"), ReplayWindow(5)
    forged = message[:-1] + bytes((message[-1] ^ 1,))
    assert open_fresh(KEY, 2, window, forged, 5) == NOT_OURS
    assert open_fresh(KEY, 1, window, forged, 5) == PAST_LIMIT
    assert open_fresh(KEY, 1, window, forged, 0) == PAST_LIMIT
    assert open_fresh(KEY, 1, window, forged, 6) == NOT_FRESH
    assert window == ReplayWindow(5)
    assert open_fresh(KEY, 1, ReplayWindow(4), forged, 6) == FORGED
    assert open_fresh(KEY, 1, ReplayWindow(4), message, 6) == b"text"


@pytest.mark.parametrize("limit", [LIMIT, REJECT_AFTER_MESSAGES])
def test_last_counters(open_fresh, limit: int) -> None:  # type: ignore[no-untyped-def]
    window = ReplayWindow()
    for counter, expected in (
        (limit - 1, b""),
        (limit - 1, NOT_FRESH),
        (limit, PAST_LIMIT),
        (2**64 - 1, PAST_LIMIT),
        (limit - 8128, b""),
        (limit - 8129, NOT_FRESH),
        (0, NOT_FRESH),
    ):
        assert open_fresh(KEY, 1, window, arena.seal_message(KEY, 1, counter, b""), limit) == expected, counter
    assert window.greatest == limit - 1


def test_refusals_of_one_message(open_fresh, is_c: bool) -> None:  # type: ignore[no-untyped-def]
    seal = arena.seal_message if is_c else arena.seal_message_in_python
    for size in (0, 31, 33):
        with pytest.raises(ValueError, match="32 octets"):
            seal(bytes(size), 1, 1, b"")
        with pytest.raises(ValueError, match="32 octets"):
            open_fresh(bytes(size), 1, ReplayWindow(), bytes(32), LIMIT)
    for index, counter in ((2**32, 0), (-1, 0), (0, 2**64), (0, -1)):
        with pytest.raises((OverflowError, struct.error)):
            seal(KEY, index, counter, b"")
    for wrong in (None, "text", 5):
        with pytest.raises(TypeError):
            seal(KEY, 1, 1, wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            open_fresh(KEY, 1, ReplayWindow(), wrong, LIMIT)
        with pytest.raises((TypeError, ValueError)):
            seal(wrong, 1, 1, b"")  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError)):
            open_fresh(wrong, 1, ReplayWindow(), bytes(32), LIMIT)
    for function in (lambda view: seal(KEY, 1, 1, view), lambda view: open_fresh(KEY, 1, ReplayWindow(), view, LIMIT)):
        with pytest.raises((BufferError, ValueError)):
            function(memoryview(bytes(64))[::2])


@needs_c
def test_arguments_of_the_c_functions() -> None:
    c = arena._arena
    for function in (c.use_sodium, c.load_openssl, c.seal_messages, c.seal_message, c.open_fresh):
        with pytest.raises(TypeError):
            function()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            function(*[None] * 12)  # type: ignore[call-arg, arg-type]
    with pytest.raises(TypeError):
        c.seal_messages(False, bytearray(KEY), 1, 0, b"", 1, 0, 0, bytearray(32))  # type: ignore[arg-type]
    message = c.seal_message(KEY, 1, 5, b"text")
    for window in (None, 5, "text", bytes(ReplayWindow())):
        with pytest.raises((TypeError, BufferError)):
            c.open_fresh(KEY, 1, window, message, LIMIT)  # type: ignore[arg-type]
    for size in (0, 1, 1024, 1039, 1041):
        with pytest.raises(ValueError, match="window"):
            c.open_fresh(KEY, 1, bytearray(size), message, LIMIT)
    for index, limit in ((2**32, 1), (-1, 1), (1, 2**64), (1, -1)):
        with pytest.raises(OverflowError):
            c.open_fresh(KEY, index, ReplayWindow(), message, limit)


@needs_c
def test_no_window_leads_c_astray() -> None:
    """Any 1,040 octets are a window; and one that is the message itself is only a bad message."""
    for _ in range(300):
        window = ReplayWindow()
        window[:] = os.urandom(len(window))
        if random.random() < 0.5:
            window[1024:1032] = random.choice((0, 1, 2**40, 2**63, LIMIT - 1, LIMIT)).to_bytes(8, "little")
        twin = ReplayWindow()
        twin[:] = window
        message = arena.seal_message(KEY, 1, random.choice((0, 64, 2**40 + 5, 2**63, LIMIT - 1)), b"text")
        opened = arena.open_fresh(KEY, 1, window, message, LIMIT)
        assert opened == arena.open_fresh_in_python(KEY, 1, twin, message, LIMIT)
        assert window == twin
    window = ReplayWindow()
    window[:16] = bytes.fromhex("0400000001000000" + "0500000000000000")
    assert arena.open_fresh(KEY, 1, window, window, LIMIT) == FORGED


@needs_c
def test_references_and_buffers_are_given_back() -> None:
    window, message = ReplayWindow(), bytearray(arena.seal_message(KEY, 1, 5, bytes(100)))
    forged = message[:-1] + b"\xff"
    counts = [sys.getrefcount(thing) for thing in (window, message, forged, KEY)]
    for _ in range(50):
        assert arena.open_fresh(KEY, 1, window, forged, LIMIT) == FORGED
        assert arena.open_fresh(KEY, 2, window, message, LIMIT) == NOT_OURS
        assert arena.open_fresh(KEY, 1, window, message, 5) == PAST_LIMIT
        with pytest.raises(TypeError):
            arena.open_fresh(KEY, 1, window, None, LIMIT)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            arena.open_fresh(KEY, 1, message, message, LIMIT)  # type: ignore[arg-type]
        assert arena.open_fresh(KEY, 1, ReplayWindow(), message, LIMIT) == bytes(100)
    assert arena.open_fresh(KEY, 1, window, message, LIMIT) == bytes(100)
    assert arena.open_fresh(KEY, 1, window, message, LIMIT) == NOT_FRESH
    assert [sys.getrefcount(thing) for thing in (window, message, forged, KEY)] == counts
    window.append(0)  # BufferError if someone still held them
    message.append(0)


# Many messages


@pytest.mark.parametrize(
    ("count", "size", "stride"),
    [
        (1, 0, 0),
        (1, 5, 5),
        (3, 0, 0),
        (3, 0, 9),
        (7, 16, 16),
        (64, 100, 137),
        (5, 1024, 1500),
        (3, 1025, 1025),
        (2, 2048, 2050),
        (44, 1063, 1063),
    ],
)
def test_arena_holds_the_same_messages(seal_messages, count: int, size: int, stride: int) -> None:  # type: ignore[no-untyped-def]
    source = os.urandom((count - 1) * stride + size)
    out = bytearray(b"\xee" * (count * (size + 32) + 10))
    assert seal_messages(KEY, 9, 2**33 - 2, memoryview(source), count, size, stride, memoryview(out)) == count * (size + 32)
    plaintexts = [source[i * stride : i * stride + size] for i in range(count)]
    expected = [arena.seal_message_in_python(KEY, 9, 2**33 - 2 + i, plaintexts[i]) for i in range(count)]
    assert bytes(out[:-10]) == b"".join(expected)
    assert bytes(out[-10:]) == b"\xee" * 10
    window = ReplayWindow()
    for i, message in enumerate(expected):
        assert arena.open_fresh(KEY, 9, window, message, LIMIT) == plaintexts[i]


def test_every_size(seal_messages) -> None:  # type: ignore[no-untyped-def]
    source = os.urandom(3 * 1500)
    for size in range(1501):
        out, expected = bytearray(3 * (size + 32)), bytearray(3 * (size + 32))
        seal_messages(KEY, 1, size, source, 3, size, 1500, out)
        arena.seal_messages_in_python(KEY, 1, size, source, 3, size, 1500, expected)
        assert out == expected, size


@pytest.mark.parametrize(
    ("arena_size", "count", "size", "stride", "out_size"),
    [
        (99, 1, 100, 100, 1000),
        (100, 1, 100, 100, 131),
        (199, 2, 100, 100, 1000),
        (200, 2, 100, 99, 1000),
        (200, 2, 100, 100, 263),
        (200, 2, 100, 2**62, 1000),
        (200, 2**62, 100, 100, 1000),
        (200, 2**61, 0, 0, 1000),
        (200, 1, 2**63 - 1, 2**63 - 1, 1000),
        (200, 1, -1, 100, 1000),
        (200, -1, 10, 10, 1000),
        (200, 0, 10, 10, 1000),
        (200, 2, 10, -10, 1000),
    ],
)
def test_bounds(seal_messages, arena_size, count, size, stride, out_size) -> None:  # type: ignore[no-untyped-def]
    out = bytearray(b"\xee" * out_size)
    with pytest.raises(ValueError, match="too small"):
        seal_messages(KEY, 1, 0, bytes(arena_size), count, size, stride, out)
    assert out == b"\xee" * out_size


def test_counters_run_out(seal_messages) -> None:  # type: ignore[no-untyped-def]
    out = bytearray(3 * 42)
    assert seal_messages(KEY, 1, 2**64 - 3, bytes(30), 3, 10, 10, out) == 3 * 42
    assert out[-34:-26] == b"\xff" * 8
    before = bytes(out)
    with pytest.raises(ValueError, match="run out"):
        seal_messages(KEY, 1, 2**64 - 2, bytes(30), 3, 10, 10, out)
    for counter, index in ((2**64, 0), (-1, 0), (0, 2**32), (0, -1)):
        with pytest.raises((OverflowError, struct.error, ValueError)):
            seal_messages(KEY, index, counter, bytes(30), 3, 10, 10, out)
    assert out == before


def test_arena_needs_a_writable_target_and_a_whole_key(seal_messages) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((TypeError, ValueError, BufferError)):
        seal_messages(KEY, 1, 0, bytes(10), 1, 10, 10, bytes(42))
    for key in (KEY[:31], KEY + b"\0", b""):
        with pytest.raises(ValueError, match="32 octets"):
            seal_messages(key, 1, 0, bytes(10), 1, 10, 10, bytearray(42))
