"""The put that has an endpoint to itself, as long as it has: sent at once, and done with the answer (`transfer.lone`).

    send(put, now) -> confirm(state, now);  or, when anything else happens:  build() -> go_on()

Invariant: what has left is in `put` until it is confirmed, or a transfer has taken over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raptor_s3.errors import WireGuardError
from raptor_s3.transfer import lone
from raptor_s3.transfer.outcome import PutOutcome, TransferStats
from raptor_s3.wire.transfer_state import StateType

if TYPE_CHECKING:
    from raptor_s3.net.channel import Channel
    from raptor_s3.net.put import Put
    from raptor_s3.net.route import Route
    from raptor_s3.transfer.sender import Sender
    from raptor_s3.wire.transfer_state import TransferState

COMPANY: Final = 32
"""For so many puts after one was alone and then was not, nobody tries to be: to build a put twice would cost more."""
_COMPLETE: Final = StateType.COMPLETE


class Alone:
    """Not thread-safe. Whoever waits for `put` leads: nobody has to be told that it has ended."""

    def __init__(self, sender: Sender, channel: Channel, route: Route) -> None:
        self._sender = sender
        self._channel = channel
        self._route = route
        self.put: Put | None = None
        """If it is built already, `go_on` was interrupted: nothing else is to be done about it."""
        self.company = 0
        """How many puts are to come before one tries again."""

    def send(self, put: Put, now: float) -> bool:
        """Send a put of one datagram that has nothing to wait for, and need not wait. False: nothing has left."""
        channel, route = self._channel, self._route
        sealer, socket = channel.fresh, route.socket
        if (
            put.is_built
            or self.put is not None
            or self.company
            or now >= channel.fresh_until
            or route.unsent
            or sealer is None
            or socket is None
        ):
            return False
        datagram = lone.lone_datagram(self._sender, put.request, put.started_at, now)
        if datagram is None:
            return False
        put.datagram, put.sealer, put.sent_at = datagram, sealer, now
        put.due = now + self._sender.path.rtt.timeout_s
        self.put = put  # before it leaves: who is interrupted then has to take it back
        try:
            if socket.send(sealer.seal(datagram, now)):
                return True  # if the host has refused an earlier one, it will refuse this one too, and the next read is told
        except (OSError, WireGuardError):
            pass
        self.put = put.sealer = None
        return False

    def confirm(self, put: Put, state: TransferState, now: float) -> bool:
        """Whether this state, which is about `put`, is all that it has waited for."""
        if state.type is not _COMPLETE or state.sbn or put.is_built:
            return False
        lone.confirm(self._sender, len(put.datagram), put.sent_at, now)
        stats = TransferStats()
        stats.datagrams_sent = stats.source_symbols = 1
        stats.rtt_s = now - put.sent_at
        put.result = PutOutcome(state.fields or {}, stats)
        self.put = None
        put.is_done = True
        return True

    def build(self, put: Put) -> None:
        """Make the transfer that it would have been."""
        if not put.is_built:
            put.build(lone.transfer_of(self._sender, put.request, put.started_at, put.datagram))

    def go_on(self, put: Put) -> None:
        """The transfer takes over. Interrupted, this can be done again."""
        lone.go_on(self._sender, put.transfer, put.sent_at)
        self.put = None
