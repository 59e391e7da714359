"""wireguard-go in a network namespace of its own, and UDP sockets of ours beside it.

Everything lives on the namespace's loopback: outer datagrams travel between 127.0.0.0/8 addresses, inner packets through
wireguard-go's TUN device. Sockets are opened by a thread that visits the namespace; they stay there when it comes back.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from raptor_s3.wireguard.keys import key_to_base64

TUN_ADDRESS = "10.99.0.1"
PEER_ADDRESS = "10.99.0.2"
LISTEN_PORT = 51820

_CLONE_NEWNET = 0x40000000
_TOOLS = ("wireguard-go", "wg", "ip")
_PACKAGES = ("wireguard-go", "wireguard-tools", "iproute2")
_numbers = itertools.count()

T = TypeVar("T")


def why_unavailable() -> str | None:
    """Why these tests can't run here, or None. In CI the packages are installed first."""
    if os.geteuid() != 0:
        return "needs root for a network namespace"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    if _missing() and (os.environ.get("RAPTOR_TEST_APT") == "1" or os.environ.get("CI") == "true"):
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *_PACKAGES]):
            subprocess.run(["apt-get", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300, check=False)
    if missing := _missing():
        return f"needs {', '.join(missing)} (Debian: {' '.join(_PACKAGES)}; RAPTOR_TEST_APT=1 installs them)"
    return None


class WireGuardGo:
    """One device, `name`, with one peer: us."""

    def __init__(self) -> None:
        unique = f"{os.getpid():x}-{next(_numbers)}"
        self.namespace = f"raptor-wg-{unique}"
        self.name = f"rwg{os.getpid() % 100000}x{next(_numbers)}"  # the UAPI sockets of all namespaces share one directory
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> WireGuardGo:
        _run("ip", "netns", "add", self.namespace)
        try:
            self.run("ip", "link", "set", "lo", "up")
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "wireguard-go", "-f", self.name],
                env={**os.environ, "LOG_LEVEL": "error", "WG_PROCESS_FOREGROUND": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _wait(lambda: os.path.exists(f"/var/run/wireguard/{self.name}.sock"))
            self.run("ip", "address", "add", f"{TUN_ADDRESS}/24", "dev", self.name)
            self.run("ip", "link", "set", self.name, "mtu", "1420", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._sockets:
            opened.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False, capture_output=True)

    def configure(
        self,
        private_key: bytes,
        peer_public_key: bytes,
        *,
        preshared_key: bytes | None = None,
        endpoint: tuple[str, int] | None = None,
    ) -> None:
        """Set the keys, and the peer's address if wireguard-go is to start the handshake."""
        lines = [
            "[Interface]",
            f"PrivateKey = {key_to_base64(private_key)}",
            f"ListenPort = {LISTEN_PORT}",
            "[Peer]",
            f"PublicKey = {key_to_base64(peer_public_key)}",
            f"AllowedIPs = {PEER_ADDRESS}/32",
        ]
        if preshared_key is not None:
            lines.append(f"PresharedKey = {key_to_base64(preshared_key)}")
        if endpoint is not None:
            lines.append(f"Endpoint = {endpoint[0]}:{endpoint[1]}")
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            self.run("wg", "setconf", self.name, file.name)

    def run(self, *command: str) -> str:
        return _run("ip", "netns", "exec", self.namespace, *command)

    def udp_socket(self, address: str = "127.0.0.1", port: int = 0, timeout_s: float = 3.0) -> socket.socket:
        """A UDP socket inside the namespace."""
        opened = self._inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._sockets.append(opened)
        opened.bind((address, port))
        opened.settimeout(timeout_s)
        return opened

    def _inside(self, function: Callable[[], T]) -> T:
        results: list[T] = []

        def visit() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            descriptor = os.open(f"/var/run/netns/{self.namespace}", os.O_RDONLY)
            try:
                if libc.setns(descriptor, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(descriptor)
            results.append(function())

        thread = threading.Thread(target=visit)
        thread.start()
        thread.join()
        return results[0]


@contextlib.contextmanager
def running(**configuration: object) -> Iterator[WireGuardGo]:
    with WireGuardGo() as device:
        device.configure(**configuration)  # type: ignore[arg-type]
        yield device


def inner_packet(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """An IPv4 packet with a UDP datagram: all that wireguard-go lets through its tunnel."""
    udp = struct.pack("!HHHH", source[1], destination[1], 8 + len(data), 0) + data
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(udp),
        0,
        0,
        64,
        socket.IPPROTO_UDP,
        0,
        socket.inet_aton(source[0]),
        socket.inet_aton(destination[0]),
    )
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:] + udp


def inner_data(packet: bytes) -> bytes:
    """The UDP payload of an IPv4 packet; padding behind it (wireguard-go pads to 16) is cut off."""
    header_size = (packet[0] & 15) * 4
    length = int.from_bytes(packet[header_size + 4 : header_size + 6], "big")
    return packet[header_size + 8 : header_size + length]


def _missing() -> list[str]:
    return [tool for tool in _TOOLS if shutil.which(tool) is None]


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def _wait(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("wireguard-go did not come up")
        time.sleep(0.01)
