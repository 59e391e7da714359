"""Sessions and learned records outlive a process (docs/wireguard.md): one private directory, shared by the user's processes.

    store = SessionStore()                          the user's directory; SessionStore(None): memory only
    endpoint = endpoint_id(host, port, server_key, client_public_key)
    store.load(endpoint, now)                       -> Session to `Tunnel.adopt`, or None: shake hands
    store.load_newer(endpoint, session, now)        -> what another process has put in place of `session`, or None
    store.claim_handshake(endpoint)                 -> False: another process is shaking hands just now; `load` again soon
    store.release_handshake(endpoint)               it came to nothing
    store.next_unix_time(endpoint, time.time())     -> for `Tunnel.initiation`; greater than any process has used
    store.save(endpoint, session, now)              after HandshakeComplete: its counters come from the store from now on
    store.note_received(endpoint, session)          when a process ends or rests: keeps the highest received counter
    store.forget(endpoint, session)                 the peer does not answer under these keys
    store.load_learned(endpoint), save_learned, update_learned      a JSON object: RTT, loss, rate, breaker

Missing, expired, damaged, copied and other versions' files mean None. A full or read-only disk, or a lock that can't be had,
means working in memory, with one line in the log. Wrong permissions or owners are a ConfigError.

Invariant: no counter is used twice under one key, in whatever order processes start, fork, race, are interrupted and die:
counters are reserved in the file before they are used, from before the moment that others may see it, and ranges that a fork
has copied are revoked in the child.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import struct
import weakref
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import ConfigError
from raptor_s3.net import clock, session_file
from raptor_s3.net.counter_lease import MIN_LEASE, CounterLease
from raptor_s3.net.runtime_dir import (
    default_runtime_dir,
    locked,
    prepare_runtime_dir,
    read_private,
    replace_private,
)
from raptor_s3.wireguard.constants import REJECT_AFTER_TIME
from raptor_s3.wireguard.counters import CounterRange, Reservation
from raptor_s3.wireguard.keys import key_to_base64
from raptor_s3.wireguard.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptor_s3.wireguard.session import SessionState

logger = logging.getLogger(__name__)

DEFAULT: Final = "\0"  # no path contains it
MAX_LEARNED_BYTES: Final = 64 * 1024
# A handshake that takes longer has probably died with its process; a claim that ends later is from before a reboot.
CLAIM_S: Final = 1.0
MAX_CLAIM_S: Final = 30.0

# The content of the lock file: until when a handshake is claimed (`clock.now`), and the greatest Unix time used in an initiation.
_LOCK_STATE: Final = struct.Struct("<dd")
# Initiation timestamps are floats on the way: 1 us is more than their resolution until the year 2242.
_TIMESTAMP_STEP_S: Final = 1e-6
_ENDPOINT_ID = re.compile(r"[A-Za-z0-9._-]{1,200}\Z")

_NOTHING_HELD: Final = Reservation(0, 0, 0.0)

_live_counters: weakref.WeakSet[CounterRange] = weakref.WeakSet()


def endpoint_id(host: str, port: int, server_key: bytes, client_public_key: bytes) -> str:
    """The name of an endpoint's files: where it is and which two keys speak."""
    keys = "-".join(key_to_base64(key)[:16].replace("+", "-").replace("/", "_") for key in (server_key, client_public_key))
    return f"{re.sub(r'[^A-Za-z0-9.-]', '_', host)[:100]}_{port}-{keys}"


