"""The demo's table: per file the path taken and why, datagrams sent and lost, times, ETag; and whether all is as it should be."""

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
    direct_s: float
    """The same file put by plain boto3 on a new connection, straight to the local S3."""

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
        "put by", "file", "bytes", "path", "why", "datagrams", "lost", "ms", "HTTPS ms *", "ETag", "SHA-256",
        box=None, pad_edge=False,
    )  # fmt: skip
    for column in (2, 5, 6, 7, 8):
        table.columns[column].justify = "right"
    for row in rows:
        record, objection = row.record, row.objection
        verdict = f"[red]{objection}[/red]" if objection else "same"
        direct = f"{row.direct_s * 1000:.0f}"
        if record is None:
            table.add_row(row.step, row.name, f"{row.size_bytes:,}", "-", "-", "-", "-", "-", direct, "-", verdict)
            continue
        table.add_row(
            row.step,
            row.name,
            f"{row.size_bytes:,}",
            record.route,
            record.reason or "within threshold",
            str(record.datagrams or "-"),
            str(record.lost if record.datagrams else "-"),
            f"{record.elapsed_s * 1000:.0f}",
            direct,
            record.etag.strip('"')[:8],
            verdict,
        )
    Console(width=None if Console().is_terminal else 180).print(table)
    print("* plain boto3, new connection. Here S3 is a millisecond away and speaks HTTP: over a real link see docs/wan.md")
    return not any(row.objection for row in rows)


def summary(rows: Sequence[Row]) -> str:
    """What the rows amount to, in one line."""
    good = [row for row in rows if not row.objection]
    ways = {route: sum(row.expected_route == route for row in good) for route in ("raptor", "https")}
    if len(good) < len(rows):
        return f"{len(rows) - len(good)} of {len(rows)} puts did NOT go as they should (in red above)"
    return (
        f"{len(rows)} puts, all whole in S3 with S3's own ETag: {ways['raptor']} by the fast path, {ways['https']} by HTTPS "
        "(one above the threshold, the rest with the gateway stopped)"
    )
