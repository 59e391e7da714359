"""What the user sees: plain lines, JSON lines, or rich's panels and bars where stdout is a terminal.

Results go to stdout, notes and complaints to stderr, so that `raptor keygen > camera7.pub` does what it looks like.

Invariant: rich is imported only when a picture is really drawn; text from files, peers and S3 never reaches the terminal with
control characters in it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


@dataclass(slots=True)
class Output:
    """Where a verb writes. `is_silent` drops results and notes, never errors about the command line."""

    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    program: str = "raptor"
    is_json: bool = False
    is_silent: bool = False
    is_verbose: bool = False

    @property
    def is_terminal(self) -> bool:
        return not (self.is_json or self.is_silent) and self.stdout.isatty()

    def result(self, values: Mapping[str, Any], line: str = "") -> None:
        """One result: `values` as a JSON line with --json, else `line` (nothing if empty)."""
        if self.is_silent:
            return
        if self.is_json:
            self._write(self.stdout, json.dumps(values, ensure_ascii=True, default=str))
        elif line:
            self._write(self.stdout, line)

    def note(self, line: str) -> None:
        if not (self.is_silent or self.is_json):
            self._write(self.stderr, line)

    def detail(self, line: str) -> None:
        if self.is_verbose:
            self.note(line)

    def warn(self, line: str) -> None:
        if not self.is_silent:
            self._write(self.stderr, f"{self.program}: warning: {line}")

    def error(self, line: str) -> None:
        self._write(self.stderr, f"{self.program}: {line}")

    def rich(self) -> Console:
        """A rich console on stdout."""
        from rich.console import Console

        return Console(file=self.stdout, highlight=False)

    @staticmethod
    def _write(stream: TextIO, line: str) -> None:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(printable(line).encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates escaped; new lines stay.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in text
    )


def size(size_bytes: float) -> str:
    """
    >>> size(999), size(2048), size(5 << 20)
    ('999 B', '2.0 KB', '5.0 MB')
    """
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    for unit in ("KB", "MB"):
        size_bytes /= 1024
        if size_bytes < 1024:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1024:.1f} GB"


def seconds(duration_s: float) -> str:
    """
    >>> seconds(0.00042), seconds(0.0425), seconds(2.5), seconds(7200)
    ('0.4 ms', '42.5 ms', '2.5 s', '2 h 0 min')
    """
    if duration_s < 1:
        return f"{duration_s * 1000:.1f} ms"
    if duration_s < 120:
        return f"{duration_s:.1f} s"
    minutes, _ = divmod(int(duration_s), 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def age(duration_s: float) -> str:
    """
    >>> age(0.4), age(34.2), age(150.0), age(7200)
    ('0 s', '34 s', '2 min', '2 h 0 min')
    """
    return f"{max(duration_s, 0):.0f} s" if duration_s < 120 else seconds(duration_s)


def percent(fraction: float) -> str:
    return f"{fraction * 100:.1f}%"


def count(number: int, noun: str) -> str:
    """
    >>> count(1, "file"), count(3, "file")
    ('1 file', '3 files')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
