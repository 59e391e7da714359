"""Counters of a stored session, reserved ahead in ranges that no two processes share.

The receiver's window is 8,128 wide (RFC 6479). A process that rests on its range while others send would fall out of
it, so a range is good for LEASE_VALID_S only; then a look at the file tells how far the others have come, and a range
that lags too far is thrown away.

A put that has begun must not suffer when the directory is in trouble (removed, read-only, locked by a process that was
stopped): the next range is taken long before one is used up, a larger one while nobody else takes any, what is held is used
up in any case, and some counters are kept for what is sealed after that: a cancel.

Invariants: the file's `next` is advanced, under the lock, before any counter below it is used. A file that tells of less than
was reserved from it before is not believed.
"""

from __future__ import annotations

import errno
import os
import weakref
from typing import TYPE_CHECKING, Final

from raptor_s3.errors import ConfigError, SessionExpired
from raptor_s3.net import session_file
from raptor_s3.net.runtime_dir import LOCK_TIMEOUT_S, locked, open_private, read_private
from raptor_s3.net.session_file import COUNTERS_OFFSET, Counters
from raptor_s3.wireguard.constants import REJECT_AFTER_MESSAGES, WINDOW_SIZE
from raptor_s3.wireguard.counters import Reservation

if TYPE_CHECKING:
    from raptor_s3.wireguard.session import Session

MIN_LEASE: Final = 64
MAX_LEASE: Final = 1024
MAX_LEASE_ALONE: Final = 3072
"""Less than MAX_LAG: who comes in next does not find us out of the window."""
KEPT: Final = 16
PATIENCE_S: Final = 1.0
"""How long a put that has begun waits for the lock, when it has no counters left."""
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
        self._low = 0  # with fewer left, it is time for the next range
        self._kept = (0, 0)  # the counters that end the range reserved last: ours, but not in CounterRange's hands
        self._has_refused = False
        self._locked_since: float | None = None
        self._session: weakref.ref[Session] | None = None

    def attach(self, session: Session) -> None:
        """Save this session's highest received counter whenever a range is reserved."""
        self._session = weakref.ref(session)

    def begin(self, first: int, now: float) -> Reservation:
        """The range that is reserved by a file whose `next` is MIN_LEASE more than `first`, before anybody else may see it."""
        return self._grant(first, first + MIN_LEASE, MIN_LEASE, now)

    def reserve(self, held: Reservation, count: int, now: float) -> Reservation:
        """`held` if it is still good for `count` counters, else a new range.

        Raises SessionExpired when the store has no more for this session.
        """
        is_enough = held.end - held.next >= count
        wait_s = LOCK_TIMEOUT_S
        try:
            if is_enough:
                if self._locked_since is not None:
                    wait_s = 0.0
                # Without the lock: what is damaged or missing here is looked at again with it. What is held is ours anywhere.
                counters = self._parse(read_private(self._paths[0], session_file.SIZE))
                if counters is not None and self._is_near(held, counters):
                    if held.end - held.next >= self._low:
                        return self._extend(held, now)
                    wait_s = 0.0  # there is time: now, or in LEASE_VALID_S
            elif held.end and not self._has_refused:
                waited_s = 0.0 if self._locked_since is None else now - self._locked_since
                wait_s = max(LOCK_TIMEOUT_S, PATIENCE_S - max(waited_s, 0.0))
            with locked(self._lock_path, wait_s):
                return self._advance(held, count, now)
        except (OSError, ConfigError) as error:
            if isinstance(error, TimeoutError) and self._locked_since is None:
                self._locked_since = now
            if is_enough:
                return self._extend(held, now)
            return self._last_of(held, count, now, error)

    def _advance(self, held: Reservation, count: int, now: float) -> Reservation:
        is_there = False
        for path in self._paths:
            try:
                descriptor = open_private(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            is_there = True
            try:
                counters = self._parse(session_file.read_from(descriptor))
                if counters is not None:
                    return self._reserve_in(descriptor, counters, held, count, now)
            finally:
                os.close(descriptor)
        if not is_there:
            raise FileNotFoundError(errno.ENOENT, "the stored session is gone", self._paths[0])
        raise SessionExpired("the stored session was replaced or damaged")

    def _reserve_in(self, descriptor: int, counters: Counters, held: Reservation, count: int, now: float) -> Reservation:
        self._locked_since = None
        left = held.end - held.next
        if left >= max(count, self._low) and self._is_near(held, counters):
            return self._extend(held, now)
        kept_from, kept_to = self._kept
        if counters.next < kept_to:
            raise SessionExpired("the stored session was turned back")
        # Nobody else has reserved since: go on where we are, without a gap.
        is_alone = held.end == kept_from and kept_to == counters.next
        first = held.next if is_alone else counters.next
        size = min(self._size, MAX_LEASE_ALONE if is_alone else MAX_LEASE)
        end = max(counters.next, first + max(size, count) + KEPT)
        if end > REJECT_AFTER_MESSAGES:
            raise SessionExpired("the stored session has used up its counters")
        session = self._session() if self._session else None
        received = max(counters.highest_received, session.highest_received if session else -1)
        _overwrite(descriptor, Counters(end, received))
        self._low = size - size // 4 if is_alone else size // 2
        return self._grant(first, end, size, now)

    def _grant(self, first: int, end: int, size: int, now: float) -> Reservation:
        self._kept = (end - KEPT, end)
        self._size = min(size * 2, MAX_LEASE_ALONE)
        self._has_refused = False
        return Reservation(first, end - KEPT, now + LEASE_VALID_S)

    def _last_of(self, held: Reservation, count: int, now: float, error: Exception) -> Reservation:
        """What was kept, once it is known that there is nothing else: the first refusal makes the put look for other keys."""
        first, end = self._kept
        if not self._has_refused or count > 1 or first == end:
            self._has_refused = True
            raise SessionExpired(f"no counters can be reserved: {error}") from error
        self._kept = (end, end)
        return Reservation(held.next if held.end == first else first, end, now + LEASE_VALID_S)

    def _is_near(self, held: Reservation, counters: Counters) -> bool:
        """Whether the receiver still takes what is held."""
        return self._kept[1] <= counters.next <= held.next + MAX_LAG

    @staticmethod
    def _extend(held: Reservation, now: float) -> Reservation:
        return held._replace(valid_until=now + LEASE_VALID_S)

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
