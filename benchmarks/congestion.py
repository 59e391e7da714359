"""Does the sender find the link's rate, and is it a good neighbour? A folder of 16 MB over 2, 20 and 100 Mbit/s.

    python -m benchmarks.congestion [--rates 2,20,100] [--rtt-ms 50] [--competitor cubic] [--only alone,learned,beside]

Three runs at each rate, through a 100 ms drop-tail queue:
- alone: a new link, nothing learned. Judged: share of the rate used (IP octets), share of packets that overflow the queue.
- learned: the same again, by a process that finds what the first one has learned.
- beside: with one TCP flow that is there before, during and after. Judged: the TCP flow's share of what the link delivers.
The folder is put with 64 files under way at a time. Prints a table; exit code 0 only if every limit holds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from benchmarks.link import ROOT, Conditions, Link, why_unavailable
from benchmarks.link.probe import bound_socket
from benchmarks.peers import body_of
from benchmarks.peers.gateway import Gateway
from benchmarks.peers.raptor import put_fields, settings_for
from raptor_s3.net.engine import Engine, PutOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

LEAST_USE, MOST_OVERFLOW, LEAST_TCP_SHARE = 0.80, 0.02, 1 / 3
QUEUE_S = 0.100
TCP_HEAD_START_S = 4.0
FILES_UNDER_WAY = 64
PUT_TIMEOUT_S = 120.0
# 16 MB in files such as people have, few large ones and many small ones, in no order.
FOLDER = Random(16).sample(sizes := [1_000_000] * 4 + [100_000] * 100 + [10_000] * 180 + [1_000] * 200, len(sizes))
RUNS = ("alone", "learned", "beside")


@dataclass(frozen=True, slots=True)
class Observation:
    """One run. `use` is IP octets delivered, `goodput` the files' own, both as shares of the rate."""

    rate_mbps: float
    run: str
    seconds: float
    use: float
    goodput: float
    overflow: float
    queue_s: float
    tcp_share: float | None
    failures: int
    late_p99_s: float

    @property
    def is_good(self) -> bool:
        if self.failures:
            return False
        if self.tcp_share is not None:
            return self.tcp_share >= LEAST_TCP_SHARE
        return self.use >= LEAST_USE and self.overflow < MOST_OVERFLOW

    def __str__(self) -> str:
        tcp = "" if self.tcp_share is None else f"{self.tcp_share:.0%}"
        return (
            f"{'ok  ' if self.is_good else 'FAIL'} {self.rate_mbps:>5g} {self.run:<8} {self.seconds:>7.2f} {self.use:>6.0%} "
            f"{self.goodput:>8.0%} {self.overflow:>9.2%} {self.queue_s * 1000:>6.0f} {tcp:>10} {self.failures:>7} "
            f"{self.late_p99_s * 1000:>8.2f}"
        )


HEADER = "     Mbit/s run      seconds    use  goodput  overflow  queue  TCP share  failed  late p99 ms"


