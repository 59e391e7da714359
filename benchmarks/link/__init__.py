"""A link emulator that can be trusted: two network namespaces joined over TUN by a user-space router.

    with Link(Conditions(rtt_s=0.150, loss=0.05)) as link:
        server = link.server.popen(["nginx", ...])
        with link.client.entered():
            socket.create_connection((link.server.address, 443))
        link.set(Conditions(rtt_s=0.020), seed=7)     # the same link, other weather
        print(link.stats().forward.lost)

`model` decides each packet's fate, `router` carries it out, `namespaces` makes the two hosts, `probe` checks that all of it is
true (`python -m benchmarks.link validate`). Needs Linux, root and iproute2; `why_unavailable` says what is missing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.link.model import Conditions, DirectionStats
from benchmarks.link.namespaces import Namespace, create_namespace, delete_namespace, sweep

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Conditions", "DirectionStats", "Link", "LinkStats", "Namespace", "why_unavailable"]

CLIENT_ADDRESS, SERVER_ADDRESS = "10.0.0.1", "10.0.0.2"
ROOT = Path(__file__).resolve().parent.parent.parent

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class LinkStats:
    """Counters since the last `set`. `late_*`: how far behind its due time a packet left the router (the machine was busy)."""

    forward: DirectionStats
    back: DirectionStats
    late_p99_s: float
    late_max_s: float
    late_packets: int
    write_errors: int
    is_realtime: bool


class Link:
    """Two hosts, `client` and `server`, and the link between them; a context manager.

    `congestion` is the TCP congestion control of both hosts. Everything started in the namespaces ends with the link, also when
    this process is killed (the router cleans up).
    """

    def __init__(self, conditions: Conditions | None = None, *, congestion: str = "cubic", seed: int = 0) -> None:
        self.congestion = congestion
        reason = why_unavailable()
        if reason:
            raise OSError(reason)
        sweep()
        prefix = f"raptor-{os.getpid()}-{next(_numbers)}"
        names = [f"{prefix}-client", f"{prefix}-server"]
        fds: list[int] = []
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        try:
            self.client, fd = create_namespace(names[0], CLIENT_ADDRESS, SERVER_ADDRESS)
            fds.append(fd)
            self.server, fd = create_namespace(names[1], SERVER_ADDRESS, CLIENT_ADDRESS)
            fds.append(fd)
            self._router = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.link.router", *map(str, (*fds, theirs.fileno())), *names],
                pass_fds=(*fds, theirs.fileno()),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._control.close()
            for name in names:
                delete_namespace(name)
            raise
        finally:
            theirs.close()
            for fd in fds:
                os.close(fd)
        self._answers = self._control.makefile("rb")
        try:
            self.client.use_congestion_control(congestion, SERVER_ADDRESS)
            self.server.use_congestion_control(congestion, CLIENT_ADDRESS)
            self.set(conditions or Conditions(), seed=seed)
        except BaseException:
            self.close()
            raise

    def set(self, conditions: Conditions, *, seed: int = 0) -> None:
        """Change the conditions, start the random streams anew from `seed`, and zero the counters. Packets under way stay so."""
        self.conditions = conditions
        self._ask({"set": {"conditions": conditions.as_dict(), "seed": seed}})

    def stats(self) -> LinkStats:
        """What the link did since the last `set`."""
        answer = self._ask({"stats": True})
        return LinkStats(DirectionStats(**answer.pop("forward")), DirectionStats(**answer.pop("back")), **answer)

    def close(self) -> None:
        """End what runs in the namespaces and delete them. Idempotent."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # heard even if a forked process still holds the socket
        self._control.close()
        self._answers.close()
        if self._router.wait() != 0:  # killed, or crashed: do its last duty
            delete_namespace(self.client.name)
            delete_namespace(self.server.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._control.sendall(json.dumps(request).encode() + b"\n")
            line = self._answers.readline()
        if not line:
            raise OSError(f"the router of {self.client.name} is gone (exit code {self._router.poll()})")
        answer: dict[str, Any] = json.loads(line)
        return answer


def why_unavailable() -> str | None:
    """Why no link can be made here, or None."""
    if not sys.platform.startswith("linux"):
        return "the link emulator needs Linux network namespaces"
    if os.geteuid() != 0:
        return "the link emulator needs root (network namespaces, TUN)"
    if shutil.which("ip") is None:
        return "the link emulator needs `ip` (Debian: iproute2)"
    if not Path("/dev/net/tun").exists():
        return "the link emulator needs /dev/net/tun"
    return None
