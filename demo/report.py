"""The demo's table: per file the path taken and why, datagrams sent and lost, time, ETag; and whether all is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptor_s3.routing.journal import PutRecord


class Row(NamedTuple):
    step: str
    name: str
    size_bytes: int
    expected_route: str
    record: PutRecord | None
    is_whole: bool
    same_etag: bool

    @property
    def objection(self) -> str:
        """What is wrong with it, or an empty string."""
        if not self.is_whole:
            return "not in S3 as it was sent"
        if self.record is None:
            return "no record of the put"
        if self.record.route != self.expected_route:
            return f"expected {self.expected_route}"
        return "" if self.same_etag else "another ETag"


def print_report(rows: Sequence[Row]) -> bool:
    """Whether every row is as expected."""
    table = Table(
        "put by", "file", "bytes", "path", "why", "datagrams", "lost", "ms", "ETag", "SHA-256", box=None, pad_edge=False
    )
    for column in (2, 5, 6, 7):
        table.columns[column].justify = "right"
    for row in rows:
        record, objection = row.record, row.objection
        verdict = f"[red]{objection}[/red]" if objection else "same"
        if record is None:
            table.add_row(row.step, row.name, f"{row.size_bytes:,}", "-", "-", "-", "-", "-", "-", verdict)
            continue
        table.add_row(
            row.step,
            row.name,
            f"{row.size_bytes:,}",
            record.route,
            record.reason or "fits",
            str(record.datagrams or "-"),
            str(record.lost if record.datagrams else "-"),
            f"{record.elapsed_s * 1000:.0f}",
            record.etag.strip('"')[:8],
            verdict,
        )
    Console(width=None if Console().is_terminal else 170).print(table)
    return not any(row.objection for row in rows)
