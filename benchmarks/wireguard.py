"""What WireGuard costs: AEAD bindings, sealing and opening, handshakes, stored sessions, a flood.

    python -m benchmarks.wireguard

CPU time of one thread, the best of many short runs: a busy machine costs patience, not accuracy. Ratios compare what was
measured in the same run. Module imports are measured in fresh processes with warm bytecode caches.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl import bindings

from raptor_s3.net import clock
from raptor_s3.net.session_store import SessionStore, endpoint_id
from raptor_s3.wireguard import arena, messages, sodium
from raptor_s3.wireguard.cookie import MacWriter
from raptor_s3.wireguard.keys import KeyPair, generate_private_key
from raptor_s3.wireguard.listener import Listener, PeerConfig, Send
from raptor_s3.wireguard.tunnel import HandshakeComplete, Tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raptor_s3.wireguard.session import Session

SOURCE = ("192.0.2.1", 4711)
ROUNDS = 25
SIZE = 1024
# What one system call sends with UDP GSO.
RUN = 44


def cost_us(function: Callable[[], object], calls: int = 200, divide_by: int = 1) -> float:
    """The least CPU time of a call in microseconds, over ROUNDS rounds of `calls` calls."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(calls):
            function()
        best = min(best, time.process_time() - start)
    return best / calls / divide_by * 1e6


def costs_us(functions: Sequence[Callable[[], object]], calls: int, divide_by: int) -> list[float]:
    """As `cost_us`, several in turn: what slows the machine down for a moment slows them all."""
    best = [float("inf")] * len(functions)
    for _ in range(4 * ROUNDS):
        for number, function in enumerate(functions):
            start = time.process_time()
            for _ in range(calls):
                function()
            best[number] = min(best[number], time.process_time() - start)
    return [each / calls / divide_by * 1e6 for each in best]


def row(name: str, value_us: float, note: str = "") -> None:
    print(f"  {name:58} {value_us:9.2f}   {note}")


def bench_bindings() -> None:
    print(f"\nChaCha20-Poly1305, one message of {SIZE} octets (us)")
    key, nonce, data = os.urandom(32), bytes(12), os.urandom(SIZE)
    out = bytearray(SIZE + 16)
    pointer, source, null = sodium.ffi.from_buffer(out), sodium.ffi.from_buffer(data), sodium.NULL
    openssl = ChaCha20Poly1305(key)
    high = cost_us(lambda: bindings.crypto_aead_chacha20poly1305_ietf_encrypt(data, None, nonce, key))
    row("nacl.bindings", high)
    raw = cost_us(lambda: sodium.aead_encrypt(pointer, null, source, SIZE, null, 0, null, nonce, key))
    row("nacl._sodium, cffi, buffers ready", raw, f"{raw / high:.2f} of nacl.bindings")
    row("cryptography encrypt", cost_us(lambda: openssl.encrypt(nonce, data, None)))
    if hasattr(openssl, "encrypt_into"):
        row("cryptography encrypt_into", cost_us(lambda: openssl.encrypt_into(nonce, data, None, out)))


def new_pair() -> tuple[Tunnel, Listener, KeyPair, KeyPair]:
    client, server = (KeyPair(generate_private_key(os.urandom)) for _ in range(2))
    tunnel = Tunnel(client.private, server.public, random=os.urandom)
    return tunnel, Listener(server.private, {client.public: PeerConfig()}, random=os.urandom), client, server


def shake_hands(tunnel: Tunnel, listener: Listener, now: float) -> tuple[Session, Session]:
    [response] = listener.receive(tunnel.initiation(now, time.time()), SOURCE, now)
    assert isinstance(response, Send)
    event = tunnel.receive(response.message, now)
    assert isinstance(event, HandshakeComplete)
    listener.receive(event.session.seal(b"", now), SOURCE, now)
    [responder] = listener.sessions(next(iter(listener._peers)))[:1]
    return event.session, responder


def bench_session(size: int) -> None:
    print(f"\nTransport messages of {size} octets (us a message)")
    tunnel, listener, _, _ = new_pair()
    session, responder = shake_hands(tunnel, listener, 0.0)
    data, out = os.urandom(size), bytearray(size + 32)
    row("Session.seal", cost_us(lambda: session.seal(data, 0.0)))
    row("Session.seal_arena of one", cost_us(lambda: session.seal_arena(data, 1, size, size, out, 0.0)))
    row("Session.open", each_us(session, data, lambda message: responder.open(message, 0.0)))
    row("Listener.receive", each_us(session, data, lambda message: listener.receive(message, SOURCE, 0.0)))
    row("Tunnel.receive", each_us(responder, data, lambda message: tunnel.receive(message, 0.0)))


def each_us(sender: Session, data: bytes, receive: Callable[[bytes], object]) -> float:
    """The cost of receiving a message, each of them once."""
    calls = 200
    messages = iter([sender.seal(data, 0.0) for _ in range(calls * ROUNDS)])
    return cost_us(lambda: receive(next(messages)), calls)


