"""Whose fault a silence is: the keys', because the peer has them no more; the datagrams', because the path takes none of their
length (RFC 8899: a black hole); or neither's, because something behind the peer is slow.

Invariants: keys are doubted at most once in DEAD_AGAIN_S, and less and less often while nothing is heard. What is known of the
size changes on proof only: where datagrams of one length were answered, and longer ones of the same put were not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raptor_s3.net import clock
from raptor_s3.net.datagram_size import LEAST, DatagramSize, next_below

if TYPE_CHECKING:
    from raptor_s3.net.put import Put
    from raptor_s3.transfer.outgoing import OutgoingTransfer

DEAD_AFTER: Final = 2
"""Unanswered questions in a row after which the session may be dead: shake hands beside them."""
LOST_AFTER: Final = 3
"""Unanswered questions in a row that are no chance, where a ping is answered; each is of more datagrams than the one before."""
DEAD_AGAIN_S: Final = 1.0
"""Where the new session is not answered either, the silence may have other reasons (a function that starts): so long until
the next handshake, and twice as long each time."""
BLACK_HOLE_S: Final = 0.1
"""A gateway that has just begun, or just stalled, may be silent for some timeouts of a short path."""
PING_PAUSE_S: Final = 0.1
"""One answer serves all puts; and pings are not paced."""
_NEVER: Final = float("inf")


class Doubt:
    """When something was last received under any keys (`heard_at`), when the last ping was sent (`pinged_at`), when the answer to
    one came (`ping_answered_at`), and when there were new keys (`renewed_at`)."""

    def __init__(self, size: DatagramSize) -> None:
        self.size = size
        self.heard_at = self.pinged_at = self.ping_answered_at = self.renewed_at = self._doubted_at = -_NEVER
        self._pause_s = DEAD_AGAIN_S / 2

    def keys_may_be_dead(self, transfer: OutgoingTransfer, now: float, timeout_s: float) -> bool:
        """Of this one's questions in vain; `timeout_s` is the path's. True: they are taken for dead."""
        if transfer.silences < DEAD_AFTER or now - self._doubted_at < self._pause_s:
            return False
        if self.heard_at <= self._doubted_at:
            self._pause_s *= 2
        elif now - self.heard_at < 2 * timeout_s:
            return False
        else:
            self._pause_s = DEAD_AGAIN_S
        self._doubted_at = now
        return True

    def note_silence(self, put: Put, now: float) -> None:
        """One more question of this put in vain."""
        if put.silent_since == _NEVER and put.transfer.silences >= (DEAD_AFTER if put.is_heard else 1):
            put.silent_since = now

    def wants_ping(self, put: Put, now: float) -> bool:
        """Whether it is to be found out if anything short passes. Receivers of bare objects need not know pings."""
        return (
            put.transfer.request.fields is not None
            and now - self.pinged_at >= PING_PAUSE_S
            and self.ping_answered_at <= put.silent_since
            and self._may_be_too_long(put)
        )

    def blames_size(self, put: Put, now: float) -> bool:
        """Whether something short has passed since this put's datagrams did not."""
        passed_at = self.renewed_at if put.transfer.request.fields is None else self.ping_answered_at
        is_long = put.transfer.silences >= LOST_AFTER and now - put.silent_since >= BLACK_HOLE_S
        return is_long and passed_at > put.silent_since and self._may_be_too_long(put)

    def _may_be_too_long(self, put: Put) -> bool:
        return put.silent_since < _NEVER and put.transfer.datagram_size > LEAST and put.transfer.may_have_vanished

    def shorten(self, put: Put, *, is_known: bool) -> bool:
        """Choose smaller datagrams for this put, and for all where that `is_known`. False: there are none."""
        size = put.transfer.datagram_size
        put.max_datagram = next_below(size)
        put.is_trial = not is_known
        if is_known:
            self.size.limit(put.max_datagram, clock.wall_time())
        return size > put.max_datagram

    def try_shorter(self, put: Put) -> bool:
        """Of a put whose cancel was acknowledged: whether to begin it again with smaller datagrams."""
        if not (put.shorter or put.is_heard or put.cause) and self.ping_answered_at > put.silent_since:
            # At the end of its blind part: of all its datagrams, the cancel is the first that arrived, and the only short one.
            put.shorter = put.is_replacement = self.shorten(put, is_known=False)
        return put.shorter

    def was_heard(self, put: Put, now: float) -> None:
        """A symbol of this put has arrived: datagrams of its size do."""
        put.silent_since = _NEVER
        put.is_heard = True
        if put.is_trial:
            put.is_trial = False
            self.size.suspect(put.max_datagram, put.started_at, now, clock.wall_time())
        elif put.transfer.datagram_size > (self.size.suspected or self.size.octets):
            self.size.allow(put.transfer.request.max_datagram)
