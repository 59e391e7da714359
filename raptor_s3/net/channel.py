"""How datagrams are protected on their way: WireGuard sessions, shared with the user's other processes, or nothing at all.

    acquire(now)      -> the session to seal with, or None: a handshake is needed first
    handshake(now)    -> messages to send, to start or go on with one
    receive(message)  -> the plaintext, if it was data; `renewed` says that a handshake has been completed

Invariants: a session that did not answer (`suspect`) is never handed out again; one of another process or a new handshake is.
While datagrams of a put are out (`is_committed`), the session store's troubles never surface: the channel goes on in memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from raptor_s3.errors import ConfigError, HandshakeTimeout, MalformedPacket
from raptor_s3.net import clock
from raptor_s3.net.session_store import SessionStore, endpoint_id
from raptor_s3.wireguard.constants import REKEY_AFTER_TIME, REPEAT_INITIATION
from raptor_s3.wireguard.keys import public_key
from raptor_s3.wireguard.tunnel import Data, HandshakeComplete, Tunnel

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from raptor_s3.net.settings import EndpointSettings
    from raptor_s3.wireguard.session import Session

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

RETRANSMIT_S: Final = 0.35
"""An initiation is repeated every so often, when no round trip is known; WireGuard's own 5 s would outlast a put's patience.

