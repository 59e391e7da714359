"""When a link shakes hands, with which of the endpoint's addresses, and for how long.

Invariant: one that came to nothing is not begun again within HANDSHAKE_PAUSE_S for puts that have begun: they must wait for their
end anyhow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from raptor_s3.net.channel import Channel
    from raptor_s3.net.route import Route

HANDSHAKE_PAUSE_S: Final = 0.35


class Handshaking:
    """`may_begin_at`: when puts that have begun may ask for the next handshake."""

    def __init__(self, channel: Channel, route: Route, timeout_s: float, now: float) -> None:
        self._channel = channel
        self._route = route
        self._timeout_s = timeout_s
        self.may_begin_at = now

    def get_timer(self) -> float:
        """Of a handshake that is under way."""
        return min(self._channel.get_timer(), self._ends_at)

    @property
    def _ends_at(self) -> float:
        return self._channel.handshake_started_at + self._timeout_s

    def find_again(self, now: float) -> None:
        """Nobody has looked after the one that is under way for a while: a new put is to have a whole one."""
        if now >= self._ends_at:
            self._channel.abandon_handshake()
        else:
            self._channel.handshake_was_left()

    def go_on(self, now: float, *, has_session: bool) -> bool:
        """Begin one, or go on with it. False: it has come to nothing. Raises OSError when nothing can be sent."""
        channel, route = self._channel, self._route
        was_handshaking = channel.is_handshaking
        if was_handshaking and now >= self._ends_at:
            channel.abandon_handshake()
            if not has_session:
                self.may_begin_at = now + HANDSHAKE_PAUSE_S
                route.forget_failures()
                route.next_address()
                route.wants_addresses = True
            return False
        message = channel.handshake(now)
        if message is not None and was_handshaking and not has_session and route.has_choice:
            route.next_address()  # the one before did not answer the last initiation
        if message is None:
            message = channel.repetition(now)
        if message is not None:
            route.send(message)
        return True

    def leave_address(self, now: float) -> bool:
        """The present address refuses. False: so have all, and this handshake has come to nothing."""
        self._channel.abandon_handshake()
        if self._route.leave_address():
            return True
        self.may_begin_at = now + HANDSHAKE_PAUSE_S
        return False
