"""The initiator: a tunnel to one peer (whitepaper 5.4, 6.1 to 6.6).

    tunnel = Tunnel(private_key, peer_public_key, preshared_key, random=os.urandom)
    tunnel.initiation(now, unix_time)       -> bytes to send; starts a handshake or a rekey (the present session goes on)
    tunnel.receive(message, now)            -> HandshakeComplete | Data | CookieReceived | None (keepalive);
                                               raises WireGuardError, MalformedPacket
    tunnel.get_timer()                      -> when to call handle_timer, None: never
    tunnel.handle_timer(now, unix_time)     -> an initiation to send again, or None;
                                               raises HandshakeTimeout after REKEY_ATTEMPT_TIME
    tunnel.session                          -> newest session or None: seal with it
    tunnel.adopt(session)                   -> use a session from the session store, without a handshake

New keys are used for sending as soon as the response has come; the sessions before them still open what the peer had
in flight. Responses to an initiation that has been retransmitted since are still good. noiseprotocol is imported by
the first `initiation`.

Invariant: a forged, late or replayed message raises and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from raptor_s3.errors import HandshakeTimeout, MalformedPacket, SessionExpired
from raptor_s3.wireguard import constants, messages
from raptor_s3.wireguard.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from raptor_s3.wireguard.cookie import MacChecker, MacWriter
    from raptor_s3.wireguard.handshake import InitiatorHandshake
    from raptor_s3.wireguard.keys import KeyPair

_NS_PER_S = 1_000_000_000
# The session before, and those that one handshake's crossing retransmissions make.
_KEPT_SESSIONS = 1 + constants.MAX_PENDING_INITIATIONS
_MAX_JITTER_S = 0.333


class HandshakeComplete(NamedTuple):
    """`session` is the tunnel's new session: seal with it from now on."""

    session: Session


class Data(NamedTuple):
    """An authentic transport message that came in `session`."""

    plaintext: bytes
    session: Session


class CookieReceived:
    """The peer is under load: `get_timer` is due at once, and the next initiation carries a valid mac2."""


Event = HandshakeComplete | Data | CookieReceived | None


class _Identity:
    """What handshakes need of the two static keys; made when the first one starts."""

    def __init__(self, private_key: bytes, peer_public_key: bytes, random: Callable[[int], bytes]) -> None:
        from raptor_s3.wireguard.cookie import MacChecker, MacWriter
        from raptor_s3.wireguard.keys import KeyPair

        self.static: KeyPair = KeyPair(private_key)
        self.mac_writer: MacWriter = MacWriter(peer_public_key)
        self.mac_checker: MacChecker = MacChecker(self.static.public, random)


class _Pending:
    __slots__ = ("handshake", "mac1")

    def __init__(self, handshake: InitiatorHandshake, mac1: bytes) -> None:
        self.handshake = handshake
        self.mac1: bytes | None = mac1  # None once a cookie reply has used it