Without backoff, since it is all over after 1.5 s: four attempts fit a path of 150 ms, and one of ten datagrams lost either way
leaves one in a thousand first puts without a session.
"""
CLAIM_POLL_S: Final = 0.02
_NEVER: Final = float("inf")


class Sealer(Protocol):
    """What seals outgoing datagrams: a WireGuard session, or nothing."""

    def seal(self, plaintext: Buffer, now: float) -> bytes: ...

    def seal_arena(self, arena: Buffer, count: int, size: int, stride: int, out: Buffer, now: float) -> int: ...


class Channel(Protocol):
    overhead: int
    """Octets that sealing adds to a datagram."""
    renewed: bool
    handshake_rtt_s: float | None
    """Of the last handshake, where it is unambiguous."""

    fresh_until: float
    is_handshaking: bool
    handshake_started_at: float
    is_committed: Callable[[], bool]
    """Whether datagrams of a put are out: an exception would then end it while it may still be written."""

    @property
    def fresh(self) -> Sealer | None:
        """What `acquire` gives until `fresh_until`, while there is nothing else to be done about sessions."""

    def acquire(self, now: float) -> Sealer | None: ...
    def needs_rekey(self, now: float) -> bool: ...
    def suspect(self, sealer: Sealer, now: float) -> None: ...
    def handshake(self, now: float) -> bytes | None: ...
    def repetition(self, now: float) -> bytes | None: ...
    def get_timer(self) -> float: ...
    def abandon_handshake(self) -> None: ...
    def handshake_was_left(self) -> None: ...
    def receive(self, message: memoryview, now: float) -> Buffer | None: ...
    def is_under(self, message: memoryview, sealer: Sealer) -> bool: ...
    def rest(self) -> None: ...
    def load_learned(self) -> dict[str, Any]: ...
    def save_learned(self, changes: dict[str, Any]) -> None: ...


class WireGuardChannel:
    """One tunnel to the endpoint's gateway. Not thread-safe."""

    overhead = 32

    def __init__(self, settings: EndpointSettings, store: SessionStore) -> None:
        self._store = store
        client = public_key(settings.client_key)
        self._endpoint = endpoint_id(settings.host, settings.port, settings.server_key, client)
        self._tunnel = Tunnel(
            settings.client_key,
            settings.server_key,
            settings.preshared_key,
            random=os.urandom,
            retransmit_s=RETRANSMIT_S,
            backoff=1.0,
        )
        self._suspects: set[int] = set()
        self._session: Session | None = None
        self.is_handshaking = False
        self.handshake_started_at = 0.0
        self._claim_at = _NEVER
        self._initiated_at = 0.0
        self._initiations = 0
        self._initiation = b""
        self._repeat_at = _NEVER
        self._is_timed = True
        self._has_looked = False
        self.renewed = False
        self.handshake_rtt_s: float | None = None
        self.fresh: Session | None = None
        self.fresh_until = 0.0
        self.is_committed: Callable[[], bool] = _is_never

    def _ask(self, question: Callable[[SessionStore], _T]) -> _T:
        """The store's answer; that of an empty one when it is unusable and a put is under way. Else raises ConfigError."""
        try:
            return question(self._store)
        except ConfigError as error:
            if not self.is_committed():
                raise
            _log.warning("%s; going on in memory only", error)
            self._store = SessionStore(None)
            return question(self._store)

    def acquire(self, now: float) -> Session | None:
        session = self._session
        if session is None or session.is_expired(now):
            session = self._look(now)
        self.fresh_until = 0.0
        if session is not None and not self.is_handshaking and not session.needs_rekey(now):
            self.fresh = session
            self.fresh_until = session.created_at + REKEY_AFTER_TIME
        return session

    def needs_rekey(self, now: float) -> bool:
        return self._session is not None and self._session.needs_rekey(now)

    def _look(self, now: float) -> Session | None:
        """A session that another process has left in the store; asked for once per handshake."""
        self._session = None
        if self._has_looked:
            return None
        self._has_looked = True
        session = self._ask(lambda store: store.load(self._endpoint, now))
        if session is None or session.local_index in self._suspects:
            return None
        self._tunnel.adopt(session)
        self._session = session
        return session

    def suspect(self, sealer: Sealer, now: float) -> None:
        """Nothing sent under this session was answered: look for another."""
        session = self._session
        if session is None or session is not sealer:
            return
        self._suspects.add(session.local_index)
        self._session = None
        self.fresh_until = 0.0
        newer = self._ask(lambda store: store.load_newer(self._endpoint, session, now))
        if newer is not None and newer.local_index not in self._suspects:
            self._tunnel.adopt(newer)
            self._session = newer
            self.renewed = True
        else:
            self._has_looked = True

    def handshake(self, now: float) -> bytes | None:
        """Start a handshake, or go on with it: an initiation when one is due."""
        if not self.is_handshaking:
            self.is_handshaking = True
            self.fresh_until = 0.0
            self.handshake_started_at = now
            self._initiations = 0
            self._is_timed = True
            self._claim_at = now
        if self._claim_at < _NEVER:
            return self._claim(now)
        try:
            message = self._tunnel.handle_timer(now, self._unix_time())
        except HandshakeTimeout:
            self.abandon_handshake()
            return None
        return message if message is None else self._initiated(message, now)

    def _initiated(self, message: bytes, now: float) -> bytes:
        self._initiations += 1
        self._initiation = message
        self._repeat_at = now + REPEAT_INITIATION
        return message

    def repetition(self, now: float) -> bytes | None:
        """The last initiation once more, when it is time: of two, one gets through where one in ten is lost.

        The responder answers both alike: a round trip measured from the first is at most twice REPEAT_INITIATION too long, or not
        measured.
        """
        if now < self._repeat_at:
            return None
        if now > self._repeat_at + REPEAT_INITIATION:
            self._is_timed = False
        self._repeat_at = _NEVER
        return self._initiation

    def _claim(self, now: float) -> bytes | None:
        """One process shakes hands, the others wait for what comes of it."""
        if now < self._claim_at:
            return None
        if not self._ask(lambda store: store.claim_handshake(self._endpoint)):
            self._has_looked = False
            if self._look(now) is not None:
                self._complete()
            else:
                self._claim_at = now + CLAIM_POLL_S
            return None
        self._claim_at = _NEVER
        self._initiated_at = now
        return self._initiated(self._tunnel.initiation(now, self._unix_time()), now)

    def _unix_time(self) -> float:
        return self._ask(lambda store: store.next_unix_time(self._endpoint, clock.wall_time()))

    def abandon_handshake(self) -> None:
        self.is_handshaking = False
        self._claim_at = self._repeat_at = _NEVER
        self._tunnel.abandon_handshake()
        self._has_looked = False
        with contextlib.suppress(ConfigError):  # the next question will tell
            self._store.release_handshake(self._endpoint)

    def handshake_was_left(self) -> None:
        """Nobody has read the socket for a while: the response may have waited there, and tells no round trip."""
        self._is_timed = False

    def get_timer(self) -> float:
        if not self.is_handshaking:
            return _NEVER
        if self._claim_at < _NEVER:
            return self._claim_at
        timer = self._tunnel.get_timer()
        return self._repeat_at if timer is None else min(timer, self._repeat_at)

    def _complete(self) -> None:
        self.is_handshaking = False
        self._claim_at = self._repeat_at = _NEVER
        self._has_looked = False
        self.renewed = True

    def receive(self, message: memoryview, now: float) -> Buffer | None:
        """Raises WireGuardError and MalformedPacket for what is not authentic; nothing has changed then."""
        if self.fresh_until and self.fresh is not None:
            try:
                return self.fresh.open(message, now) or None
            except MalformedPacket:
                pass  # not its data: an older session's, or a handshake
        event = self._tunnel.receive(message, now)
        if type(event) is Data:
            return event.plaintext
        if isinstance(event, HandshakeComplete):
            is_timed = self._is_timed and self._initiations == 1
            self.handshake_rtt_s = now - self._initiated_at if is_timed else None
            session = self._session = event.session
            self._complete()
            self._ask(lambda store: store.save(self._endpoint, session, now))
        return None

    def is_under(self, message: memoryview, sealer: Sealer) -> bool:
        """Whether what `receive` has taken came under the keys of `sealer`."""
        return int.from_bytes(message[4:8], "little") == getattr(sealer, "local_index", None)

    def rest(self) -> None:
        """Nothing is under way: keep what the next process should know."""
        session = self._session
        if session is not None:
            self._ask(lambda store: store.note_received(self._endpoint, session))

    def load_learned(self) -> dict[str, Any]:
        return self._store.load_learned(self._endpoint)

    def save_learned(self, changes: dict[str, Any]) -> None:
        self._ask(lambda store: store.update_learned(self._endpoint, changes))


