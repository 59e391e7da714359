"""This machine's loopback, where the WAN benchmark has a network namespace."""

from __future__ import annotations

import contextlib
import subprocess
from typing import Any


class Loopback:
    """An address of 127/8, so that benchmarks don't meet each other's servers."""

    def __init__(self, address: str) -> None:
        self.address = address

    def popen(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(command, **options)

    def entered(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()