def bench_runs() -> None:
    """Equal messages out of an arena, as `Session.seal_arena` seals them."""
    ways = {"Python loop, libsodium": arena.seal_messages_in_python}
    if arena.HAS_C:
        ways["C loop, libsodium"] = arena.seal_messages_in_c
        try:
            arena.choose("openssl")
            ways["C loop, OpenSSL"] = arena.seal_messages_with_openssl
        except ValueError:
            print("no libcrypto here")
    least = f"{arena.OPENSSL_LEAST_COUNT} or more of {arena.OPENSSL_LEAST_SIZE} octets or more"
    print(f"\nRuns of messages (us a message; OpenSSL is used for {least})")
    print("  octets  messages " + "".join(f"{name:>26}" for name in ways))
    for size in (100, 300, 640, 1024, 1063, 1100, 1368):
        for count in (1, arena.OPENSSL_LEAST_COUNT, RUN):
            source, out = os.urandom(count * size), bytearray(count * (size + 32))
            arguments = (bytes(32), 1, 0, source, count, size, size, out)
            found = costs_us([functools.partial(seal, *arguments) for seal in ways.values()], max(4, 100 // count), count)
            print(f"  {size:6}  {count:8} " + "".join(f"{value:19.2f} ({value / found[-2]:.2f})" for value in found))


def bench_looking_for_openssl() -> None:
    print("\nLooking for OpenSSL, once a process (us of CPU)")
    timed = "a = time.process_time(); arena.choose('openssl'); print(time.process_time() - a)"
    for name, before in (
        ("after a TLS context was made", "import ssl; ssl.create_default_context()"),
        ("after import ssl", "import ssl"),
        ("of the wireguard room alone (hashlib)", "pass"),
    ):
        row(name, least_of(f"import time; {before}; from raptor_s3.wireguard import arena; {timed}"))


def bench_handshake() -> None:
    print("\nHandshake (us)")
    tunnel, listener, _, server = new_pair()
    now = 0.0
    parts: list[list[float]] = [[], [], []]
    for _ in range(150):
        now += 1.0
        marks = [time.process_time()]
        initiation = tunnel.initiation(now, time.time())
        marks.append(time.process_time())
        [response] = listener.receive(initiation, SOURCE, now)
        marks.append(time.process_time())
        tunnel.receive(response.message, now)  # type: ignore[union-attr]
        marks.append(time.process_time())
        for part, start, end in zip(parts, marks, marks[1:], strict=False):
            part.append((end - start) * 1e6)
    for name, part in zip(("Tunnel.initiation", "Listener.receive(initiation)", "Tunnel.receive(response)"), parts, strict=True):
        row(name, min(part))
    row("X25519", cost_us(lambda: sodium.x25519(server.private, server.public), 20))

    print("\nA flood, at the listener (us a message)")
    junk = bytes((1, 0, 0, 0)) + os.urandom(144)
    good_mac1 = MacWriter(server.public).finish(messages.build_initiation(1, os.urandom(108)), 0.0)
    calm = Listener(server.private, {}, random=os.urandom, under_load_initiations_per_s=10**9)
    loaded = Listener(server.private, {}, random=os.urandom, under_load_initiations_per_s=0)
    row("wrong mac1", cost_us(lambda: calm.receive(junk, SOURCE, 0.0)))
    row("right mac1, no load: the handshake is tried", cost_us(lambda: calm.receive(good_mac1, SOURCE, 0.0), 20))
    row("right mac1, under load: cookie reply", cost_us(lambda: loaded.receive(good_mac1, SOURCE, 0.0)))
    row("transport message of an unknown session", cost_us(lambda: calm.receive(bytes((4, 0, 0, 0)) + bytes(100), SOURCE, 0.0)))


def bench_store() -> None:
    print("\nStored sessions (us)")
    tunnel, listener, client, server = new_pair()
    now = clock.now()
    session, _ = shake_hands(tunnel, listener, now)
    endpoint = endpoint_id("gateway.example.com", 51820, server.public, client.public)
    with tempfile.TemporaryDirectory() as directory:
        store = SessionStore(os.path.join(directory, "run"))
        store.save(endpoint, session, now)
        row("load", cost_us(lambda: store.load(endpoint, now), 50))
        loaded = store.load(endpoint, now)
        assert loaded is not None
        times = iter(range(1 << 30))
        row("look whether a range is still good", cost_us(lambda: loaded.counters.take(1, now + next(times)), 20))

        def reserve() -> None:
            loaded.counters.end = loaded.counters.next
            loaded.counters.take(1, now)

        row("reserve a range", cost_us(reserve, 50))
        row("update_learned", cost_us(lambda: store.update_learned(endpoint, {"srtt": 0.1}), 20))


def bench_imports() -> None:
    print("\nImports (us of CPU, after typing, re, logging, dataclasses, hashlib)")
    for module in (
        "nacl._sodium",
        "nacl.bindings",
        "cryptography.hazmat.primitives.ciphers.aead",
        "noise.connection",
        "raptor_s3.wireguard.tunnel",
        "raptor_s3.wireguard.handshake",
        "raptor_s3.net.session_store",
    ):
        timed = f"a = time.process_time(); import {module}; print(time.process_time() - a)"
        row(module, least_of(f"import time, typing, re, logging, dataclasses, hashlib; {timed}"))


def least_of(script: str) -> float:
    """Microseconds out of the seconds that a fresh process prints, the least of nine."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", script]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(9)]
    return min(float(run.stdout) for run in runs) * 1e6


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.wireguard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    bench_bindings()
    bench_session(300)
    bench_session(SIZE)
    bench_runs()
    bench_looking_for_openssl()
    bench_handshake()
    bench_store()
    bench_imports()


if __name__ == "__main__":
    main()