class SessionStore:
    """What the processes of one user know about their endpoints. Safe to use from several threads and processes."""

    def __init__(self, directory: str | os.PathLike[str] | None = DEFAULT) -> None:
        """`directory`: made if it is missing; DEFAULT: `default_runtime_dir()`; None: memory only.

        Raises ConfigError (see runtime_dir).
        """
        chosen = default_runtime_dir() if directory == DEFAULT else directory
        self.directory: str | None = None if chosen is None else os.fspath(chosen)
        self._memory: dict[str, dict[str, Any]] = {}
        self._claims: dict[str, float] = {}
        self._has_warned = False
        if self.directory is not None:
            try:
                prepare_runtime_dir(self.directory)
            except OSError as error:
                self._warn(error)
                self.directory = None

    def load(self, endpoint: str, now: float) -> Session | None:
        """The stored session, ready for use, or None. Raises ConfigError for a file that others can read or that is not ours."""
        if self.directory is None:
            return None
        path = self._path(endpoint, "session")
        try:
            content = session_file.read(path)
        except OSError as error:
            self._warn(error)
            return None
        state = session_file.parse(content) if content is not None else None
        if content is None or state is None:
            return None
        state = state._replace(created_at=state.created_at - clock.now() + now)
        if now - state.created_at >= REJECT_AFTER_TIME:
            self._remove(endpoint, content)
            return None
        lease = self._lease(endpoint, state.local_index, content)
        session = Session.restore(state, _shared_counters(lease, _NOTHING_HELD))
        lease.attach(session)
        return session

    def load_newer(self, endpoint: str, session: Session, now: float) -> Session | None:
        """The stored session if it is younger than `session`: another process has shaken hands in the meantime."""
        stored = self.load(endpoint, now)
        if stored is None or stored.local_index == session.local_index or stored.created_at <= session.created_at:
            return None
        return stored

    def save(self, endpoint: str, session: Session, now: float) -> bool:
        """Share a session of ours with the other processes. False: it stays in memory (and can't survive a fork).

        Only for sessions made by a handshake of this process: others are in the store already. Raises ConfigError, and
        ValueError for a responder's. Interrupted, the session may be left without counters.
        """
        if not session.is_initiator:
            raise ValueError("only initiators' sessions are stored")
        if session.counters.is_shared:
            return True
        _live_counters.add(session.counters)
        if self.directory is None or session.counters.is_revoked:
            return False
        private = session.counters

        def share(status: os.stat_result) -> bytes:
            first = private.next
            state = session.export()._replace(created_at=session.created_at - now + clock.now(), next_counter=first + MIN_LEASE)
            content = session_file.build(state, status)
            lease = self._lease(endpoint, state.local_index, content)
            lease.attach(session)
            session.counters = _shared_counters(lease, lease.begin(first, now))
            return content

        try:
            with locked(self._path(endpoint, "lock")) as lock:
                self._retire(endpoint)
                try:
                    replace_private(self._path(endpoint, "session"), share)
                except Exception:
                    # An error may come late, and an interrupt at any time: only who sees that it is not there is alone with it.
                    if not self._may_hold(endpoint, session.export()):
                        session.counters = private
                    raise
                with contextlib.suppress(OSError):  # else the claim ends by itself
                    _write_lock_state(lock, 0.0, _read_lock_state(lock)[1])
        except OSError as error:
            self._warn(error)
        if not session.counters.is_shared:
            return False
        self._sweep()
        return True

    def note_received(self, endpoint: str, session: Session) -> None:
        """Keep the highest received counter, so that a later process refuses what this one has seen.

        Does nothing if the session was replaced.
        """
        if self.directory is not None:
            try:
                CounterLease.note_received(self._path(endpoint, "session"), self._path(endpoint, "lock"), session)
            except OSError as error:
                self._warn(error)

    def forget(self, endpoint: str, session: Session) -> None:
        """Drop the stored session if it still is this one."""
        if self.directory is None:
            return
        try:
            content = read_private(self._path(endpoint, "session"), session_file.SIZE)
        except OSError as error:
            self._warn(error)
            return
        state = session_file.parse(content) if content is not None else None
        if content is not None and state is not None and state.send_key == session.export().send_key:
            self._remove(endpoint, content)

    def claim_handshake(self, endpoint: str, hold_s: float = CLAIM_S) -> bool:
        """True: go ahead (again after `hold_s`, for everybody). False: another process has claimed it less than `hold_s` ago."""
        if self.directory is None:
            return True
        try:
            with locked(self._path(endpoint, "lock")) as lock:
                claimed_until, last_unix_time = _read_lock_state(lock)
                now = clock.now()
                if now < claimed_until <= now + MAX_CLAIM_S:
                    return False
                claimed_until = self._claims[endpoint] = now + min(hold_s, MAX_CLAIM_S)
                _write_lock_state(lock, claimed_until, last_unix_time)
        except OSError as error:
            self._warn(error)
        return True

    def release_handshake(self, endpoint: str) -> None:
        """The handshake that was claimed came to nothing: whoever wants may try again at once."""
        claim = self._claims.pop(endpoint, None)
        if claim is None:
            return
        try:
            with locked(self._path(endpoint, "lock")) as lock:
                claimed_until, last_unix_time = _read_lock_state(lock)
                if claimed_until == claim:
                    _write_lock_state(lock, 0.0, last_unix_time)
        except OSError as error:
            self._warn(error)

    def next_unix_time(self, endpoint: str, unix_time: float) -> float:
        """`unix_time`, or a little more than the greatest that was ever returned for this endpoint, whichever is later."""
        if self.directory is None:
            return unix_time
        try:
            with locked(self._path(endpoint, "lock")) as lock:
                claimed_until, last_unix_time = _read_lock_state(lock)
                unix_time = max(unix_time, last_unix_time + _TIMESTAMP_STEP_S)
                _write_lock_state(lock, claimed_until, unix_time)
        except OSError as error:
            self._warn(error)
        return unix_time

    def load_learned(self, endpoint: str) -> dict[str, Any]:
        """The learned record, {} when there is none or it is damaged. Raises ConfigError."""
        if self.directory is None or endpoint in self._memory:
            return dict(self._memory.get(endpoint, {}))
        try:
            content = read_private(self._path(endpoint, "json"), MAX_LEARNED_BYTES + 1)
        except OSError as error:
            self._warn(error)
            content = None
        return _parse_learned(content)

    def save_learned(self, endpoint: str, learned: Mapping[str, Any]) -> None:
        """Replace the learned record. Raises ConfigError, and ValueError when it is larger than MAX_LEARNED_BYTES or not JSON."""
        content = _build_learned(learned)
        if self.directory is not None:
            try:
                replace_private(self._path(endpoint, "json"), content)
            except OSError as error:
                self._warn(error)
            else:
                self._memory.pop(endpoint, None)
                return
        self._memory[endpoint] = dict(learned)

    def update_learned(self, endpoint: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `changes` into the record, atomically among processes; returns the result. A value of None removes its key.

        Where both together are too large, the changes alone. Raises as `save_learned` does, for the changes.
        """
        with contextlib.ExitStack() as stack:
            if self.directory is not None:
                try:
                    stack.enter_context(locked(self._path(endpoint, "lock")))
                except OSError as error:
                    self._warn(error)
            merged = {**self.load_learned(endpoint), **changes}
            learned = {key: value for key, value in merged.items() if value is not None}
            try:
                self.save_learned(endpoint, learned)
            except ValueError:  # what was there is as good as damaged
                learned = {key: value for key, value in changes.items() if value is not None}
                self.save_learned(endpoint, learned)
        return learned

    def _path(self, endpoint: str, kind: str) -> str:
        if not _ENDPOINT_ID.match(endpoint):
            raise ValueError(f"not an endpoint id: {endpoint!r}")
        return os.path.join(self.directory or "", f"{endpoint}.{kind}")

    def _lease(self, endpoint: str, local_index: int, content: bytes) -> CounterLease:
        paths = (self._path(endpoint, "session"), self._path(endpoint, f"{local_index:08x}.session"))
        return CounterLease(paths, self._path(endpoint, "lock"), content[: session_file.COUNTERS_OFFSET])

    def _may_hold(self, endpoint: str, state: SessionState) -> bool:
        """Whether the files hold this session, or that can't be told."""
        for kind in ("session", f"{state.local_index:08x}.session"):
            try:
                content = read_private(self._path(endpoint, kind), session_file.SIZE + 1)
            except (OSError, ConfigError):
                return True
            if content is not None and state.send_key in content:
                return True
        return False

    def _retire(self, endpoint: str) -> None:
        """Move the present session out of the way: processes in the middle of a transfer go on reserving from it."""
        path = self._path(endpoint, "session")
        content = read_private(path, session_file.SIZE)
        state = session_file.parse(content) if content is not None else None
        if state is not None:
            os.replace(path, self._path(endpoint, f"{state.local_index:08x}.session"))

    def _remove(self, endpoint: str, content: bytes) -> None:
        path = self._path(endpoint, "session")
        try:
            with locked(self._path(endpoint, "lock")):
                current = read_private(path, session_file.SIZE)
                if current is not None and current.startswith(content[: session_file.COUNTERS_OFFSET]):
                    os.unlink(path)
        except OSError as error:
            self._warn(error)

    def _sweep(self) -> None:
        """Remove keys that have expired: they must not lie about longer than they are good for.

        The wall clock may have jumped since a file was written (NTP), so what has not expired by the other one stays.
        """
        if self.directory is None:
            return
        oldest = clock.wall_time() - 2 * REJECT_AFTER_TIME
        with contextlib.suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                if not entry.name.endswith((".session", ".tmp")) or entry.stat(follow_symlinks=False).st_mtime >= oldest:
                    continue
                if entry.name.endswith(".tmp") or not _is_live(entry.path):
                    os.unlink(entry.path)

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("%s: %s; going on in memory only", self.directory, error.strerror or error)


def _shared_counters(lease: CounterLease, held: Reservation) -> CounterRange:
    counters = CounterRange(held.next, held.end, valid_until=held.valid_until, reserve=lease.reserve)
    _live_counters.add(counters)
    return counters


def _is_live(path: str) -> bool:
    try:
        state = session_file.parse(read_private(path, session_file.SIZE) or b"")
    except ConfigError:
        return False
    return state is not None and clock.now() - state.created_at < REJECT_AFTER_TIME


def _revoke_after_fork() -> None:
    for counters in list(_live_counters):
        counters.revoke()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_revoke_after_fork)


