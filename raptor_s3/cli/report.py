"""What became of the files of one `raptor send`: lines, JSON lines, or a bar on a terminal when there are several.

Invariant: every file is reported once, as sent or as failed; the last thing said is the sum.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from raptor_s3.cli.destination import Bucket, Receiver, Upload
from raptor_s3.cli.output import count, percent, printable, seconds, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress, TaskID

    from raptor_s3.cli.output import Output
    from raptor_s3.net.engine import PutOutcome


class Report:
    """Use as a context manager around the transfer."""

    def __init__(self, output: Output, destination: Bucket | Receiver, uploads: Sequence[Upload]) -> None:
        self.sent = self.failed = 0
        self._output = output
        self._destination = destination
        self._total = len(uploads)
        self._bytes = self._datagrams = self._lost = 0
        self._began = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._output.is_terminal and self._total > 1 and not self._output.is_verbose:
            self._start_bar()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        if kind is None and self._total > 1:
            self._summarize()

    def succeed(self, upload: Upload, size_bytes: int, outcome: PutOutcome) -> None:
        stats, fields = outcome.stats, outcome.fields
        self.sent += 1
        self._bytes += size_bytes
        self._datagrams += stats.datagrams_sent
        self._lost += stats.lost_estimate
        values: dict[str, Any] = {
            "file": _source(upload),
            "destination": self._target(upload),
            "ok": True,
            "size_bytes": size_bytes,
            "elapsed_s": round(stats.elapsed_s, 6),
            "rtt_s": stats.rtt_s,
            "datagrams": stats.datagrams_sent,
            "repair_symbols": stats.repair_symbols,
            "lost": stats.lost_estimate,
            "handshake": stats.handshake,
            **fields,
        }
        etag = f", ETag {fields['ETag']}" if "ETag" in fields else ""
        line = f"sent {_source(upload)} to {self._target(upload)} ({size(size_bytes)} in {seconds(stats.elapsed_s)}{etag})"
        if self._output.is_verbose:
            line += (
                f"\n  {stats.source_symbols} source and {stats.repair_symbols} repair symbols in "
                f"{count(stats.datagrams_sent, 'datagram')}, {stats.lost_estimate} lost"
            )
            line += f", round trip {seconds(stats.rtt_s)}" if stats.rtt_s else ""
            line += ", after a handshake" if stats.handshake else ""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1, detail=size(self._bytes))
        else:
            self._output.result(values, line)

    def fail(self, upload: Upload, size_bytes: int, reason: str) -> None:
        self.failed += 1
        line = f"failed {_source(upload)} to {self._target(upload)}: {reason}"
        if self._progress is not None and self._task is not None:
            self._progress.console.print(printable(line), markup=False, style="red")
            self._progress.update(self._task, advance=1)
        elif self._output.is_json:
            values = {"file": _source(upload), "destination": self._target(upload), "ok": False}
            self._output.result({**values, "size_bytes": size_bytes, "error": reason})
        elif not self._output.is_silent:
            self._output.error(line)

    def _summarize(self) -> None:
        elapsed_s = max(time.monotonic() - self._began, 1e-9)
        loss = self._lost / self._datagrams if self._datagrams else 0.0
        failed = f", {self.failed:,} failed" if self.failed else ""
        line = (
            f"{count(self.sent, 'file')} sent{failed}: {size(self._bytes)} in {seconds(elapsed_s)} "
            f"({self._bytes * 8 / elapsed_s / 1e6:.1f} Mbit/s), {count(self._datagrams, 'datagram')}, {percent(loss)} lost"
        )
        summary = {"sent": self.sent, "failed": self.failed, "size_bytes": self._bytes, "elapsed_s": round(elapsed_s, 6)}
        self._output.result({"summary": {**summary, "datagrams": self._datagrams, "lost": self._lost}}, line)

    def _start_bar(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("sending"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._output.rich(),
            transient=True,
        )
        self._task = self._progress.add_task("sending", total=self._total, detail="")
        self._progress.start()

    def _target(self, upload: Upload) -> str:
        if isinstance(self._destination, Bucket):
            return self._destination.url(upload.name)
        return f"{self._destination.url} as {upload.name}"


def _source(upload: Upload) -> str:
    return "-" if upload.path is None else str(upload.path)
