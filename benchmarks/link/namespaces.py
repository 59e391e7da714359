"""Network namespaces with one TUN device each: made, entered, deleted. Linux and root only.

Names carry the pid of the process that made them (`raptor-PID-N-client`), so that `sweep` can tell what a killed run left behind
from what another run still uses. Nothing here touches a namespace, device or address that it did not make.

Entering is per thread (setns): sockets and processes made inside keep belonging to the namespace after the thread has left it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import signal
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MTU = 1500
DEVICE = "link0"
CLONE_NEWNET = 0x40000000
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
NETNS_DIR = Path("/run/netns")
NAME_PATTERN = re.compile(r"raptor-(\d+)-\d+-(client|server)")

# Linux's own defaults, written out because a new namespace inherits what this machine happens to be tuned to.
SYSCTLS = {
    "net/ipv4/tcp_no_metrics_save": "1",
    "net/ipv4/tcp_rmem": "4096 131072 6291456",
    "net/ipv4/tcp_wmem": "4096 16384 4194304",
    "net/ipv4/tcp_slow_start_after_idle": "1",
    "net/ipv4/tcp_ecn": "2",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    """One end of a link: a host of its own with one address on one TUN device."""

    name: str
    address: str

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the namespace for the time of the block."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            with open(NETNS_DIR / self.name) as there:
                _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def popen(self, argv: list[str], **options: Any) -> subprocess.Popen[Any]:
        """`subprocess.Popen` inside the namespace; whatever still runs when the link is closed is killed."""
        with self.entered():
            return subprocess.Popen(argv, **options)

    def use_congestion_control(self, name: str, peer: str) -> None:
        """Make `name` the TCP congestion control for everything sent to `peer`.

        By route: the sysctl accepts, outside the first namespace, only algorithms that the machine allows to ordinary users.
        """
        with self.entered():
            _ip("route", "replace", peer, "dev", DEVICE, "src", self.address, "congctl", name)

    def make_realtime(self) -> None:
        """Put every thread that runs in the namespace now under SCHED_RR, below the router: what waits for packets need not wait
        for this machine's other work. Threads and processes that they start inherit it. Quiet where it is not allowed."""
        for pid in _pids(self.name):
            with contextlib.suppress(OSError):
                for task in Path("/proc", pid, "task").iterdir():
                    os.sched_setscheduler(int(task.name), os.SCHED_RR, os.sched_param(1))


def create_namespace(name: str, address: str, peer: str) -> tuple[Namespace, int]:
    """Make a namespace whose only way out is a TUN device; returns it with the device's descriptor.

    Offloads are off: the kernel cuts segments and computes checksums before the device, so that loss hits single packets.
    """
    _ip("netns", "add", name)
    namespace = Namespace(name, address)
    with namespace.entered():
        for key, value in SYSCTLS.items():
            path = Path("/proc/sys", key)
            if path.exists():
                path.write_text(value)
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
        fcntl.ioctl(fd, TUNSETOFFLOAD, 0)
        _ip("link", "set", "lo", "up")
        # The device's own queue must not be the one that drops.
        _ip("link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", "20000", "up")
        _ip("addr", "add", address, "peer", peer, "dev", DEVICE)
    return namespace, fd


def delete_namespace(name: str) -> None:
    """End every process in the namespace and delete it; quiet when it is gone already."""
    if NAME_PATTERN.fullmatch(name) is None:
        raise ValueError(f"{name} is not a namespace of ours")
    if not (NETNS_DIR / name).exists():
        return
    for pid in _pids(name):
        if int(pid) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def sweep() -> list[str]:
    """Delete the namespaces of processes that no longer live; returns their names."""
    stale = []
    for path in sorted(NETNS_DIR.glob("raptor-*")) if NETNS_DIR.exists() else []:
        match = NAME_PATTERN.fullmatch(path.name)
        if match and not Path("/proc", match[1]).exists():
            delete_namespace(path.name)
            stale.append(path.name)
    return stale


def _pids(name: str) -> list[str]:
    return subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split()


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns: " + os.strerror(ctypes.get_errno()))


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
