"""Counters of a stored session, reserved ahead in ranges that no two processes share.

The receiver's window is 8,128 wide (RFC 6479). A process that rests on its range while others send would fall out of
it, so a range is good for LEASE_VALID_S only; then a look at the file tells how far the others have come, and a range
that lags too far is thrown away.

Invariant: the file's `next` is advanced, under the lock, before any counter below it is used.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Final

from raptor_s3.errors import ConfigError, SessionExpired
from raptor_s3.net import session_file
from raptor_s3.net.runtime_dir import locked, open_private, read_private
from raptor_s3.net.session_file import COUNTERS_OFFSET, Counters
from raptor_s3.wireguard.constants import REJECT_AFTER_MESSAGES, WINDOW_SIZE
from raptor_s3.wireguard.counters import Reservation

if TYPE_CHECKING:
    from raptor_s3.wireguard.session import Session

MIN_LEASE: Final = 64
MAX_LEASE: Final = 1024
LEASE_VALID_S: Final = 0.02
# Half of the window is for the others' datagrams of the next LEASE_VALID_S, and for reordering on the way.
MAX_LAG: Final = WINDOW_SIZE // 2


class CounterLease:
    """The source of one process's ranges for one stored session; `reserve` is what CounterRange calls."""

    def __init__(self, paths: tuple[str, str], lock_path: str, identity: bytes) -> None:
        """`paths`: the session's file, and where it goes when a newer one takes its place.

        `identity`: the first COUNTERS_OFFSET octets of the file.
        """
        self._paths = paths
        self._lock_path = lock_path
        self._identity = identity
        self._size = MIN_LEASE
        self._session: weakref.ref[Session] | None = None

    def attach(self, session: Session) -> None:
        """Save this session's highest received counter whenever a range is reserved."""
        self._session = weakref.ref(session)

    def reserve(self, held: Reservation, count: int, now: float) -> Reservation:
        """`held` if it is still good for `count` counters, else a new range.

        Raises SessionExpired when the store has no more for this session.
        """
        try:
            if held.end - held.next >= count:
                # Without the lock: what is damaged or missing here is looked at again with it.
                counters = self._parse(read_private(self._paths[0], session_file.SIZE))
                if counters is not None and counters.next - held.next <= MAX_LAG:
                    return held._replace(valid_until=now + LEASE_VALID_S)
            with locked(self._lock_path):
                return self._advance(held, count, now)
        except (OSError, ConfigError) as error:
            raise SessionExpired(f"no counters can be reserved: {error}") from error

    def _advance(self, held: Reservation, count: int, now: float) -> Reservation:
        for path in self._paths:
            try:
                descriptor = open_private(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                counters = self._parse(os.read(descriptor, session_file.SIZE))
                if counters is not None:
                    return self._reserve_in(descriptor, counters, held, count, now)
            finally:
                os.close(descriptor)
        raise SessionExpired("the stored session is gone or damaged")

    def _reserve_in(self, descriptor: int, counters: Counters, held: Reservation, count: int, now: float) -> Reservation:
        # Nobody else has reserved since: go on where we are, without a gap.
        first = held.next if held.next < held.end == counters.next else counters.next
        if counters.next - first >= count:
            return held._replace(valid_until=now + LEASE_VALID_S)
        end = counters.next + max(self._size, count - (counters.next - first))
        if end > REJECT_AFTER_MESSAGES:
            raise SessionExpired("the stored session has used up its counters")
        session = self._session() if self._session else None
        received = max(counters.highest_received, session.highest_received if session else -1)
        _overwrite(descriptor, Counters(end, received))
        self._size = min(self._size * 2, MAX_LEASE)
        return Reservation(first, end, now + LEASE_VALID_S)

    def _parse(self, content: bytes | None) -> Counters | None:
        if content is None or not content.startswith(self._identity):
            return None
        return Counters.parse(content[COUNTERS_OFFSET:])

    @staticmethod
    def note_received(path: str, lock_path: str, session: Session) -> None:
        """Raise the file's highest received counter to `session`'s if it holds that session. Raises OSError, ConfigError."""
        with locked(lock_path):
            try:
                descriptor = open_private(path, os.O_RDWR)
            except FileNotFoundError:
                return
            try:
                content = os.read(descriptor, session_file.SIZE)
                state = session_file.parse(content)
                counters = Counters.parse(content[COUNTERS_OFFSET:])
                if state is None or counters is None or state.send_key != session.export().send_key:
                    return
                if session.highest_received > counters.highest_received:
                    _overwrite(descriptor, counters._replace(highest_received=session.highest_received))
            finally:
                os.close(descriptor)


def _overwrite(descriptor: int, counters: Counters) -> None:
    content = counters.build()
    os.lseek(descriptor, COUNTERS_OFFSET, os.SEEK_SET)
    if os.write(descriptor, content) != len(content):
        raise OSError("short write")
