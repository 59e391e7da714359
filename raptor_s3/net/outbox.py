"""Symbols on their way out: written, sealed, and given to the kernel, which may have no room for all of them at once.

Invariant: of a train that had to wait, nothing leaves any more once its transfer may not send: it might be written over what is
newer by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from raptor_s3.net.channel import Sealer
    from raptor_s3.net.route import Route
    from raptor_s3.transfer.outgoing import OutgoingTransfer
    from raptor_s3.transfer.plan import Run
    from raptor_s3.transfer.sender import Sender

_ARENA_BYTES: Final = 1 << 16
_RUN: Final = 64
"""Datagrams at most."""


class Outbox:
    """`overhead`: octets that sealing adds to a datagram."""

    def __init__(self, sender: Sender, route: Route, overhead: int) -> None:
        self._sender = sender
        self._route = route
        self._overhead = overhead
        self._arena = bytearray(_ARENA_BYTES)
        self._sealed = bytearray(_ARENA_BYTES + overhead * _RUN)
        self._view = memoryview(self._sealed)
        self.waiting: OutgoingTransfer | None = None
        """Whose train was the last one."""

    def seal(self, transfer: OutgoingTransfer, run: Run, sealer: Sealer, now: float) -> memoryview:
        """The datagrams of `run`, back to back, until the next call. Raises WireGuardError: none is sealed."""
        size = transfer.datagram_size
        transfer.write(run, self._arena, 0, size)
        return self._view[: sealer.seal_arena(self._arena, run.length, size, size, self._sealed, now)]

    def send(self, transfer: OutgoingTransfer, run: Run, train: memoryview) -> bool:
        """False: some of it waits. Raises as Socket.send does."""
        route = self._route
        if run.length != 1 or route.socket is None or not route.socket.send(train):
            self.waiting = transfer
            if not route.send_train(train, transfer.datagram_size + self._overhead):
                return False
        if transfer.is_unconfirmed:
            self._sender.all_left(transfer)
        return True

    def send_rest(self, now: float) -> bool:
        """Go on with what waits. False: some still does. Raises as Socket.send does."""
        transfer, route = self.waiting, self._route
        if transfer is None or not transfer.may_send(now):
            route.drop_unsent()
            return True
        if not route.send_rest():
            return False
        if transfer.is_unconfirmed:
            self._sender.all_left(transfer)
        return True
