"""OpenSSL for runs of messages: which libcrypto is taken, which is not, and what happens when it fails."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raptor_s3.errors import WireGuardError
from raptor_s3.wireguard import arena
from raptor_s3.wireguard.session import Session

pytestmark = [
    pytest.mark.skipif(not arena.HAS_C, reason="_arena.c is not built"),
    pytest.mark.skipif(sys.platform != "linux", reason="OpenSSL is only looked for on Linux"),
]
SOURCE = Path(__file__).with_name("libcrypto_double.c")
COMPILER = shutil.which("cc")
KEY, COUNT, SIZE = bytes(range(32)), 44, 1063
FAILURES = ("context", "key", "nonce", "update", "short update", "final", "tag")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    arena.choose("auto")
    yield
    arena.choose("auto")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """compiled(*defines): the path of a libcrypto made from libcrypto_double.c."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("libcrypto")

    @functools.cache
    def build(*defines: str) -> str:
        path = str(folder / f"lib{'-'.join(defines)}.so")
        options = [f"-D{define}" for define in defines]
        subprocess.run([COMPILER, "-shared", "-fPIC", *options, str(SOURCE), "-o", path, "-ldl"], check=True)  # type: ignore[list-item]
        return path

    return build


def has_openssl() -> bool:
    try:
        arena.choose("openssl")
    except ValueError:
        return False
    return True


needs_openssl = pytest.mark.skipif(arena.HAS_C and sys.platform == "linux" and not has_openssl(), reason="no libcrypto here")


def seal(count: int = COUNT, size: int = SIZE, counter: int = 0, *, by=None) -> bytes:  # type: ignore[no-untyped-def]
    out = bytearray(count * (size + 32))
    source = bytes(number % 251 for number in range(count * size))
    (by or arena.seal_messages)(KEY, 1, counter, source, count, size, size, out)
    return bytes(out)


def in_use() -> bool:
    """True if a run of many large messages is OpenSSL's."""
    calls: list[object] = []
    original, arena.seal_messages_with_openssl = arena.seal_messages_with_openssl, lambda *args: calls.append(args) or 0
    try:
        seal()
    finally:
        arena.seal_messages_with_openssl = original
    return bool(calls)


@needs_openssl
def test_it_is_looked_for_when_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl  # noqa: F401  # brings a libcrypto

    assert not in_use()
    sealed = COUNT
    while sealed + COUNT < arena.OPENSSL_AFTER:
        assert not in_use()
        sealed += COUNT
    for _ in range(arena.OPENSSL_AFTER):  # short or few: they don't count
        seal(1, SIZE)
        seal(COUNT, 10)
    assert not arena._has_openssl
    assert in_use()
    assert arena._has_openssl
    small: list[object] = []
    monkeypatch.setattr(arena, "seal_messages_with_openssl", small.append)
    seal(arena.OPENSSL_LEAST_COUNT - 1, SIZE)
    seal(COUNT, arena.OPENSSL_LEAST_SIZE - 1)
    assert not small