def main(argv: list[str] | None = None) -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.congestion")
    parser.add_argument("--rates", type=lambda text: [float(word) for word in text.split(",")], default=[2.0, 20.0, 100.0])
    parser.add_argument("--rtt-ms", type=float, default=50.0)
    parser.add_argument("--competitor", default="cubic", help="congestion control of the TCP flow (default: cubic)")
    parser.add_argument("--only", type=lambda text: tuple(text.split(",")), default=RUNS, help="of " + ",".join(RUNS))
    parser.add_argument("--send", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.send:
        print(json.dumps(send_folder(**json.loads(arguments.send))))
        return 0
    reason = why_unavailable()
    if reason:
        print(reason, file=sys.stderr)
        return 2
    print(HEADER)
    is_good = True
    for rate_mbps in arguments.rates:
        conditions = Conditions(rtt_s=arguments.rtt_ms / 1000, rate_mbps=rate_mbps, queue_s=QUEUE_S)
        for observation in observe(conditions, arguments.competitor, arguments.only):
            print(observation, flush=True)
            is_good = is_good and observation.is_good
    return 0 if is_good else 1


def observe(conditions: Conditions, competitor: str, runs: tuple[str, ...]) -> Iterator[Observation]:
    """All runs at one rate, over one link and one gateway."""
    with (
        tempfile.TemporaryDirectory(prefix="raptor-congestion-") as name,
        Link(conditions, congestion=competitor) as link,
        Gateway(link.server, Path(name)) as gateway,
    ):
        for run in RUNS:
            if run not in runs:
                continue
            with tcp_flow(link) if run == "beside" else contextlib.nullcontext() as flow:
                if flow is not None:
                    time.sleep(TCP_HEAD_START_S)
                yield observe_once(link, gateway.url, Path(name), run, flow)


def observe_once(link: Link, url: str, directory: Path, run: str, flow: TcpFlow | None) -> Observation:
    """Put the folder once and read the link's counters."""
    runtime_dir = directory / "runtime"
    runtime_dir.mkdir(mode=0o700, exist_ok=True)
    task = {"url": url, "directory": str(directory), "runtime_dir": str(runtime_dir)}
    sender = link.client.popen(
        [sys.executable, "-m", "benchmarks.congestion", "--send", json.dumps(task)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sender.stdin is not None
    assert sender.stdout is not None
    sender.stdout.readline()  # it has imported everything
    for namespace in (link.client, link.server):
        namespace.make_realtime()
    link.set(link.conditions)
    tcp_before = flow.received if flow else 0
    sender.stdin.write("go\n")
    sender.stdin.close()
    answer: dict[str, Any] = json.loads(sender.stdout.readline())
    tcp_bytes = flow.received - tcp_before if flow else 0
    stats = link.stats()
    sender.wait()
    seconds, rate = answer["seconds"], link.conditions.rate_mbps * 1e6 / 8
    delivered = stats.forward.delivered_bytes
    return Observation(
        link.conditions.rate_mbps,
        run,
        seconds,
        delivered / seconds / rate,
        sum(FOLDER) / seconds / rate,
        stats.forward.queue_drops / max(stats.forward.packets, 1),
        stats.forward.max_queue_s,
        tcp_bytes / delivered if flow else None,
        answer["failures"],
        stats.late_p99_s,
    )


def send_folder(url: str, directory: str, runtime_dir: str) -> dict[str, Any]:
    """In the client's namespace: put the folder once a line comes in; seconds and failures."""
    settings = settings_for(url, Path(directory), Path(runtime_dir))
    bodies = {size: body_of(size) for size in set(FOLDER)}
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.monotonic()
    engine = Engine.for_endpoint(settings)
    problems: list[str] = []

    room = threading.Semaphore(FILES_UNDER_WAY)

    def finish(future: Future[PutOutcome]) -> None:
        error = future.exception()
        if error is not None:
            problems.append(f"{type(error).__name__}: {error}")
        room.release()

    for number, size in enumerate(FOLDER):
        room.acquire()
        fields = put_fields(f"folder/file-{number}", bodies[size])
        engine.submit(fields, bodies[size], timeout_s=PUT_TIMEOUT_S).add_done_callback(finish)
    for _ in range(FILES_UNDER_WAY):
        room.acquire()
    seconds = time.monotonic() - start
    for problem in sorted(set(problems)):
        print(problem, file=sys.stderr)
    return {"seconds": seconds, "failures": len(problems)}


class TcpFlow:
    """A bulk TCP flow from client to server; `received` counts the octets that have arrived, with IP and TCP headers."""

    def __init__(self, receiver: socket.socket, sender: socket.socket) -> None:
        self.received = 0
        self._receiver, self._sender = receiver, sender
        self._is_stopped = False
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads."""
        self._is_stopped = True
        for sock in (self._sender, self._receiver):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        block = bytes(65536)
        with contextlib.suppress(OSError):
            while not self._is_stopped:
                self._sender.sendall(block)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._receiver.recv(1 << 18):
                self.received += len(data) * 1500 // 1448


@contextlib.contextmanager
def tcp_flow(link: Link) -> Iterator[TcpFlow]:
    """One TCP flow for the time of the block."""
    with (
        bound_socket(link.server, socket.SOCK_STREAM, listen=True) as listener,
        bound_socket(link.client, socket.SOCK_STREAM) as sender,
    ):
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()
        with receiver:
            flow = TcpFlow(receiver, sender)
            try:
                yield flow
            finally:
                flow.stop()


if __name__ == "__main__":
    sys.exit(main())
