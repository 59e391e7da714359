"""One bound UDP socket: batches of datagrams in (GRO), batches out (GSO), addresses in their plain form.

Invariant: nothing here blocks, and nothing here raises for what the network does.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raptor_s3.errors import ConfigError

if TYPE_CHECKING:
    from raptor_s3.gateway.stats import Stats

_log = logging.getLogger(__name__)

# linux/udp.h, asm-generic/socket.h; Python's socket module has none of them.
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = 8

RECEIVE_BUFFER: Final = 8 << 20
_BUFFER: Final = 65_536
_CONTROL: Final = 128
_TIMESPEC: Final = struct.Struct("@ll")
MAX_SEGMENTS: Final = 64
_MAX_GSO_BYTES: Final = 65_000


class Burst(NamedTuple):
    """Datagrams of one source, back to back, `segment` octets each, the last one perhaps shorter.

    `octets` is a view that the next `receive` overwrites. `age_s`: how long it lay in the kernel; a time to live runs
    from its arrival there, however late we look (docs/transport.md, "No stale overwrite").
    """

    octets: memoryview
    segment: int
    source: Any
    age_s: float


class Endpoint:
    """A socket that is bound to `host`:`port` (0: any port). Raises ConfigError when it can't be."""

    def __init__(self, host: str, port: int, *, is_plaintext: bool, stats: Stats) -> None:
        self.is_plaintext = is_plaintext
        self._stats = stats
        self._socket = _bind(host, port)
        self.host, self.port = self._socket.getsockname()[:2]
        self._receive_into = self._socket.recvmsg_into
        self._buffers = [bytearray(_BUFFER)]
        self._view = memoryview(self._buffers[0])
        self._outgoing: list[tuple[Any, bytes]] = []
        self._has_gso = _set(self._socket, _SOL_UDP, _UDP_GRO, 1)
        if sys.platform == "linux":
            _set(self._socket, socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'udp' if self.is_plaintext else 'wg'}://{host}:{self.port}"

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Burst | None:
        """What one system call brings; None when the socket is empty."""
        try:
            size, control, _, source = self._receive_into(self._buffers, _CONTROL)
        except BlockingIOError:
            return None
        except OSError as error:  # an ICMP error of an earlier send, on systems that report it here
            _log.debug("receive: %s", error)
            return None
        segment, age_s = size or 1, 0.0
        for level, kind, data in control:
            if level == _SOL_UDP and kind == _UDP_GRO:
                segment = int.from_bytes(data[:2], sys.byteorder) or segment
            elif kind == _SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                age_s = max(0.0, time.time() - seconds - nanoseconds * 1e-9)
        stats = self._stats
        stats.received += -(-size // segment) or 1
        stats.received_bytes += size
        stats.dropped_malformed += not size
        return Burst(self._view[:size], segment, source, age_s)

    def send(self, message: bytes, destination: Any) -> None:
        """Queue a datagram for `flush`."""
        self._outgoing.append((destination, message))

    def flush(self) -> None:
        """Send what is queued; equal sizes to one destination leave in one system call where the kernel can."""
        outgoing = self._outgoing
        if not outgoing:
            return
        self._outgoing = []
        start = 0
        while start < len(outgoing):
            destination, message = outgoing[start]
            end = start + 1
            if self._has_gso:
                limit = min(len(outgoing), start + min(MAX_SEGMENTS, max(1, _MAX_GSO_BYTES // max(1, len(message)))))
                while end < limit and outgoing[end][0] == destination and len(outgoing[end][1]) == len(message):
                    end += 1
            if end - start == 1 or not self._send_segments([message for _, message in outgoing[start:end]], destination):
                for _, single in outgoing[start:end]:
                    self._send_one(single, destination)
            start = end

    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because the socket's buffer was full; 0 where it does not tell."""
        try:
            return int(
                struct.unpack_from("=I", self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36), 4 * _MEMINFO_DROPS)[0]
            )
        except (OSError, struct.error):
            return 0

    def close(self) -> None:
        self._socket.close()

    def _send_segments(self, messages: list[bytes], destination: Any) -> bool:
        control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", len(messages[0])))]
        try:
            self._socket.sendmsg(messages, control, 0, destination)
        except BlockingIOError:
            self._stats.dropped_unsent += len(messages)
        except OSError as error:
            _log.debug("segmented send to %s: %s", destination, error)
            return False
        return True

    def _send_one(self, message: bytes, destination: Any) -> None:
        try:
            self._socket.sendto(message, destination)
        except OSError as error:
            _log.debug("send to %s: %s", destination, error)
            self._stats.dropped_unsent += 1


def _bind(host: str, port: int) -> socket.socket:
    shown = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
    except OSError as error:
        raise ConfigError(f"--listen {shown}: {error.strerror or error}") from None
    sock = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            _set(sock, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if not _set(sock, socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER):
            _set(sock, socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise ConfigError(f"--listen {shown}: {error.strerror or error}") from None
    return sock


def _set(sock: socket.socket, level: int, option: int, value: int) -> bool:
    with contextlib.suppress(OSError):
        sock.setsockopt(level, option, value)
        return True
    return False


def plain_address(source: Any) -> tuple[str, int]:
    """Host and port of a socket address; IPv4 in IPv6 clothes (RFC 4291 2.5.5.2) as IPv4."""
    host: str = source[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return host, source[1]