def test_without_a_libcrypto_it_is_libsodium_and_not_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[str, bool]] = []

    def load_openssl(name: str, is_loaded: bool) -> None:
        looked.append((name, is_loaded))
        raise ImportError

    monkeypatch.setattr(arena._arena, "load_openssl", load_openssl)
    expected = seal(by=arena.seal_messages_in_python)
    loaded, others = ([(name, is_loaded) for name in arena.OPENSSL_LIBRARIES] for is_loaded in (True, False))
    for run in range(1, 2 * arena.OPENSSL_AFTER_UNLOADED // COUNT):
        assert seal() == expected
        if run * COUNT < arena.OPENSSL_AFTER:
            assert looked == []
        elif run * COUNT < arena.OPENSSL_AFTER_UNLOADED:
            assert looked == loaded
        else:
            assert looked == loaded + others
    with pytest.raises(ValueError, match="no OpenSSL"):
        arena.choose("openssl")


@needs_openssl
def test_the_interpreters_own_comes_first() -> None:
    """What `ssl` has loaded is taken, and nothing else is loaded beside it."""
    script = (
        "import ssl; from raptor_s3.wireguard import arena\n"
        "def libraries(): return {line.split()[-1] for line in open('/proc/self/maps') if 'libcrypto' in line}\n"
        "before = libraries(); arena.choose('openssl'); assert not before or libraries() == before, libraries()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_small_process_never_loads_one() -> None:
    """Nothing of it at import, nor for a few messages."""
    script = (
        "from raptor_s3.wireguard import arena\n"
        "arena._arena.load_openssl = None\n"
        "for _ in range(20): arena.seal_messages(bytes(32), 1, 0, bytes(40000), 30, 1000, 1000, bytearray(40000))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("defines", "reason"),
    [
        (("VERSION=0x30000130UL", "MISSING"), "a function is missing"),
        (("NO_CIPHER",), "no ChaCha20-Poly1305"),
        (("VERSION=0x10100000UL",), "neither OpenSSL 3 nor 1.1.1"),
        (("VERSION=0x20000000UL",), "neither OpenSSL 3 nor 1.1.1"),
        (("VERSION=0x40000000UL",), "neither OpenSSL 3 nor 1.1.1"),
        (("VERSION=0UL",), "neither OpenSSL 3 nor 1.1.1"),
    ],
)
def test_what_is_not_adopted(compiled, defines: tuple[str, ...], reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImportError, match=reason):
        arena._arena.load_openssl(compiled(*defines), False)


def test_libraries_that_are_not_there() -> None:
    with pytest.raises(ImportError, match="not found"):
        arena._arena.load_openssl("libcrypto-of-nobody.so.3", False)
    with pytest.raises(ImportError, match="not loaded"):
        arena._arena.load_openssl("libcrypto-of-nobody.so.3", True)
    with pytest.raises(ImportError, match="neither"):
        arena._arena.load_openssl(ctypes.util.find_library("c") or "libc.so.6", False)


@needs_openssl
def test_one_that_disagrees_with_libsodium_is_not_used(compiled, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(arena, "OPENSSL_LIBRARIES", (compiled("WRONG"),))
    with pytest.raises(ValueError, match="no OpenSSL"):
        arena.choose("openssl")
    expected = seal(by=arena.seal_messages_in_c)
    for _ in range(2 * arena.OPENSSL_AFTER_UNLOADED // COUNT):
        assert seal() == expected
    monkeypatch.setattr(arena, "OPENSSL_LIBRARIES", (compiled("WRONG"), compiled()))
    arena.choose("openssl")
    assert seal() == expected


@needs_openssl
@pytest.mark.parametrize("version", ["0x1010100fUL", "0x1010117fUL", "0x30000000UL", "0x30600010UL"])
def test_versions(compiled, monkeypatch, version: str) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(arena, "OPENSSL_LIBRARIES", (compiled(f"VERSION={version}"),))
    arena.choose("openssl")
    assert seal() == seal(by=arena.seal_messages_in_python)


@needs_openssl
@pytest.mark.parametrize("failure", range(1, len(FAILURES) + 1), ids=FAILURES)
@pytest.mark.parametrize("good_calls", [0, 5])
def test_a_failure_sends_nothing_and_spends_the_counters(compiled, monkeypatch, failure: int, good_calls: int) -> None:  # type: ignore[no-untyped-def]
    path = compiled()
    monkeypatch.setattr(arena, "OPENSSL_LIBRARIES", (path,))
    arena.choose("openssl")
    session = Session(
        local_index=1, remote_index=2, peer_key=KEY, send_key=KEY, receive_key=KEY, created_at=0.0, is_initiator=True
    )
    source = os.urandom(COUNT * SIZE)
    double = ctypes.CDLL(path)
    calls = 0 if failure <= 2 else good_calls  # there is one context and one key a run
    ctypes.c_int.in_dll(double, "good_calls").value = calls
    ctypes.c_int.in_dll(double, "failing_call").value = failure
    out = bytearray(b"\xee" * (COUNT * (SIZE + 32) + 10))
    try:
        with pytest.raises(WireGuardError, match="OpenSSL could not seal"):
            session.seal_arena(source, COUNT, SIZE, SIZE, out, 1.0)
    finally:
        ctypes.c_int.in_dll(double, "failing_call").value = 0
    assert out == bytes(len(out) - 10) + b"\xee" * 10
    assert session.counters.next == COUNT
    assert ctypes.c_int.in_dll(double, "contexts").value == 0
    assert double.errors_raised() > 0
    assert double.errors_left() == 0  # the ssl module would take them for its own
    # From here on libsodium, under counters of its own.
    assert not in_use()
    assert session.seal_arena(source, COUNT, SIZE, SIZE, out, 1.0) == COUNT * (SIZE + 32)
    expected = bytearray(COUNT * (SIZE + 32))
    arena.seal_messages_in_python(KEY, 2, COUNT, source, COUNT, SIZE, SIZE, expected)
    assert out[:-10] == expected


@needs_openssl
def test_threads_seal_at_once() -> None:
    """Each call has a context of its own: keys and counters don't mix, with the GIL away."""
    arena.choose("openssl")
    source = os.urandom(COUNT * SIZE)
    wrong: list[int] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        key = bytes([number]) * 32
        expected, out = bytearray(COUNT * (SIZE + 32)), bytearray(COUNT * (SIZE + 32))
        arena.seal_messages_in_c(key, number, number, source, COUNT, SIZE, SIZE, expected)
        start.wait()
        for _ in range(100):
            arena.seal_messages_with_openssl(key, number, number, source, COUNT, SIZE, SIZE, out)
            if out != expected:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_openssl
def test_it_survives_a_fork() -> None:
    script = (
        "import os; from raptor_s3.wireguard import arena\n"
        "arena.choose('openssl')\n"
        "def seal():\n"
        "    out = bytearray(4 * 732); arena.seal_messages(bytes(32), 1, 0, bytes(2800), 4, 700, 700, out); return out\n"
        "expected = seal(); child = os.fork()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
        "assert seal() == expected"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
