"""One cell of the WAN table: a contestant on a link of its own, put after put, until it has enough samples or time.

Before each put the link's random streams start anew from the put's number, so every contestant of a row meets the same packet
fates. Percentiles are by nearest rank; a p99 of fewer than 100 samples is the largest of them, and `samples` says so.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.link import ROOT, Link
from benchmarks.peers import Target
from benchmarks.peers.nginx import Nginx

if TYPE_CHECKING:
    from benchmarks.peers.rows import Contestant, Row

LEAST_SAMPLES = 3
SETUP_LIMIT_S = 120.0
LATE_S = 0.005  # a packet this late makes a put "disturbed": this machine was busy with something else


@dataclass(slots=True)
class Cell:
    """What one contestant did in one row. Times in milliseconds; `bytes_sent` is the mean of IP bytes from the client per put."""

    row: str
    tool: str
    mode: str
    congestion: str
    samples: int = 0
    failures: int = 0
    disturbed: int = 0
    median: float = math.nan
    p90: float = math.nan
    p99: float = math.nan
    least: float = math.nan
    most: float = math.nan
    bytes_sent: float = math.nan
    errors: list[str] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a cell is done: `samples` puts, or `seconds` spent and at least LEAST_SAMPLES; a put is given up after `put_s`."""

    samples: int
    seconds: float
    put_s: float = 120.0


class WorkerGone(Exception):
    """The worker died or took too long."""


class Worker:
    """A peer's process inside the client's namespace."""

    def __init__(self, link: Link, target: Target) -> None:
        self._process = link.client.popen(
            [sys.executable, "-m", "benchmarks.peers.worker", json.dumps(asdict(target))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        self._buffer = b""
        self._answer(SETUP_LIMIT_S)

    def put(self, size_bytes: int, limit_s: float) -> dict[str, Any]:
        """One put; {"seconds", maybe "error", and what else the peer tells}."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"%d\n" % size_bytes)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerGone(f"the worker ended with {self._process.wait()}") from None
        return self._answer(limit_s)

    def close(self) -> None:
        """Ask the worker to end; insist."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise WorkerGone(f"no answer within {limit_s:g} s")
            data = os.read(fd, 65536)
            if not data:
                raise WorkerGone(f"the worker ended with {self._process.wait()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure(row: Row, contestant: Contestant, limits: Limits) -> Cell:
    """Set up a link, a server and a worker, and put until `limits` say it is enough."""
    cell = Cell(row.name, contestant.tool, contestant.mode, contestant.congestion)
    with (
        contextlib.ExitStack() as stack,
        tempfile.TemporaryDirectory(prefix="raptor-wan-") as directory,
        Link(row.conditions, congestion=contestant.congestion) as link,
    ):
        target = _start_server(stack, link, contestant, Path(directory))
        link.server.make_realtime()
        deadline = time.monotonic() + limits.seconds
        _put_until(cell, link, row, target, limits, deadline)
    return cell


def _start_server(stack: contextlib.ExitStack, link: Link, contestant: Contestant, directory: Path) -> Target:
    if contestant.tool == "raptor":
        from benchmarks.peers.gateway import Gateway

        gateway = stack.enter_context(Gateway(link.server, directory))
        return Target("raptor", contestant.mode, gateway.url, str(directory))
    nginx = stack.enter_context(Nginx(link.server, directory))
    return Target(contestant.tool, contestant.mode, nginx.url, str(directory), str(nginx.ca_file))


def _put_until(cell: Cell, link: Link, row: Row, target: Target, limits: Limits, deadline: float) -> None:
    worker: Worker | None = None
    times: list[float] = []
    sent: list[int] = []
    try:
        for number in range(limits.samples):
            if time.monotonic() > deadline and len(times) + cell.failures >= LEAST_SAMPLES:
                break
            try:
                if worker is None:
                    link.set(row.conditions, seed=1_000_000 + number)
                    worker = Worker(link, target)
                    if (target.tool, target.mode) not in OWN_PROCESSES:
                        link.client.make_realtime()
                    for _ in range(WARM_UPS.get(target.tool, 0)):
                        worker.put(row.size_bytes, limits.put_s)
                link.set(row.conditions, seed=number)
                answer = worker.put(row.size_bytes, limits.put_s)
            except WorkerGone as gone:
                answer = {"seconds": limits.put_s, "error": str(gone)}
                if worker is not None:
                    worker.close()
                worker = None
            stats = link.stats()
            cell.disturbed += stats.late_max_s > LATE_S
            if "error" in answer:
                cell.failures += 1
                if answer["error"] not in cell.errors and len(cell.errors) < 5:
                    cell.errors.append(answer["error"])
                if cell.failures >= 10 and not times:
                    break
                continue
            times.append(answer.pop("seconds") * 1000)
            sent.append(stats.forward.bytes)
            for key, value in answer.items():
                cell.detail.setdefault(key, []).append(value)
    finally:
        if worker is not None:
            worker.close()
    cell.samples = len(times)
    cell.detail = {key: sum(values) / len(values) for key, values in cell.detail.items()}
    if times:
        cell.median, cell.p90, cell.p99 = (round(percentile(times, fraction), 1) for fraction in (0.5, 0.9, 0.99))
        cell.least, cell.most = round(min(times), 1), round(max(times), 1)
        cell.bytes_sent = round(sum(sent) / len(sent))


# Here the worker only starts processes, whose imports need not be in a hurry; they ask for real time themselves.
OWN_PROCESSES = {("raptor", "stored"), ("raptor", "new")}

# Puts of the row's size before the first measured one: what a device has learned of its link (loss, rate) is part of its state.
WARM_UPS = {"raptor": 10}


def percentile(values: list[float], fraction: float) -> float:
    """Nearest rank: the smallest value that at least `fraction` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]