def _read_lock_state(descriptor: int) -> tuple[float, float]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    content = os.read(descriptor, _LOCK_STATE.size)
    if len(content) != _LOCK_STATE.size:
        return 0.0, 0.0
    claimed_until, last_unix_time = _LOCK_STATE.unpack(content)
    # NaN and nonsense from a damaged file compare as false.
    return claimed_until if claimed_until > 0 else 0.0, last_unix_time if 0 < last_unix_time < 2**33 else 0.0


def _write_lock_state(descriptor: int, claimed_until: float, last_unix_time: float) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, _LOCK_STATE.pack(claimed_until, last_unix_time))


def _parse_learned(content: bytes | None) -> dict[str, Any]:
    import json

    if content is None or len(content) > MAX_LEARNED_BYTES:
        return {}
    try:
        learned = json.loads(content, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return {}
    return learned if isinstance(learned, dict) else {}


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("no JSON has infinite numbers")
    return value


def _build_learned(learned: Mapping[str, Any]) -> bytes:
    import json

    try:
        content = json.dumps(dict(learned), allow_nan=False).encode()
    except TypeError as error:
        raise ValueError(str(error)) from None
    if len(content) > MAX_LEARNED_BYTES:
        raise ValueError(f"a learned record of {len(content)} octets is too large")
    return content
