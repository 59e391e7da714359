"""HTTPS tools and raptor over the same emulated links, in one run (`docs/wan.md`).

    python -m benchmarks.wan [--quick] [--rows "100 KB, 150 ms"] [--tools raptor,crt] [--budget 30] [--links 3] [--out docs/]

Every cell of the table is a contestant in a row: its own link, server and worker process, all alike (`benchmarks.peers.cell`).
A few cells run side by side, because they mostly wait; cells of one row stay together in time. Writes wan-results.json, the
tables of wan.md and plots into `--out`; cells that were not measured this time are kept from the file that is there.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.link import ROOT, Conditions, Link, why_unavailable
from benchmarks.link.install import install_or_explain
from benchmarks.link.probe import tcp_connect_rtts, udp_bulk_mbps, udp_echo_rtts
from benchmarks.peers import why_unavailable as why_tool_unavailable
from benchmarks.peers.cell import Cell, Limits, measure
from benchmarks.peers.report import contestant_names, index, load_results, number, save_results, target_table, write_report
from benchmarks.peers.rows import Contestant, Row, all_contestants, all_rows, quick_rows

TOOLS = ("raptor", "boto3", "crt", "s5cmd")
SAMPLES = {"raptor": 200}
PEER_SAMPLES = 100
LEAST_CELL_S = 15.0


class Budget:
    """Divides what is left of the time among the cells that are left."""

    def __init__(self, seconds: float, cells: int, links: int) -> None:
        self._ends_at = time.monotonic() + seconds
        self._cells = cells
        self._links = links
        self._lock = threading.Lock()

    def share_s(self) -> float:
        """How long the next cell may take."""
        with self._lock:
            left = max(0.0, self._ends_at - time.monotonic())
            share = left * self._links / max(self._cells, 1)
            self._cells -= 1
        return max(share, LEAST_CELL_S)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; the exit code is 0 when it ran, whatever the numbers are."""
    arguments = parse_arguments(argv)
    reason = why_unavailable()
    if reason:
        print(reason, file=sys.stderr)
        return 2
    with contextlib.suppress(PermissionError):
        os.nice(arguments.nice)
    if arguments.install:
        install_or_explain()
    left_out = {tool: reason for tool in arguments.tools if (reason := why_tool_unavailable(tool))}
    for tool, why in left_out.items():
        print(f"left out: {tool}: {why}")
    rows = [row for row in (quick_rows() if arguments.quick else all_rows()) if _is_wanted(row, arguments.rows)]
    contestants = [one for one in all_contestants(_algorithms()) if one.tool in arguments.tools and one.tool not in left_out]
    if arguments.contestants:
        contestants = [one for one in contestants if one.name in arguments.contestants]
    print_link_check()
    cells = measure_all(rows, contestants, arguments)
    keep(arguments.out, cells, left_out, arguments)
    print(target_table(index(cells)))
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wan", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="only the rows with a target, fewer samples")
    parser.add_argument("--rows", action="append", default=[], metavar="TEXT", help="rows whose name contains TEXT; repeatable")
    parser.add_argument("--tools", type=lambda text: tuple(text.split(",")), default=TOOLS, help="of " + ",".join(TOOLS))
    parser.add_argument("--contestants", action="append", default=[], metavar="NAME", help='such as "boto3 warm BBR"; repeatable')
    parser.add_argument("--budget", type=float, default=60.0, metavar="MINUTES", help="time for all of it (default: 60)")
    parser.add_argument("--links", type=int, default=3, help="links at a time (default: 3)")
    parser.add_argument("--samples", type=int, help="puts per cell at most")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", metavar="DIR", help="where results go (default: docs/)")
    parser.add_argument("--nice", type=int, default=-10, help="of all workers and servers; they mostly wait (default: -10)")
    parser.add_argument("--no-install", dest="install", action="store_false", help="do not ask apt for what is missing")
    parser.add_argument("--no-plots", dest="plots", action="store_false")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.tools) - set(TOOLS)
    if unknown:
        parser.error(f"unknown tools: {', '.join(sorted(unknown))}")
    return arguments


def measure_all(rows: list[Row], contestants: list[Contestant], arguments: argparse.Namespace) -> list[Cell]:
    """All cells, in the order of rows and contestants."""
    jobs = [(row, one) for row in rows for one in contestants]
    budget = Budget(arguments.budget * 60, len(jobs), arguments.links)

    def work(job: tuple[Row, Contestant]) -> Cell:
        row, contestant = job
        samples = arguments.samples or (30 if arguments.quick else SAMPLES.get(contestant.tool, PEER_SAMPLES))
        try:
            cell = measure(row, contestant, Limits(samples, budget.share_s()))
        except Exception as error:  # one broken tool must not cost the others' results
            cell = Cell(row.name, contestant.tool, contestant.mode, contestant.congestion, failures=1)
            cell.errors.append(f"{type(error).__name__}: {error}")
        problems = f"  {cell.failures} failed: {cell.errors[0]}" if cell.failures else ""
        disturbed = f"  {cell.disturbed} disturbed" if cell.disturbed else ""
        numbers = f"median {number(cell.median):>8}  p90 {number(cell.p90):>8}  p99 {number(cell.p99):>8}  n={cell.samples}"
        print(f"{row.name:<32} {contestant.name:<16} {numbers}{disturbed}{problems}", flush=True)
        return cell

    with ThreadPoolExecutor(arguments.links) as pool:
        return list(pool.map(work, jobs))


def keep(directory: Path, cells: list[Cell], left_out: dict[str, str], arguments: argparse.Namespace) -> None:
    """Write JSON, tables and plots; cells of earlier runs that were not measured again stay."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "wan-results.json"
    run, earlier = load_results(path)
    kept = index(earlier) | index(cells)
    order = {row.name: number for number, row in enumerate(all_rows())}
    names = contestant_names(list(kept.values()))
    merged = sorted(
        kept.values(),
        key=lambda cell: (order.get(cell.row, 99), names.index(Contestant(cell.tool, cell.mode, cell.congestion).name)),
    )
    run = {**run, **describe_run(arguments), "left_out": left_out}
    save_results(path, run, merged)
    write_report(directory / "wan.md", run, merged)
    if arguments.plots:
        try:
            from benchmarks.plots import write_plots
        except ModuleNotFoundError as error:
            print(f"no plots: {error}")
        else:
            write_plots(directory, merged)


def describe_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Where and how the numbers came about."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores of {_processor()}",
        "kernel": platform.release().partition("-")[0],
        "links": arguments.links,
    }


def print_link_check() -> None:
    """A short proof that the link is what it says; `python -m benchmarks.link validate` is the long one."""
    with Link(Conditions(rtt_s=0.150, rate_mbps=20)) as link:
        connect, echo = sorted(tcp_connect_rtts(link, 5))[2], sorted(udp_echo_rtts(link, 5))[2]
        rate = udp_bulk_mbps(link, 1.0)
        stats = link.stats()
    print(
        f"link: asked 150 ms, 20 Mbit/s, MTU 1500; seen TCP connect {connect * 1000:.1f} ms, UDP echo {echo * 1000:.1f} ms, "
        f"{rate:.1f} Mbit/s, largest packet {stats.forward.largest_bytes}, "
        f"router {'real-time' if stats.is_realtime else 'NOT real-time'}, late p99 {stats.late_p99_s * 1e6:.0f} us",
        flush=True,
    )


def _is_wanted(row: Row, texts: list[str]) -> bool:
    return not texts or any(text in row.name for text in texts)


def _algorithms() -> list[str]:
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    return [name for name in ("cubic", "bbr") if name in available]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
