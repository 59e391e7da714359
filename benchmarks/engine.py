"""Client CPU per confirmed put, through Engine.put, over loopback with real WireGuard (`python -m benchmarks.engine`).

    1 KB objects          microseconds of client CPU (user + system) per confirmed put
    538-datagram objects  microseconds per datagram sent

The receiver is a process of its own (`tests.responder`, a sink that answers at once), pinned to another core where there
is one, so that only the sender's CPU counts: `getrusage(RUSAGE_THREAD)` around the puts. A first round warms plans, rate
and session up.

    python -m benchmarks.engine [--puts 3000] [--objects 30] [--plaintext] [--profile]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import time
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
    with Responder(keys=keys, is_plaintext=is_plaintext, keep=False) as responder:
        connection.send(responder.port)
        connection.recv()


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_utime + usage.ru_stime


def measure(engine: Engine, size: int, count: int) -> dict[str, float]:
    """CPU and wall time of `count` puts of `size` octets, one after the other."""
    body = os.urandom(size)
    fields = put_fields("telemetry/2026/01/01/sensor-0042.json", body)
    datagrams = 0
    wall, cpu = time.perf_counter(), cpu_s()
    for _ in range(count):
        datagrams += engine.put(fields, body, timeout_s=10).stats.datagrams_sent
    cpu, wall = cpu_s() - cpu, time.perf_counter() - wall
    return {
        "cpu_us_per_put": cpu / count * 1e6,
        "wall_us_per_put": wall / count * 1e6,
        "datagrams_per_put": datagrams / count,
        "cpu_us_per_datagram": cpu / datagrams * 1e6,
    }


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
    port: int = ours.recv()
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    scheme = "udp" if options.plaintext else "wg"
    engine = Engine(
        EndpointSettings(
            f"{scheme}://127.0.0.1:{port}",
            public_key(keys[0]),
            keys[1],
            allow_plaintext=options.plaintext,
            share_sessions=False,
        )
    )
    large = 538 * 974  # K = 538 of the published table; ours is cut into 512 symbols and their repair
    measure(engine, 1000, 300)
    measure(engine, large, 8)
    if options.profile:
        _profile(lambda: measure(engine, 1000, options.puts))
    else:
        small = min((measure(engine, 1000, options.puts // 3) for _ in range(3)), key=lambda result: result["cpu_us_per_put"])
        big = measure(engine, large, options.objects)
        print(json.dumps({"1 KB": small, "524 KB": big}, indent=2))
        print(f"1 KB put: {small['cpu_us_per_put']:.1f} us of CPU (target {TARGET_PUT_US:.0f})")
        print(f"538-datagram object: {big['cpu_us_per_datagram']:.2f} us a datagram (target {TARGET_DATAGRAM_US:.0f})")
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
