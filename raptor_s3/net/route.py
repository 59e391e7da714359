"""The way to an endpoint: its addresses by turns, the socket to the present one, and what the kernel has no room for yet.

Sessions survive a change of address: the peer follows (roaming). A datagram that waits when that happens is lost.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from raptor_s3.net.udp import Socket

if TYPE_CHECKING:
    from raptor_s3.net.lookup import Address

_log = logging.getLogger(__name__)


class Route:
    """`socket` is None once it is closed; `descriptor` is its own, and changes with the address."""

    def __init__(self, url: str, addresses: list[Address], preferred: str | None = None) -> None:
        """Begins with the `preferred` address, if it is one of them. Raises OSError when there is no way to any."""
        self._url = url
        self._addresses = addresses
        self._index = next((i for i, (_, place) in enumerate(addresses) if place[0] == preferred), 0) - 1
        self._failed: set[int] = set()
        self.socket: Socket | None = None
        self.descriptor = -1
        self.unsent = memoryview(b"")
        """The rest of a train."""
        self._unsent_size = 0
        self.is_blocked = False
        """The kernel had no room: wait until the socket can be written."""
        self.wants_addresses = False
        """Nobody answered: the endpoint may have moved."""
        self.next_address()

    @property
    def has_choice(self) -> bool:
        return len(self._addresses) > 1

    @property
    def chosen(self) -> str | None:
        """The present one of several addresses."""
        return self._addresses[self._index][1][0] if self.has_choice else None

    def next_address(self) -> None:
        """Open a socket to the next of the addresses, if there is a way to any of them."""
        for _ in self._addresses:
            self._index = (self._index + 1) % len(self._addresses)
            if self._index in self._failed:
                continue
            opened = self._open()
            if opened is not None:
                self._replace_socket(opened)
                return
        if self.socket is None:
            raise OSError("no way to the endpoint")

    def leave_address(self) -> bool:
        """The present address refuses: go on to one that has not, yet. False when all have: begin again with the next."""
        self._failed.add(self._index)
        self.next_address()
        if self._index not in self._failed:
            return True
        self.forget_failures()
        self.next_address()
        return False

    def follow_host(self) -> None:
        """Another socket, if this host has another address by now: a connected one keeps the address that it began with."""
        opened = self._open() if self.socket is not None else None
        if opened is None or self.socket is None:
            return
        if opened.local_address()[0] == self.socket.local_address()[0]:
            opened.close()
        else:
            self._replace_socket(opened)

    def _open(self) -> Socket | None:
        """A socket to the present address, if there is a way."""
        try:
            return Socket(self._addresses[self._index])
        except OSError as error:
            _log.debug("%s: %s", self._url, error)
            return None

    def _replace_socket(self, opened: Socket) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket = opened
        self.descriptor = opened.fileno()
        self.drop_unsent()

    def drop_unsent(self) -> None:
        self.unsent = self.unsent[:0]
        self.is_blocked = False

    def forget_failures(self) -> None:
        """There was an answer, or nobody asks any more."""
        self._failed.clear()

    def set_addresses(self, addresses: list[Address]) -> None:
        """The endpoint's name was looked up again."""
        self.wants_addresses = False
        if addresses != self._addresses:
            self._addresses = addresses
            self._index = -1
            self.forget_failures()
            self.next_address()

    def send(self, message: bytes) -> None:
        """One datagram; lost where there is no room. Raises as Socket.send does."""
        if self.socket is not None:
            self.socket.send(message)

    def send_train(self, train: memoryview, size: int) -> bool:
        """Equal datagrams of `size` octets, back to back; `train` may not change before all have left. False: some `unsent`."""
        self._unsent_size = size
        self.unsent = train
        return self.send_rest()

    def send_rest(self) -> bool:
        """Go on with the train."""
        train, self.unsent = self.unsent, self.unsent[:0]
        if self.socket is None:
            return True
        sent = self.socket.send_train(train, self._unsent_size)
        self.unsent = train[sent:]
        self.is_blocked = bool(self.unsent)
        return not self.is_blocked

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None
