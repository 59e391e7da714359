"""One pair of transport keys: seal and open transport data messages (whitepaper 5.4.6, 6.1).

    session.seal(datagram, now)                 -> the whole type-4 message
    session.seal_arena(arena, count, size, stride, out, now)    -> many equal ones back to back, ready for UDP GSO
    session.open(message, now)                  -> the plaintext; b"" is a keepalive
    session.needs_rekey(now)                    -> the initiator should start a handshake; this session still works
    session.export() / Session.restore(state, counters)         -> for the session store

Plaintexts are not padded (docs/errata.md, W1). A responder may not send before it has received: until then `seal` raises
SessionExpired.

Invariant: a counter is used once and only before REJECT_AFTER_TIME; `open` changes nothing unless the tag has verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from raptor_s3.errors import AuthenticationFailed, MalformedPacket, RaptorError, SessionExpired
from raptor_s3.wireguard.arena import FORGED, NOT_FRESH, NOT_OURS, PAST_LIMIT, open_fresh, seal_message, seal_messages
from raptor_s3.wireguard.constants import REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME
from raptor_s3.wireguard.counters import CounterRange
from raptor_s3.wireguard.replay import ReplayWindow

if TYPE_CHECKING:
    from typing_extensions import Buffer

# As the socket module writes them for AF_INET and AF_INET6, so that `sendto` takes them back as they came.
Address = tuple[str, int] | tuple[str, int, int, int]

_REFUSALS: Final[dict[int, tuple[type[RaptorError], str]]] = {
    NOT_OURS: (MalformedPacket, "not a transport message of this session, or too short"),
    PAST_LIMIT: (SessionExpired, "session is past REJECT_AFTER_TIME or REJECT_AFTER_MESSAGES"),
    NOT_FRESH: (AuthenticationFailed, "counter was received before, or is too old to know"),
    FORGED: (AuthenticationFailed, "tag does not verify"),
}


class SessionState(NamedTuple):
    """What the session store keeps of a session. `highest_received` is -1 when nothing has been received."""

    local_index: int
    remote_index: int
    peer_key: bytes
    send_key: bytes
    receive_key: bytes
    created_at: float
    is_initiator: bool
    next_counter: int = 0
    highest_received: int = -1

    def __repr__(self) -> str:
        return f"SessionState(local_index={self.local_index:#010x}, created_at={self.created_at}, ...)"


class Session:
    """Transport keys with one peer, made by a handshake. Not thread-safe."""

    __slots__ = (
        "__weakref__",
        "_receive_key",
        "_send_key",
        "_window",
        "counters",
        "created_at",
        "is_initiator",
        "local_index",
        "peer_key",
        "remote_index",
        "source",
    )

    def __init__(
        self,
        *,
        local_index: int,
        remote_index: int,
        peer_key: bytes,
        send_key: bytes,
        receive_key: bytes,
        created_at: float,
        is_initiator: bool,
        counters: CounterRange | None = None,
        highest_received: int = -1,
    ) -> None:
        self.local_index = local_index
        self.remote_index = remote_index
        self.peer_key = peer_key
        self._send_key = send_key
        self._receive_key = receive_key
        self.created_at = created_at
        self.is_initiator = is_initiator
        # Key confirmation (whitepaper 5.4.6): the first message from the initiator tells a responder that the response arrived.
        self.counters = counters or CounterRange(0, REJECT_AFTER_MESSAGES if is_initiator else 0)
        self._window = ReplayWindow(highest_received)
        # Where the last authentic message came from; the owner of the sockets sets it.
        self.source: Address | None = None

    def __repr__(self) -> str:
        role = "initiator" if self.is_initiator else "responder"
        return f"Session({role}, local_index={self.local_index:#010x}, remote_index={self.remote_index:#010x})"

    @property
    def highest_received(self) -> int:
        """The greatest authenticated counter, -1 before the first."""
        return self._window.greatest

    @property
    def is_confirmed(self) -> bool:
        """False for a responder that has not yet received a message under these keys."""
        return self.is_initiator or self.counters.end > 0

    def is_expired(self, now: float) -> bool:
        """True from REJECT_AFTER_TIME on: nothing can be sealed or opened."""
        return now - self.created_at >= REJECT_AFTER_TIME

    def needs_rekey(self, now: float) -> bool:
        """True when the initiator should start a new handshake (REKEY_AFTER_TIME, REKEY_AFTER_MESSAGES)."""
        return self.is_initiator and (now - self.created_at >= REKEY_AFTER_TIME or self.counters.next >= REKEY_AFTER_MESSAGES)

    def seal(self, plaintext: Buffer, now: float) -> bytes:
        """A transport data message: 16 octets of header, the ciphertext, 16 octets of tag. Raises SessionExpired."""
        if now - self.created_at >= REJECT_AFTER_TIME:
            raise SessionExpired("session is older than REJECT_AFTER_TIME")
        return seal_message(self._send_key, self.remote_index, self.counters.take(1, now), plaintext)

    def seal_arena(self, arena: Buffer, count: int, size: int, stride: int, out: Buffer, now: float) -> int:
        """Seal `count` plaintexts of `size` octets that lie `stride` apart in `arena` into `out`, back to back.

        Each message takes size + 32 octets of `out`; returns the octets written. `out` must not overlap `arena`.
        Raises SessionExpired, ValueError when a buffer is too small, and WireGuardError should the library fail: then
        nothing of `out` may be sent, and the counters are spent.
        """
        if now - self.created_at >= REJECT_AFTER_TIME:
            raise SessionExpired("session is older than REJECT_AFTER_TIME")
        if count <= 0:
            return 0
        counter = self.counters.take(count, now)
        return seal_messages(self._send_key, self.remote_index, counter, arena, count, size, stride, out)

    def open(self, message: Buffer, now: float) -> bytes:
        """The plaintext of a transport data message for this session; b"" is a keepalive.

        Raises MalformedPacket (not such a message, or another session's), SessionExpired, AuthenticationFailed
        (forged, or a replay).
        """
        # From 0 on, no counter is good any more.
        limit = 0 if now - self.created_at >= REJECT_AFTER_TIME else REJECT_AFTER_MESSAGES
        opened = open_fresh(self._receive_key, self.local_index, self._window, message, limit)
        if isinstance(opened, int):
            refusal, why = _REFUSALS[opened]
            raise refusal(why)
        if not self.counters.end and not self.is_initiator:
            self.counters = CounterRange()
        return opened

    def inherit_window(self, other: Session) -> None:
        """Share the replay window of `other` if it has the same keys."""
        if other._receive_key == self._receive_key:
            self._window = other._window

    def export(self) -> SessionState:
        """The session as a value; `next_counter` is the first counter that was never given out here."""
        return SessionState(
            self.local_index,
            self.remote_index,
            self.peer_key,
            self._send_key,
            self._receive_key,
            self.created_at,
            self.is_initiator,
            self.counters.next,
            self.highest_received,
        )

    @classmethod
    def restore(cls, state: SessionState, counters: CounterRange | None = None) -> Session:
        """A session from its state. Without `counters` it goes on at `next_counter`: only right if nobody else uses the state."""
        return cls(
            local_index=state.local_index,
            remote_index=state.remote_index,
            peer_key=state.peer_key,
            send_key=state.send_key,
            receive_key=state.receive_key,
            created_at=state.created_at,
            is_initiator=state.is_initiator,
            counters=counters or CounterRange(state.next_counter),
            highest_received=state.highest_received,
        )
