"""Client CPU per confirmed put, through Engine.put, over loopback with real WireGuard (`python -m benchmarks.engine`).

    1 KB objects          microseconds of client CPU (user + system) per confirmed put
    538-datagram objects  microseconds per datagram sent; at `auto`, where a Python receiver sets the pace, and with a cap of
                          2 Gbit/s, where whole trains leave
    bare round trip       the same for send(), poll() and recv() of one datagram each way: what the kernel alone takes

The receiver is a process of its own (`tests.responder`, a sink that answers at once), pinned to another core where there
is one, so that only the sender's CPU counts: the thread's CPU clock around each put, the median of all. A first round warms
plans, rate and session up. On a busy machine cold caches and a shared core cost more than anything here: read the
figures as multiples of the bare round trip.

    python -m benchmarks.engine [--puts 3000] [--objects 30] [--plaintext] [--profile]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import select
import signal
import socket
import statistics
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raptor_s3.net.engine import Engine
from raptor_s3.net.settings import EndpointSettings
from raptor_s3.wireguard.keys import generate_private_key, public_key
from tests.responder import Responder, put_fields

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

TARGET_PUT_US = 60.0
TARGET_DATAGRAM_US = 2.0


def _serve(connection: Connection, keys: tuple[bytes, bytes], is_plaintext: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.bind(("127.0.0.1", 0))
    threading.Thread(target=_echo, args=(echo,), daemon=True).start()
    with Responder(keys=keys, is_plaintext=is_plaintext, keep=False) as responder:
        connection.send((responder.port, echo.getsockname()[1]))
        connection.recv()


def _echo(sock: socket.socket) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, source = sock.recvfrom(2048)
            sock.sendto(bytes(120), source)


def _cpu_us(work: Callable[[], Any], count: int) -> dict[str, float]:
    """CPU of the calling thread for each of `count` calls, in microseconds."""
    times = []
    for _ in range(count):
        begin = time.thread_time_ns()
        work()
        times.append((time.thread_time_ns() - begin) / 1000)
    return {"least": min(times), "median": statistics.median(times), "mean": statistics.fmean(times)}


def measure(engine: Engine, size: int, count: int) -> dict[str, float]:
    """CPU of `count` puts of `size` octets, one after the other; and how many datagrams each took."""
    body = os.urandom(size)
    fields = put_fields("telemetry/2026/01/01/sensor-0042.json", body)
    datagrams = 0

    def put() -> None:
        nonlocal datagrams
        datagrams += engine.put(fields, body, timeout_s=10).stats.datagrams_sent

    return {**_cpu_us(put, count), "datagrams": datagrams / count}


def bare_round_trip(port: int, count: int) -> dict[str, float]:
    """CPU of one datagram there and one back, as the engine would do it with nothing in it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        message, buffer = bytes(1150), bytearray(2048)

        def exchange() -> None:
            sock.send(message)
            poll.poll(1000)
            sock.recv_into(buffer)

        return _cpu_us(exchange, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--puts", type=int, default=3000)
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--plaintext", action="store_true")
    parser.add_argument("--profile", action="store_true", help="cProfile of the 1 KB puts instead of times")
    options = parser.parse_args()

    keys = (generate_private_key(os.urandom), generate_private_key(os.urandom))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, keys, options.plaintext), daemon=True)
    server.start()
    port, echo_port = ours.recv()
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    scheme = "udp" if options.plaintext else "wg"
    settings = EndpointSettings(
        f"{scheme}://127.0.0.1:{port}", public_key(keys[0]), keys[1], allow_plaintext=options.plaintext, share_sessions=False
    )
    engine, fast = Engine(settings), Engine(replace(settings, rate_mbps=2000.0))
    large = 538 * 974  # 538 datagrams in the published CLI's cut; in ours 512 symbols and their repair
    measure(engine, 1000, 300)
    for each in (engine, fast):
        measure(each, large, 8)
    if options.profile:
        _profile(lambda: measure(engine, 1000, options.puts))
    else:
        bare = bare_round_trip(echo_port, options.puts)
        small = measure(engine, 1000, options.puts)
        auto, trains = (measure(each, large, options.objects) for each in (engine, fast))
        print(json.dumps({"bare round trip": bare, "1 KB": small, "524 KB, auto": auto, "524 KB, 2 Gbit/s": trains}, indent=2))
        print(f"bare round trip: {bare['median']:.1f} us of CPU")
        print(f"1 KB put: {small['median']:.1f} us, {small['median'] / bare['median']:.1f} x (target {TARGET_PUT_US:.0f} us)")
        for name, big in (("auto", auto), ("2 Gbit/s", trains)):
            each_us = big["median"] / big["datagrams"]
            print(
                f"{big['datagrams']:.0f}-datagram object, {name}: {each_us:.2f} us a datagram (target {TARGET_DATAGRAM_US:.0f})"
            )
    fast.close()
    engine.close()
    ours.send(None)
    server.join(5)


def _profile(work: Callable[[], Any]) -> None:
    import cProfile
    import pstats

    profile = cProfile.Profile()
    profile.runcall(work)
    pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
