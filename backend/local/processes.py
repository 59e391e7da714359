"""Child processes that end when their owner does, and say why when they fail.

Invariant: a `Child` that was started is stopped, with everything it has started, by `stop`; an error shows the end of its log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

TAIL_LINES: Final = 25
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "SYSTEMROOT", "VIRTUAL_ENV")


class LocalStackError(Exception):
    """Something of the local stack did not start, or failed; the message ends with the log."""


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The little of this process's environment that a child needs. AWS_*, proxies and botocore plugins would mislead it."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | dict(extra)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return "(no log)"
    return "\n".join(["", f"--- the end of {log}", *(f"    {line}" for line in lines)])


class Child:
    """One process in a group of its own; its output goes to `log`."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Raises LocalStackError when the process ends, or the time is over, before `is_ready`."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_running:
                raise LocalStackError(f"{self.name} ended with status {self._process.returncode}{tail(self.log)}")
            if time.monotonic() > deadline:
                raise LocalStackError(f"{self.name} did not start within {timeout_s:g} s{tail(self.log)}")
            time.sleep(0.02)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask the process to end, then end its whole group."""
        if self.is_running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
