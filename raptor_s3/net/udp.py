"""One connected UDP socket of a client: trains out (UDP GSO), datagrams in, readiness, and what the kernel has to say.

Invariant: nothing here blocks but `Readiness.wait`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptor_s3.net.lookup import Address

# linux/udp.h, linux/in.h, linux/in6.h; Python's socket module has none of them.
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_DO: Final = 2

BUFFER_BYTES: Final = 4 << 20
_MAX_DATAGRAM: Final = 65_535
_FULL: Final = frozenset((errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM))
_TOO_LONG: Final = frozenset((errno.EMSGSIZE,))
_GSO_REFUSED: Final = frozenset((errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP))
_REFUSED: Final = frozenset((errno.ECONNREFUSED, errno.ECONNRESET))
_is_linux: Final = sys.platform == "linux"


class MessageTooLong(OSError):
    """The datagram does not fit the path's MTU. Nothing of it has left."""


class Socket:
    """Connected to one address. `send` and `receive_into` return at once."""

    def __init__(self, address: Address) -> None:
        """Raises OSError when there is no way to the address."""
        family, destination = address
        self._socket = sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            if _is_linux:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
            sock.connect(destination)
        except OSError:
            sock.close()
            raise
        self._has_gso = _is_linux
        self.was_refused = False
        """The peer's host has refused a datagram (ICMP port unreachable)."""
        self._send = sock.send
        self.receive_into = sock.recv_into
        """Raises BlockingIOError when there is nothing, OSError for an ICMP error of an earlier send."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def local_address(self) -> Any:
        return self._socket.getsockname()

    def send(self, message: bytes | bytearray | memoryview) -> bool:
        """False when the kernel has no room now. Raises MessageTooLong, OSError (no route, refused twice in a row, ...)."""
        try:
            self._send(message)
        except ConnectionRefusedError:
            self.was_refused = True
            return self._send_again(message)
        except OSError as error:
            return self._send_again(message) if error.errno in _TOO_LONG else _explain(error)
        return True

    def _send_again(self, message: bytes | bytearray | memoryview) -> bool:
        """The kernel may have reported an earlier datagram's ICMP error in place of sending this one."""
        try:
            self._send(message)
        except OSError as error:
            return _explain(error)
        return True

    def send_train(self, train: memoryview, size: int) -> int:
        """Send equal datagrams of `size` octets that lie back to back. Returns the octets sent; the rest found no room.

        Raises as `send` does, when the first one fails.
        """
        length = len(train)
        if self._has_gso and length > size:
            try:
                self._socket.sendmsg((train,), ((_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size)),))
                return length
            except OSError as error:
                if error.errno in _FULL:
                    return 0
                if error.errno in _GSO_REFUSED:
                    self._has_gso = error.errno == errno.EINVAL  # EINVAL also stands for segments beyond the MTU
                elif error.errno in _REFUSED:
                    self.was_refused = True  # an earlier datagram's ICMP error; this train has not left
                elif error.errno not in _TOO_LONG:  # that may be an earlier datagram's, too
                    _explain(error)
        sent = 0
        while sent < length:
            try:
                if not self.send(train[sent : sent + size]):
                    return sent
            except OSError:
                if not sent:
                    raise
                return sent
            sent += size
        return sent

    def close(self) -> None:
        self._socket.close()


def _explain(error: OSError) -> bool:
    if error.errno in _FULL:
        return False
    if error.errno in _TOO_LONG:
        raise MessageTooLong(error.errno, error.strerror) from None
    raise error


class Readiness:
    """Waits until a socket can be read (or written), or another thread says `wake`."""

    def __init__(self) -> None:
        self._read_end: Any
        self._write_end: Any
        if hasattr(os, "eventfd"):
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._read_end = self._write_end = None
        else:  # pragma: no cover - macOS, Windows
            self._read_end, self._write_end = socket.socketpair()
            self._read_end.setblocking(False)
            self._write_end.setblocking(False)
            self._event = self._read_end.fileno()
        self.watched = -1
        """The socket, by its descriptor."""
        self._writable = False
        self._poll: Any = None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self._event, select.POLLIN)

    def watch(self, socket_fileno: int) -> None:
        """Watch this socket from now on, instead of the one before it."""
        if self._poll is not None:
            if self.watched >= 0:
                with contextlib.suppress(KeyError):
                    self._poll.unregister(self.watched)
            self._poll.register(socket_fileno, select.POLLIN)
        self.watched = socket_fileno
        self._writable = False

    def wait(self, timeout_s: float, *, writable: bool = False) -> None:
        """Return when there is something to do, at the latest after `timeout_s`."""
        if self._poll is None:  # pragma: no cover - Windows
            select.select([self.watched, self._event], [self.watched] if writable else [], [], max(timeout_s, 0.0))
            self._drain()
            return
        if writable != self._writable:
            self._writable = writable
            self._poll.modify(self.watched, select.POLLIN | select.POLLOUT if writable else select.POLLIN)
        ready: Sequence[tuple[int, int]] = self._poll.poll(timeout_s * 1000 if timeout_s > 0.0 else 0)
        for descriptor, _ in ready:
            if descriptor == self._event:
                self._drain()

    def wake(self) -> None:
        """Make the present `wait`, or the next one, return. From any thread."""
        with contextlib.suppress(OSError):
            if self._write_end is None:
                os.eventfd_write(self._event, 1)
            else:  # pragma: no cover
                self._write_end.send(b"\0")

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            if self._read_end is None:
                os.eventfd_read(self._event)
            else:  # pragma: no cover
                self._read_end.recv(4096)

    def close(self) -> None:
        """May be said again. Not while somebody waits: he would look at whatever gets the descriptor next."""
        if self._read_end is None:
            event, self._event = self._event, -1
            with contextlib.suppress(OSError):
                os.close(event)
        else:  # pragma: no cover
            self._read_end.close()
            self._write_end.close()
