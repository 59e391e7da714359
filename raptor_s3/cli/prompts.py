"""Questions on the terminal, answered by a line each.

Invariant: without a terminal no question is asked: the default counts, and what has no default is a UsageError that
names the option.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from raptor_s3.cli.options import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.cli.output import Output

T = TypeVar("T")


@dataclass(slots=True)
class Prompter:
    output: Output
    is_interactive: bool

    def ask(self, question: str, *, option: str, default: str = "", check: Callable[[str], object]) -> str:
        """The answer, or `default` for an empty one; asked again until `check` raises no ValueError."""
        if not self.is_interactive:
            if not default:
                raise UsageError(f"{option} is missing, and there is no terminal to ask on")
            return default
        while True:
            answer = self._read(f"{question} [{default}]: " if default else f"{question}: ") or default
            try:
                check(answer)
            except ValueError as error:
                self.output.note(f"  {error}")
                continue
            return answer

    def confirm(self, question: str, *, default: bool) -> bool:
        if not self.is_interactive:
            return default
        while True:
            answer = self._read(f"{question} [{'Y/n' if default else 'y/N'}] ").lower()
            if answer in ("", "y", "yes", "n", "no"):
                return default if not answer else answer.startswith("y")

    def _read(self, prompt: str) -> str:
        self.output.stderr.write(prompt)
        self.output.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise UsageError("input ended before the last answer; nothing was written")
        return line.strip()
