"""The router process: reads whole IP packets from two TUN devices and passes them on as `benchmarks.link.model` decides.

    python -m benchmarks.link.router CLIENT_FD SERVER_FD CONTROL_FD NAMESPACE...

One heap of (due time, packet), one thread, no garbage collection, SCHED_RR and a timer slack of 1 ns: packets leave within a
fraction of a millisecond of their due time, and `lateness` in the stats tells when the machine was too busy for that.

The router is also the janitor. When the control socket closes, for whatever reason, it ends every process in the namespaces it
was given, deletes them and exits: a benchmark that was killed leaves nothing behind.

Control protocol, one JSON object a line, each answered by one line: {"set": {"conditions": {...}, "seed": n}} resets the counters
and the random streams ({} as answer), {"stats": true} reads the counters.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import asdict
from heapq import heappop, heappush
from typing import Any, NoReturn

from benchmarks.link.model import Conditions, Direction
from benchmarks.link.namespaces import delete_namespace

PR_SET_TIMERSLACK = 29
READ_BATCH = 32
LATE_S = 0.001


class Router:
    """Two directions between two TUN descriptors; `run` returns when the control socket closes."""

    def __init__(self, client_fd: int, server_fd: int, control: socket.socket) -> None:
        self._out = {client_fd: server_fd, server_fd: client_fd}
        self._fds = (client_fd, server_fd)
        self._control = control
        self._pending_line = b""
        self._write_errors = 0
        self._is_realtime = _become_realtime()
        self._set(Conditions(), 0)

    def run(self) -> None:
        """Move packets until the control socket is closed by the other end."""
        monotonic, read, write = time.monotonic, os.read, os.write
        heap: list[tuple[float, int, int, bytes]] = []
        sequence = 0
        control_fd = self._control.fileno()
        inputs = [*self._fds, control_fd]
        out = self._out
        while True:
            timeout = max(0.0, heap[0][0] - monotonic()) if heap else None
            for ready in select.select(inputs, (), (), timeout)[0]:
                if ready == control_fd:
                    if not self._receive_control():
                        return
                    continue
                now = monotonic()
                direction = self._directions[ready]
                for _ in range(READ_BATCH):
                    try:
                        packet = read(ready, 65536)
                    except BlockingIOError:
                        break
                    if packet[0] >> 4 != 4:  # IPv6 router solicitations of the device itself
                        continue
                    due = direction.admit(now, len(packet))
                    if due is not None:
                        sequence += 1
                        heappush(heap, (due, sequence, out[ready], packet))
            now = monotonic()
            while heap and heap[0][0] <= now:
                due, _, fd, packet = heappop(heap)
                self._lateness.append(now - due)
                try:
                    write(fd, packet)
                except OSError:
                    self._write_errors += 1

    def _set(self, conditions: Conditions, seed: int) -> None:
        self._directions = {
            fd: Direction(conditions, f"{seed}/{name}") for fd, name in zip(self._fds, ("forward", "back"), strict=True)
        }
        self._lateness: deque[float] = deque(maxlen=100_000)
        self._write_errors = 0

    def _receive_control(self) -> bool:
        data = self._control.recv(65536)
        if not data:
            return False
        *lines, self._pending_line = (self._pending_line + data).split(b"\n")
        for line in lines:
            self._control.sendall(json.dumps(self._answer(json.loads(line))).encode() + b"\n")
        return True

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "set" in request:
            self._set(Conditions(**request["set"]["conditions"]), request["set"]["seed"])
            return {}
        late = sorted(self._lateness)
        return {
            "forward": asdict(self._directions[self._fds[0]].stats),
            "back": asdict(self._directions[self._fds[1]].stats),
            "late_p99_s": late[int(len(late) * 0.99)] if late else 0.0,
            "late_max_s": late[-1] if late else 0.0,
            "late_packets": sum(1 for seconds in late if seconds > LATE_S),
            "write_errors": self._write_errors,
            "is_realtime": self._is_realtime,
        }


def _become_realtime() -> bool:
    """Ask for SCHED_RR and the finest timers; False where the machine refuses (delays are then a little coarser)."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    except PermissionError:
        return False
    return True


def main() -> NoReturn:
    """Run the router over inherited descriptors, then clean up."""
    client_fd, server_fd, control_fd = (int(word) for word in sys.argv[1:4])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the control socket ends the router, so that it always cleans up
    os.set_blocking(client_fd, False)
    os.set_blocking(server_fd, False)
    try:
        Router(client_fd, server_fd, socket.socket(fileno=control_fd)).run()
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        for name in sys.argv[4:]:
            delete_namespace(name)
    sys.exit(0)


if __name__ == "__main__":
    main()
