"""Plots of the WAN benchmark: median and p99 against loss, one line per tool, one panel per object size.

    python -m benchmarks.plots [--out docs/]      draws again from wan-results.json

HTTPS tools appear once per panel with the better of cold and warm being its own line only where it matters: the lines are
raptor, and each tool's warm (or only) mode, under cubic and under BBR. Labels stand at the lines' ends instead of in a legend.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.link import ROOT
from benchmarks.peers.report import index, load_results
from benchmarks.peers.rows import LOSSES, SIZES

if TYPE_CHECKING:
    from benchmarks.peers.cell import Cell

RTT_MS = 150
# contestant -> colour, line style, width. One hue per tool, dashes for BBR.
LINES: dict[str, tuple[str, str, float]] = {
    "raptor stored": ("#d1342f", "-", 2.6),
    "boto3 cold": ("#9db4c8", "-", 1.4),
    "boto3 warm": ("#1f5f99", "-", 1.6),
    "boto3 warm BBR": ("#1f5f99", "--", 1.6),
    "crt warm": ("#2c8a57", "-", 1.6),
    "crt warm BBR": ("#2c8a57", "--", 1.6),
    "s5cmd": ("#8a6a2c", "-", 1.4),
    "s5cmd BBR": ("#8a6a2c", "--", 1.4),
}
LABELS = {"raptor stored": "raptor", "crt warm": "CRT warm", "crt warm BBR": "CRT warm, BBR", "boto3 warm BBR": "boto3 warm, BBR"}
INK, GRID = "#333333", "#e6e6e6"


def write_plots(directory: Path, cells: list[Cell]) -> list[Path]:
    """wan-median.svg and wan-p99.svg in `directory`."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "font.size": 9,
            "axes.edgecolor": INK,
            "text.color": INK,
            "axes.labelcolor": INK,
            "svg.hashsalt": "raptor",
            "svg.fonttype": "none",
        }
    )
    titles = {"median": "Median time of a confirmed put", "p99": "99th percentile (HTTPS: of about 100 puts, fewer where slow)"}
    return [_draw(directory / f"wan-{metric}.svg", cells, metric, title) for metric, title in titles.items()]


def _draw(path: Path, cells: list[Cell], metric: str, title: str) -> Path:
    from matplotlib import pyplot as plt

    results = index(cells)
    figure, axes = plt.subplots(1, len(SIZES), figsize=(15, 5.2), sharey=False)
    for axis, size in zip(axes, SIZES, strict=True):
        ends: list[tuple[float, str, str]] = []
        for name, (colour, style, width) in LINES.items():
            values = [_value(results.get((f"{size}, {RTT_MS} ms, {loss:.0%}", name)), metric) for loss in LOSSES]
            points = [(place, value) for place, value in enumerate(values) if not math.isnan(value)]
            if not points:
                continue
            axis.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=width, marker="o", markersize=3)
            ends.append((points[-1][1], LABELS.get(name, name.replace("BBR", ", BBR").replace(" ,", ",")), colour))
        _style(axis, size)
        _label_ends(axis, ends)
    axes[0].set_ylabel("milliseconds (log scale)")
    figure.suptitle(f"{title}: {RTT_MS} ms round trip, 20 Mbit/s", x=0.008, ha="left", fontsize=12, fontweight="bold")
    figure.text(0.008, 0.015, "random loss in each direction; solid: cubic, dashed: BBR; dotted grey: one round trip", fontsize=8)
    figure.tight_layout(rect=(0, 0.03, 1, 0.98), w_pad=4.5)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _value(cell: Cell | None, metric: str) -> float:
    return math.nan if cell is None else float(getattr(cell, metric))


def _style(axis: Any, size: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_title(size, loc="left", fontsize=10)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks(range(len(LOSSES)), [f"{loss:.0%}" for loss in LOSSES])
    axis.set_xlabel("loss")
    axis.axhline(RTT_MS, color="#999999", linestyle=":", linewidth=1)
    axis.grid(axis="y", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _label_ends(axis: Any, ends: list[tuple[float, str, str]]) -> None:
    """Name each line at its right end, moved apart where they would overlap."""
    if not ends:
        return
    low, high = (math.log10(limit) for limit in axis.get_ylim())
    step = (high - low) * 0.042
    ends.sort()
    places: list[float] = []
    for value, _, _ in ends:
        wanted = math.log10(value)
        places.append(max(wanted, places[-1] + step) if places else wanted)
    for number in reversed(range(len(places))):
        places[number] = min(places[number], places[number + 1] - step if number + 1 < len(places) else high)
    for (value, name, colour), place in zip(ends, places, strict=True):
        axis.annotate(
            name,
            xy=(len(LOSSES) - 1, value),
            xytext=(len(LOSSES) - 1 + 0.12, 10**place),
            color=colour,
            fontsize=7.5,
            va="center",
            fontweight="bold" if name == "raptor" else "normal",
            annotation_clip=False,
        )


def main() -> int:
    """Draw from the JSON that is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    directory: Path = parser.parse_args().out
    _, cells = load_results(directory / "wan-results.json")
    for path in write_plots(directory, cells):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
