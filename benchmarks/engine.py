"""Client CPU per confirmed put, through Engine.put, over loopback with real WireGuard (`python -m benchmarks.engine`).

    1 KB, one by one      microseconds of client CPU (user + system) per confirmed put: the calling thread's clock, median
    1 KB, in flight       the same for 16 threads, and for 64 futures: CPU of the whole process, divided by the puts
    large objects         microseconds per datagram sent, of objects of 512 datagrams; one by one, rate `auto`
    bare round trip       send(), poll() and recv() of one datagram each way in Python: what the kernel alone takes

The receiver is `raptor gateway --sink null`, a process of its own, pinned to another core where there is one, so that each
put wakes it up. A first round warms plans, rate and session up. A process that sleeps between two puts finds its caches cold:
what the engine does takes two to three times as long here as in a loop without a kernel.

Where others share the machine, all of this takes twice as long in some minutes as in others. So the small puts and the bare
round trip, which no sender can do without, take turns: a figure is the median of the rounds' medians, beside it the quietest
round's, and the median of the rounds' ratios to the bare round trip.

    python -m benchmarks.engine [--puts 500] [--objects 100] [--profile]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
import os
import resource
import select
import socket
import statistics
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.peers.gateway import CLIENT_KEY_FILE, SERVER_PUBLIC_KEY_FILE, Gateway
from benchmarks.peers.loopback import Loopback
from raptor_s3.net.engine import Engine
from raptor_s3.net.settings import EndpointSettings
from raptor_s3.wireguard.keys import key_from_base64
from tests.responder import put_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

ADDRESS = "127.83.4.1"
TARGET_PUT_US = 60.0
TARGET_DATAGRAM_US = 2.0
LARGE = 520_000  # 512 symbols of 1,016 octets
WORK_S = 30e-6
"""Between two bare round trips, as between two puts: by then the receiver sleeps again, and has to be woken."""
ROUNDS = 12
TIMEOUT_S = 4
"""A gateway remembers a put at least for its time to live, and of one peer no more than there is memory for (docs/gateway.md)."""
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
_OUR_CORE, _RECEIVERS_CORE = _CORES[0], _CORES[-1]
KEY = "telemetry/2026/01/01/sensor-0042.json"


class Figure(NamedTuple):
    """Microseconds of CPU per call, and datagrams sent per call."""

    least: float
    median: float
    datagrams: float


def main() -> None:
    options = _arguments()
    with tempfile.TemporaryDirectory() as directory, _gateway(Path(directory)) as engine:
        _one_by_one(engine, 1000, 500)
        _one_by_one(engine, LARGE, 30)
        if options.profile:
            _profile(lambda: _one_by_one(engine, 1000, options.puts))
            return
        _small_puts(engine, options.puts)
        for size in (10_000, 100_000, LARGE):
            figure = _one_by_one(engine, size, options.objects)
            each = figure.median / figure.datagrams
            target = f" (target {TARGET_DATAGRAM_US:.0f})" if size == LARGE else ""
            print(
                f"{size:,} octets: {figure.median:.0f} us (least {figure.least:.0f}), "
                f"{figure.datagrams:.0f} datagrams, {each:.2f} us each{target}"
            )


def _small_puts(engine: Engine, count: int) -> None:
    rounds: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    with _bare_round_trip() as bare:
        for _ in range(ROUNDS):
            figures = {
                "bare round trip": bare(count),
                "1 KB, one by one": _one_by_one(engine, 1000, count).median,
                "1 KB, 16 threads": _in_threads(engine, 16, 2 * count),
                "1 KB, 64 futures in flight": _as_futures(engine, 64, 2 * count),
            }
            for name, value in figures.items():
                rounds.setdefault(name, []).append(value)
                ratios.setdefault(name, []).append(value / figures["bare round trip"])
    for name, values in rounds.items():
        print(
            f"{name}: {statistics.median(values):.1f} us (quietest round {min(values):.1f}), "
            f"{statistics.median(ratios[name]):.1f} bare round trips"
            + (f" (target {TARGET_PUT_US:.0f} us)" if "KB" in name else "")
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--puts", type=int, default=500, help="in a round")
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--profile", action="store_true", help="cProfile of the 1 KB puts instead of times")
    return parser.parse_args()


@contextlib.contextmanager
def _gateway(directory: Path) -> Iterator[Engine]:
    """An engine for a gateway with a null sink; this process and the gateway's on cores of their own."""
    with Gateway(Loopback(ADDRESS), directory) as gateway:
        _pin(gateway.pid, _RECEIVERS_CORE)
        _pin(0, _OUR_CORE)
        keys = [key_from_base64((directory / name).read_text()) for name in (SERVER_PUBLIC_KEY_FILE, CLIENT_KEY_FILE)]
        engine = Engine(EndpointSettings(gateway.url, keys[0], keys[1], share_sessions=False))
        yield engine
        engine.close()


def _pin(pid: int, core: int) -> None:
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(pid, {core})


def _one_by_one(engine: Engine, size: int, count: int) -> Figure:
    body = os.urandom(size)
    fields = put_fields(KEY, body)
    times, datagrams = [], 0
    for _ in range(count):
        begin = time.thread_time_ns()
        outcome = engine.put(fields, body, timeout_s=TIMEOUT_S)
        times.append((time.thread_time_ns() - begin) / 1000)
        datagrams += outcome.stats.datagrams_sent
    return Figure(min(times), statistics.median(times), datagrams / count)


def _in_threads(engine: Engine, threads: int, count: int) -> float:
    body = os.urandom(1000)
    fields = put_fields(KEY, body)

    def work() -> None:
        for _ in range(count // threads):
            engine.put(fields, body, timeout_s=TIMEOUT_S)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    begin = _process_cpu_us()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (_process_cpu_us() - begin) / (count // threads * threads)


def _as_futures(engine: Engine, depth: int, count: int) -> float:
    body = os.urandom(1000)
    fields = put_fields(KEY, body)
    waiting: deque[Any] = deque()
    begin = _process_cpu_us()
    for _ in range(count):
        waiting.append(engine.submit(fields, body, timeout_s=TIMEOUT_S))
        if len(waiting) == depth:
            waiting.popleft().result()
    while waiting:
        waiting.popleft().result()
    return (_process_cpu_us() - begin) / count


def _process_cpu_us() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


@contextlib.contextmanager
def _bare_round_trip() -> Iterator[Callable[[int], float]]:
    """Median CPU of one datagram there and one back, with nothing of ours in it, between puts' worth of other work."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_echo, args=(theirs, _RECEIVERS_CORE), daemon=True)
    server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((ADDRESS, ours.recv()))
        sock.setblocking(False)
        yield functools.partial(_round_trips, sock)
    server.terminate()


def _round_trips(sock: socket.socket, count: int) -> float:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    message, buffer, times = bytes(1150), bytearray(2048), []
    for _ in range(count):
        _spin(WORK_S)
        begin = time.thread_time_ns()
        sock.send(message)
        poll.poll(1000)
        sock.recv_into(buffer)
        times.append((time.thread_time_ns() - begin) / 1000)
    return statistics.median(times)


def _spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def _echo(connection: Connection, core: int) -> None:
    """Answers after 0.2 ms, about as late as the gateway does."""
    _pin(0, core)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((ADDRESS, 0))
        connection.send(sock.getsockname()[1])
        while True:
            _, source = sock.recvfrom(2048)
            _spin(0.0002)
            sock.sendto(bytes(300), source)


def _profile(work: Callable[[], Any]) -> None:
    import cProfile
    import pstats

    profile = cProfile.Profile()
    profile.runcall(work)
    pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