def _is_never() -> bool:
    return False


class _PlainSealer:
    def seal(self, plaintext: Buffer, now: float) -> bytes:
        return bytes(plaintext)

    def seal_arena(self, arena: Buffer, count: int, size: int, stride: int, out: Buffer, now: float) -> int:
        source, target = memoryview(arena), memoryview(out)
        if stride == size:
            target[: count * size] = source[: count * size]
        else:
            for i in range(count):
                target[i * size : (i + 1) * size] = source[i * stride : i * stride + size]
        return count * size


class PlainChannel:
    """udp://: nothing is protected. For tests and closed networks."""

    overhead = 0
    renewed = False
    handshake_rtt_s: float | None = None

    fresh_until = _NEVER
    is_handshaking = False
    handshake_started_at = 0.0

    def __init__(self) -> None:
        self.fresh: Sealer | None = _PlainSealer()
        self.is_committed: Callable[[], bool] = _is_never

    def acquire(self, now: float) -> Sealer | None:
        return self.fresh

    def needs_rekey(self, now: float) -> bool:
        return False

    def suspect(self, sealer: Sealer, now: float) -> None:
        return None

    def handshake(self, now: float) -> bytes | None:
        return None

    def repetition(self, now: float) -> bytes | None:
        return None

    def get_timer(self) -> float:
        return _NEVER

    def abandon_handshake(self) -> None:
        return None

    def handshake_was_left(self) -> None:
        return None

    def receive(self, message: memoryview, now: float) -> Buffer | None:
        return message

    def is_under(self, message: memoryview, sealer: Sealer) -> bool:
        return True

    def rest(self) -> None:
        return None

    def load_learned(self) -> dict[str, Any]:
        return {}

    def save_learned(self, changes: dict[str, Any]) -> None:
        return None