class Tunnel:
    """The initiator's side towards one peer. Not thread-safe."""

    def __init__(
        self,
        private_key: bytes,
        peer_public_key: bytes,
        preshared_key: bytes | None = None,
        *,
        random: Callable[[int], bytes],
        retransmit_s: float = constants.INITIATION_RETRANSMIT,
        backoff: float = 2.0,
        last_timestamp_ns: int = 0,
    ) -> None:
        """`retransmit_s`: when an initiation is sent again first; then `backoff` times as late, up to REKEY_TIMEOUT. A known RTT
        makes a better value.

        `last_timestamp_ns`: the greatest timestamp (Unix nanoseconds) ever sent with this key, if known; the next is
        greater even if the clock went back. Raises ValueError for keys that are not 32 octets.
        """
        for key in (private_key, peer_public_key, preshared_key):
            if key is not None and len(key) != constants.KEY_SIZE:
                raise ValueError("WireGuard keys have 32 octets")
        self.peer_public_key = peer_public_key
        self.retransmit_s = retransmit_s
        self.backoff = backoff
        self.last_timestamp_ns = last_timestamp_ns
        self._private_key = private_key
        self._preshared_key = preshared_key
        self._random = random
        self._sessions: dict[int, Session] = {}  # by local index, oldest first
        self._pending: dict[int, _Pending] = {}  # by our sender index, oldest first
        self._identity: _Identity | None = None
        self._attempt_started_at: float | None = None
        self._interval_s = retransmit_s
        self._retransmit_at = 0.0
        self._has_answered_cookie = False

    @property
    def session(self) -> Session | None:
        """The newest session, expired or not; None before the first."""
        return next(reversed(self._sessions.values()), None)

    @property
    def is_handshaking(self) -> bool:
        """True from an initiation to its response, or to HandshakeTimeout."""
        return self._attempt_started_at is not None

    def adopt(self, session: Session) -> None:
        """Use a session that another process, or an earlier one, has shaken hands for. ValueError: it is another peer's.

        If it is one of ours under a fresh range of counters, what has been received under it stays received.
        """
        if session.peer_key != self.peer_public_key:
            raise ValueError("session belongs to another peer")
        if (known := self._sessions.get(session.local_index)) is not None:
            session.inherit_window(known)
        self._install(session)

    def initiation(self, now: float, unix_time: float) -> bytes:
        """A handshake initiation with a fresh ephemeral key and timestamp, 148 octets; the timer is set to send another."""
        from raptor_s3.wireguard.handshake import InitiatorHandshake
        from raptor_s3.wireguard.keys import KeyPair, generate_private_key
        from raptor_s3.wireguard.symmetric import tai64n

        if self._identity is None:
            self._identity = _Identity(self._private_key, self.peer_public_key, self._random)
        ephemeral = KeyPair(generate_private_key(self._random))
        handshake = InitiatorHandshake(self._identity.static, self.peer_public_key, self._preshared_key, ephemeral)
        timestamp_ns = max(int(unix_time * _NS_PER_S), self.last_timestamp_ns + 1)
        index = self._new_index()
        noise = handshake.write_initiation(tai64n(timestamp_ns))
        message = self._identity.mac_writer.finish(messages.build_initiation(index, noise), now)

        self.last_timestamp_ns = timestamp_ns
        while len(self._pending) >= constants.MAX_PENDING_INITIATIONS:
            del self._pending[next(iter(self._pending))]
        self._pending[index] = _Pending(handshake, messages.parse_initiation(message).mac1)
        if self._attempt_started_at is None:
            self._attempt_started_at = now
            self._interval_s = self.retransmit_s
            self._has_answered_cookie = False
        else:
            self._interval_s = min(self._interval_s * self.backoff, constants.REKEY_TIMEOUT)
        # Whitepaper 6.1: jitter keeps two peers, or a thousand restarted ones, from moving in step.
        jitter_s = min(_MAX_JITTER_S, self._interval_s / 4) * self._random(1)[0] / 255
        self._retransmit_at = now + self._interval_s + jitter_s
        return message

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, on the clock of `now`."""
        return self._retransmit_at if self.is_handshaking else None

    def handle_timer(self, now: float, unix_time: float) -> bytes | None:
        """A fresh initiation when one is due.

        Raises HandshakeTimeout once when REKEY_ATTEMPT_TIME has passed without a response.
        """
        if self._attempt_started_at is None or now < self._retransmit_at:
            return None
        if now - self._attempt_started_at >= constants.REKEY_ATTEMPT_TIME:
            self.abandon_handshake()
            raise HandshakeTimeout(f"no handshake response within {constants.REKEY_ATTEMPT_TIME:.0f} s")
        return self.initiation(now, unix_time)

    def abandon_handshake(self) -> None:
        """Stop retransmitting and forget the initiations that are in flight."""
        self._pending.clear()
        self._attempt_started_at = None

    def receive(self, message: Buffer, now: float) -> Event:
        """What an incoming message means.

        Raises MalformedPacket, AuthenticationFailed, SessionExpired (data for keys we no longer have).
        """
        kind = messages.message_type(message)
        if kind == messages.TYPE_TRANSPORT:
            return self._receive_transport(message, now)
        if kind == messages.TYPE_RESPONSE:
            return self._receive_response(bytes(message), now)
        if kind == messages.TYPE_COOKIE_REPLY:
            return self._receive_cookie_reply(message, now)
        raise MalformedPacket("initiation to an initiator")

    def _receive_transport(self, message: Buffer, now: float) -> Data | None:
        if memoryview(message).nbytes < constants.TRANSPORT_OVERHEAD:
            raise MalformedPacket("transport message is too short")
        index = messages.TRANSPORT_HEADER.unpack_from(message)[1]
        session = self._sessions.get(index)
        if session is None:
            raise SessionExpired("transport message for a session that is not ours")
        plaintext = session.open(message, now)
        return Data(plaintext, session) if plaintext else None

    def _receive_response(self, message: bytes, now: float) -> HandshakeComplete:
        response = messages.parse_response(message)
        pending = self._pending.get(response.receiver_index)
        if pending is None or self._identity is None:
            raise SessionExpired("response to an initiation that is not in flight")
        if not self._identity.mac_checker.mac1_is_valid(message, response.mac1):
            raise MalformedPacket("mac1 does not verify")
        keys = pending.handshake.read_response(response.noise)
        session = Session(
            local_index=response.receiver_index,
            remote_index=response.sender_index,
            peer_key=self.peer_public_key,
            send_key=keys.initiator_sends,
            receive_key=keys.responder_sends,
            created_at=now,
            is_initiator=True,
        )
        # Later initiations stay: the responder may already have replaced this session by theirs.
        while next(iter(self._pending)) != response.receiver_index:
            del self._pending[next(iter(self._pending))]
        del self._pending[response.receiver_index]
        self._attempt_started_at = None
        self._install(session)
        return HandshakeComplete(session)

    def _receive_cookie_reply(self, message: Buffer, now: float) -> CookieReceived:
        reply = messages.parse_cookie_reply(message)
        pending = self._pending.get(reply.receiver_index)
        if pending is None or pending.mac1 is None or self._identity is None:
            raise SessionExpired("cookie reply to an initiation that is not in flight")
        self._identity.mac_writer.receive_cookie(reply, pending.mac1, now)
        pending.mac1 = None
        # The reference waits for its timer. A put waits for us, so the retransmission that the cookie allows goes at once;
        # but only one, since whoever sees our messages can make cookie replies.
        if not self._has_answered_cookie:
            self._has_answered_cookie = True
            self._retransmit_at = now
        return CookieReceived()

    def _install(self, session: Session) -> None:
        self._sessions.pop(session.local_index, None)
        self._sessions[session.local_index] = session
        while len(self._sessions) > _KEPT_SESSIONS:
            del self._sessions[next(iter(self._sessions))]

    def _new_index(self) -> int:
        while True:
            index = int.from_bytes(self._random(4), "little")
            if index not in self._sessions and index not in self._pending:
                return index
