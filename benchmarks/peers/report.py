"""The WAN benchmark's results as JSON and as Markdown: targets with verdicts, medians, p99s.

Invariant: what a table shows is in the JSON; a cell that was not measured shows as a dash, never as a guess.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.peers.cell import Cell
from benchmarks.peers.rows import TARGETS, Contestant, Row, all_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

BEGIN, END = "<!-- results: written by benchmarks/wan.py -->", "<!-- end of results -->"
P99_SAMPLES = 100

Results = dict[tuple[str, str], Cell]


def index(cells: Iterable[Cell]) -> Results:
    """Cells by row name and contestant name."""
    return {(cell.row, Contestant(cell.tool, cell.mode, cell.congestion).name): cell for cell in cells}


def load_results(path: Path) -> tuple[dict[str, Any], list[Cell]]:
    """What an earlier run wrote: about itself, and its cells. Empty when there is no such file."""
    if not path.exists():
        return {}, []
    document = json.loads(path.read_text())
    return document["run"], [Cell(**{"median": math.nan, **cell}) for cell in document["cells"]]


def save_results(path: Path, run: dict[str, Any], cells: list[Cell]) -> None:
    """Write run and cells; numbers that do not exist are left out (JSON has no NaN)."""
    plain = [
        {key: value for key, value in asdict(cell).items() if not (isinstance(value, float) and math.isnan(value))}
        for cell in cells
    ]
    lines = ",\n  ".join(json.dumps(cell) for cell in plain)
    path.write_text(f'{{"run": {json.dumps(run, indent=2)},\n "cells": [\n  {lines}\n]}}\n')


def write_report(path: Path, run: dict[str, Any], cells: list[Cell]) -> None:
    """Put the tables between the two markers of the page at `path`, or into a page of their own."""
    body = f"{BEGIN}\n\n{markdown(run, cells)}\n{END}"
    page = path.read_text() if path.exists() else f"# HTTPS and raptor over real links\n\n{BEGIN}{END}\n"
    before, _, rest = page.partition(BEGIN)
    path.write_text(before + body + rest.partition(END)[2])


def markdown(run: dict[str, Any], cells: list[Cell]) -> str:
    """All tables."""
    results = index(cells)
    parts = [
        f"Measured {run.get('date', 'at an unknown time')} on {run.get('machine', 'an unknown machine')}, "
        f"kernel {run.get('kernel', '?')}, {run.get('links', '?')} links at a time.",
    ]
    if run.get("left_out"):
        parts.append("Left out: " + "; ".join(f"{tool} ({reason})" for tool, reason in run["left_out"].items()) + ".")
    parts += ["### Targets", target_table(results)]
    names = [name for name in contestant_names(cells) if not name.endswith("BBR")]
    parts += ["### Median (p99), milliseconds, cubic", grid(results, names)]
    bbr = [name for name in contestant_names(cells) if name.endswith("BBR") or name.startswith("raptor")]
    if any(name.endswith("BBR") for name in bbr):
        parts += ["### The same with BBR on the HTTPS clients", grid(results, bbr)]
    parts += ["### Samples, and bytes on the wire", overhead_table(results)]
    return "\n\n".join(parts) + "\n"


def target_table(results: Results) -> str:
    """Each target, what was seen, and the best HTTPS peer's same number."""
    lines = ["| row | raptor mode | number | target | seen | samples | | best HTTPS peer |", "|---|---|---|---|---|---|---|---|"]
    for target in TARGETS:
        cell = results.get((target.row, f"raptor {target.mode}"))
        seen = getattr(cell, target.metric) if cell else math.nan
        verdict = "" if math.isnan(seen) else ("met" if seen <= target.limit_ms else "**missed**")
        samples = str(cell.samples) if cell else ""
        lines.append(
            f"| {target.row} | {target.mode} | {target.metric} | <= {target.limit_ms:,.0f} | {number(seen)} | {samples} "
            f"| {verdict} | {best_peer(results, target.row, target.metric)} |"
        )
    return "\n".join(lines)


def best_peer(results: Results, row: str, metric: str) -> str:
    """The lowest number of any HTTPS tool in that row, and whose it is."""
    found = [
        (getattr(cell, metric), name)
        for (row_name, name), cell in results.items()
        if row_name == row and not name.startswith("raptor") and not math.isnan(getattr(cell, metric))
    ]
    return f"{number(min(found)[0])} ({min(found)[1]})" if found else "-"


def grid(results: Results, names: list[str]) -> str:
    """Rows against contestants."""
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in _measured_rows(results):
        entries = [_entry(results.get((row.name, name))) for name in names]
        if any(entry != "-" for entry in entries):
            lines.append(f"| {row.name} | " + " | ".join(entries) + " |")
    lines += ["", "A p99 in brackets with `~` is the largest of fewer than 100 samples."]
    return "\n".join(lines)


def overhead_table(results: Results) -> str:
    """What a put costs the link, against the object's own size."""
    names = ["raptor stored", "boto3 warm", "boto3 warm BBR"]
    lines = ["| | " + " | ".join(f"{name}: bytes sent, puts" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in _measured_rows(results):
        entries = []
        for name in names:
            cell = results.get((row.name, name))
            if cell is None or math.isnan(cell.bytes_sent):
                entries.append("-")
            else:
                failed = f", {cell.failures} failed" if cell.failures else ""
                entries.append(f"{cell.bytes_sent / row.size_bytes:.2f} x, {cell.samples}{failed}")
        lines.append(f"| {row.name} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def contestant_names(cells: list[Cell]) -> list[str]:
    """In order of first appearance, raptor first."""
    names = dict.fromkeys(Contestant(cell.tool, cell.mode, cell.congestion).name for cell in cells)
    is_peer: Callable[[str], bool] = lambda name: not name.startswith("raptor")  # noqa: E731
    return sorted(names, key=is_peer)


def number(milliseconds: float) -> str:
    """Whole milliseconds with thousands separated; one digit after the point below 100."""
    if math.isnan(milliseconds):
        return "-"
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _entry(cell: Cell | None) -> str:
    if cell is None or math.isnan(cell.median):
        return "failed" if cell is not None and cell.failures else "-"
    mark = "" if cell.samples >= P99_SAMPLES else "~"
    failed = f" {cell.failures} failed" if cell.failures else ""
    return f"{number(cell.median)} ({mark}{number(cell.p99)}){failed}"


def _measured_rows(results: Results) -> list[Row]:
    names = {row_name for row_name, _ in results}
    return [row for row in all_rows() if row.name in names]
