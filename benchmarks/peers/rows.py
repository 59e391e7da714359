"""The rows of the WAN benchmark, its contestants, and the numbers that this project is held to.

A row is an object size on a link; a contestant is a tool in one mode (and, over TCP, one congestion control). A target names a
row, a raptor mode and a limit. Everything here is data; `cell` measures, `report` prints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.link import Conditions

SIZES = {"1 KB": 1_000, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000}
LOSSES = (0.0, 0.01, 0.05, 0.10)


@dataclass(frozen=True, slots=True)
class Row:
    """One object size on one link."""

    size_name: str
    conditions: Conditions

    @property
    def size_bytes(self) -> int:
        return SIZES[self.size_name]

    @property
    def name(self) -> str:
        """As tables and `--rows` spell it: `100 KB, 150 ms, 5%`."""
        conditions = self.conditions
        words = [self.size_name, f"{conditions.rtt_s * 1000:g} ms", f"{conditions.loss:.0%}"]
        if conditions.mean_burst_s:
            words.append("bursts")
        if conditions.jitter_s:
            words.append("jitter" + (" and reordering" if conditions.reorder else ""))
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A tool in one mode. `congestion` is the TCP congestion control of both hosts; it means nothing to raptor."""

    tool: str
    mode: str
    congestion: str = "cubic"

    @property
    def name(self) -> str:
        """As tables and plots spell it."""
        words = [self.tool] if self.tool == "s5cmd" else [self.tool, self.mode]
        return " ".join(words + (["BBR"] if self.congestion == "bbr" else []))


@dataclass(frozen=True, slots=True)
class Target:
    """`limit_ms` bounds `metric` (`median` or `p99`) of raptor in `mode` in the row of that name."""

    row: str
    mode: str
    metric: str
    limit_ms: float


def all_rows() -> list[Row]:
    """The grid at 150 ms, then the other delays, bursts and jitter."""
    base = Conditions(rtt_s=0.150)
    rows = [Row(size, replace(base, loss=loss)) for size in SIZES for loss in LOSSES]
    rows += [Row("100 KB", replace(base, rtt_s=0.020, loss=loss)) for loss in (0.0, 0.05, 0.10)]
    rows += [Row("1 MB", replace(base, rtt_s=0.020, loss=0.05))]
    rows += [Row(size, replace(base, rtt_s=0.300, loss=0.05)) for size in ("10 KB", "100 KB", "1 MB")]
    rows += [Row(size, replace(base, loss=0.05, mean_burst_s=0.020)) for size in SIZES]
    rows += [Row(size, replace(base, jitter_s=0.030)) for size in ("10 KB", "1 MB")]
    rows += [Row("100 KB", replace(base, jitter_s=0.030, loss=0.05))]
    rows += [Row("100 KB", replace(base, jitter_s=0.030, reorder=True, loss=loss)) for loss in (0.0, 0.05)]
    return rows


def quick_rows() -> list[Row]:
    """Only the rows of `TARGETS`."""
    named = {target.row for target in TARGETS}
    return [row for row in all_rows() if row.name in named]


def all_contestants(algorithms: list[str]) -> list[Contestant]:
    """Raptor first, then every HTTPS peer under each congestion control."""
    contestants = [Contestant("raptor", mode) for mode in RAPTOR_MODES]
    for congestion in algorithms:
        for tool in ("boto3", "crt"):
            contestants += [Contestant(tool, mode, congestion) for mode in ("cold", "warm")]
        contestants.append(Contestant("s5cmd", "cold", congestion))
    return contestants


# stored: a fresh process that finds a stored session; new: one that finds nothing, so it is also the first put on a new link;
# warm: a process that has put before.
RAPTOR_MODES = ("stored", "warm", "new")

EITHER = ("stored", "warm")

# 1.1 RTT of 150 ms is 165 ms. From 100 KB on both kinds of process are held to the limit: one that has put before, and a fresh
# one that finds what others have learned.
TARGETS = [
    *(Target(f"{size}, 150 ms, 0%", "stored", "median", 165) for size in ("1 KB", "10 KB")),
    *(Target(f"{size}, 150 ms, 0%", "stored", "p99", 180) for size in ("1 KB", "10 KB")),
    *(Target(f"{size}, 150 ms, 0%", "new", "median", 315) for size in ("1 KB", "10 KB")),
    Target("10 KB, 150 ms, 5%", "stored", "median", 165),
    Target("10 KB, 150 ms, 5%", "stored", "p99", 345),
    Target("1 KB, 150 ms, 10%", "stored", "p99", 345),
    *(Target("100 KB, 150 ms, 5%", mode, "median", 260) for mode in EITHER),
    *(Target("100 KB, 150 ms, 5%", mode, "p99", 500) for mode in EITHER),
    *(Target("1 MB, 150 ms, 1%", mode, "median", 750) for mode in EITHER),
    *(Target("1 MB, 150 ms, 5%", mode, "median", 800) for mode in EITHER),
    *(Target("1 MB, 150 ms, 5%", mode, "p99", 1100) for mode in EITHER),
    *(Target("100 KB, 20 ms, 10%", mode, "median", 120) for mode in EITHER),
]
