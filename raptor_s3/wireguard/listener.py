"""The responder: one key, many peers, several live sessions for each (whitepaper 5.3, 5.4, 6; docs/wireguard.md).

    listener = Listener(private_key, {public_key: PeerConfig(preshared_key)}, random=os.urandom)
    listener.receive(message, source, now)      -> list of Send(message, destination) | Data(plaintext, peer_key, session, source)
    listener.sessions(peer_key)                 -> confirmed sessions, the one heard from last first; session.seal(...) replies
    listener.session_at(peer_key, source)       -> the session last heard from `source`, else the one heard from last, else None
    listener.expire(now)                        -> forget sessions past REJECT_AFTER_TIME; call every few seconds
    listener.stats                              -> counts of what was dropped, and why
    listener.set_peers(peers)                   -> new peers, changed keys; removed peers lose their sessions

A byte-for-byte copy of an initiation, soon and from the same address, gets the same response once more; nothing else changes.

`receive` never raises: bad input is dropped and counted. `source` is the address as the socket gave it, and
`session.source` follows it (roaming) once a message has authenticated. An empty Data is never reported: keepalives
only confirm the session.

A plain WireGuard responder keeps one session a peer; several processes of one device share a key here, so this one keeps up to
`max_sessions_per_peer` and answers in the session that a message came in. Sessions that were never confirmed are counted apart,
as many again: a replayed initiation (possible once, after a restart) can't push out a live one, and processes that start together
don't push out each other.

Invariant: sources that have not authenticated cause no allocation that outlives the call, and get at most one answer,
smaller than the question.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from raptor_s3.errors import MalformedPacket, SessionExpired, WireGuardError
from raptor_s3.wireguard import constants, messages
from raptor_s3.wireguard.cookie import MacChecker, MacWriter
from raptor_s3.wireguard.keys import KeyPair, generate_private_key
from raptor_s3.wireguard.ratelimit import LoadMeter, TokenBuckets, source_network
from raptor_s3.wireguard.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Buffer

    from raptor_s3.wireguard.session import Address


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A peer that may shake hands."""

    preshared_key: bytes | None = field(default=None, repr=False)


class Send(NamedTuple):
    """A handshake response or cookie reply to be sent."""

    message: bytes
    destination: Address


class Data(NamedTuple):
    """An authentic transport message. Answer with `session.seal` to `source`."""

    plaintext: bytes
    peer_key: bytes
    session: Session
    source: Address


Outcome = Send | Data


@dataclass(slots=True)
class ListenerStats:
    """Messages by fate, since the listener was made."""

    data: int = 0
    keepalives: int = 0
    handshakes: int = 0
    cookie_replies: int = 0
    malformed: int = 0
    unknown_session: int = 0
    expired_session: int = 0
    not_authentic: int = 0  # forged, or a counter seen before
    mac1_invalid: int = 0
    unknown_peer: int = 0
    replayed_initiation: int = 0
    rate_limited: int = 0
    repeated_responses: int = 0  # to copies of an initiation, which a sender makes where datagrams get lost


@dataclass(slots=True)
class _Peer:
    public_key: bytes
    preshared_key: bytes | None
    mac_writer: MacWriter
    greatest_timestamp: bytes = b""
    last_response: tuple[int, bytes] | None = None  # our index and mac1 in it, until a cookie reply has used them
    sessions: dict[int, Session] = field(default_factory=dict)  # by local index, the one heard from last at the end


class _Answered(NamedTuple):
    """An initiation's response, which its copy may have once more."""

    response: bytes
    session_index: int
    source: Address
    until: float


class Listener:
    """The responder's side, for the peers it was told of. Not thread-safe."""

    def __init__(
        self,
        private_key: bytes,
        peers: Mapping[bytes, PeerConfig],
        *,
        random: Callable[[int], bytes],
        max_sessions_per_peer: int = constants.MAX_SESSIONS_PER_PEER,
        under_load_initiations_per_s: int = constants.UNDER_LOAD_INITIATIONS_PER_S,
    ) -> None:
        """Raises ValueError for keys that are not 32 octets."""
        if len(private_key) != constants.KEY_SIZE:
            raise ValueError("WireGuard keys have 32 octets")
        self.stats = ListenerStats()
        self.max_sessions_per_peer = max_sessions_per_peer
        self._static = KeyPair(private_key)
        self._random = random
        self._mac_checker = MacChecker(self._static.public, random)
        self._load = LoadMeter(under_load_initiations_per_s)
        self._source_buckets = TokenBuckets()
        self._peer_buckets = TokenBuckets()
        self._sessions: dict[int, Session] = {}  # by local index
        self._peers: dict[bytes, _Peer] = {}
        self._answered: dict[bytes, _Answered] = {}  # by initiation, the latest at the end
        self.set_peers(peers)

    @property
    def public_key(self) -> bytes:
        return self._static.public

    @property
    def session_count(self) -> int:
        """Sessions in memory, confirmed or not: at most `max_sessions_per_peer` times the peers."""
        return len(self._sessions)

    def set_peers(self, peers: Mapping[bytes, PeerConfig]) -> None:
        """Replace the peers.

        Those that stay keep their sessions and timestamps. Raises ValueError for keys that are not 32 octets.
        """
        for public_key, config in peers.items():
            if len(public_key) != constants.KEY_SIZE or len(config.preshared_key or public_key) != constants.KEY_SIZE:
                raise ValueError("WireGuard keys have 32 octets")
        self._answered.clear()
        for public_key in self._peers.keys() - peers.keys():
            for index in self._peers.pop(public_key).sessions:
                del self._sessions[index]
        for public_key, config in peers.items():
            peer = self._peers.get(public_key)
            if peer is None:
                self._peers[public_key] = _Peer(public_key, config.preshared_key, MacWriter(public_key))
            else:
                peer.preshared_key = config.preshared_key

    def sessions(self, peer_key: bytes) -> list[Session]:
        """Confirmed sessions of a peer, the one heard from last first. They may have expired: `seal` says so."""
        peer = self._peers.get(peer_key)
        return [session for session in reversed(peer.sessions.values()) if session.is_confirmed] if peer else []

    def session_at(self, peer_key: bytes, source: Address | None = None) -> Session | None:
        """Where to send to a peer unasked: the session last heard from `source`, else the one heard from last, else None."""
        sessions = self.sessions(peer_key)
        if source is not None:
            for session in sessions:
                if session.source is not None and session.source[:2] == source[:2]:
                    return session
        return sessions[0] if sessions else None

    def expire(self, now: float) -> None:
        """Forget the sessions past REJECT_AFTER_TIME."""
        for session in [session for session in self._sessions.values() if session.is_expired(now)]:
            self._remove(session)

    def receive(self, message: Buffer, source: Address, now: float) -> list[Outcome]:
        """What a datagram from `source` leads to. Never raises for any bytes."""
        try:
            kind, index = messages.HEAD.unpack_from(message)
        except struct.error:  # fewer than eight octets
            kind = index = 0
        try:
            if kind == messages.TYPE_TRANSPORT:
                return self._receive_transport(index, message, source, now)
            if kind == messages.TYPE_INITIATION:
                return self._receive_initiation(bytes(message), source, now)
            if kind == messages.TYPE_COOKIE_REPLY:
                return self._receive_cookie_reply(message, now)
        except MalformedPacket:
            pass
        except SessionExpired:
            self.stats.expired_session += 1
            return []
        except WireGuardError:
            self.stats.not_authentic += 1
            return []
        self.stats.malformed += 1
        return []

    def _receive_transport(self, index: int, message: Buffer, source: Address, now: float) -> list[Outcome]:
        session = self._sessions.get(index)
        if session is None:
            if memoryview(message).nbytes < constants.TRANSPORT_OVERHEAD:
                raise MalformedPacket("transport message is too short")
            self.stats.unknown_session += 1
            return []
        was_confirmed = session.is_confirmed
        plaintext = session.open(message, now)
        session.source = source
        siblings = self._peers[session.peer_key].sessions
        if not was_confirmed:
            self._displace([kept for kept in siblings.values() if kept.is_confirmed and kept is not session])
        if next(reversed(siblings)) != session.local_index:
            siblings[session.local_index] = siblings.pop(session.local_index)
        if not plaintext:
            self.stats.keepalives += 1
            return []
        self.stats.data += 1
        return [Data(plaintext, session.peer_key, session, source)]

    def _receive_initiation(self, message: bytes, source: Address, now: float) -> list[Outcome]:
        initiation = messages.parse_initiation(message)
        if not self._mac_checker.mac1_is_valid(message, initiation.mac1):
            self.stats.mac1_invalid += 1
            return []
        answered = self._answered.get(message)
        if (
            answered is not None
            and answered.source == source
            and now < answered.until
            and answered.session_index in self._sessions
        ):
            del self._answered[message]
            self.stats.repeated_responses += 1
            return [Send(answered.response, source)]
        if self._load.is_under_load(now):
            if not self._mac_checker.mac2_is_valid(message, initiation.mac2, source, now):
                self.stats.cookie_replies += 1
                reply = self._mac_checker.cookie_reply(initiation.sender_index, initiation.mac1, source, now)
                return [Send(reply, source)]
            if not self._source_buckets.take(source_network(source[0]), now):
                self.stats.rate_limited += 1
                return []
        responded = self._respond(initiation, now)
        if responded is None:
            return []
        response, index = responded
        if len(self._answered) >= constants.MAX_REPEATABLE_RESPONSES:
            del self._answered[next(iter(self._answered))]
        self._answered[message] = _Answered(response, index, source, now + constants.REPEAT_WITHIN)
        return [Send(response, source)]

    def _respond(self, initiation: messages.Initiation, now: float) -> tuple[bytes, int] | None:
        from raptor_s3.wireguard.handshake import ResponderHandshake

        handshake = ResponderHandshake(self._static, initiation.noise)
        peer = self._peers.get(handshake.peer_public)
        if peer is None:
            self.stats.unknown_peer += 1
            return None
        # Whitepaper 5.1: the timestamp of each initiation must be greater than all before it, so each is answered at most once.
        if handshake.timestamp <= peer.greatest_timestamp:
            self.stats.replayed_initiation += 1
            return None
        if not self._peer_buckets.take(peer.public_key, now):
            self.stats.rate_limited += 1
            return None
        index = self._new_index()
        noise, keys = handshake.write_response(peer.preshared_key, KeyPair(generate_private_key(self._random)))
        response = messages.build_response(index, initiation.sender_index, noise)
        response = peer.mac_writer.finish(response, now)

        peer.last_response = (index, messages.parse_response(response).mac1)
        peer.greatest_timestamp = handshake.timestamp
        self._add(
            peer,
            Session(
                local_index=index,
                remote_index=initiation.sender_index,
                peer_key=peer.public_key,
                send_key=keys.responder_sends,
                receive_key=keys.initiator_sends,
                created_at=now,
                is_initiator=False,
            ),
        )
        self.stats.handshakes += 1
        return response, index

    def _receive_cookie_reply(self, message: Buffer, now: float) -> list[Outcome]:
        """The peer was under load when our response came: the next response to it carries a mac2."""
        reply = messages.parse_cookie_reply(message)
        session = self._sessions.get(reply.receiver_index)
        peer = self._peers[session.peer_key] if session else None
        if peer is None or peer.last_response is None or peer.last_response[0] != reply.receiver_index:
            self.stats.unknown_session += 1
            return []
        peer.mac_writer.receive_cookie(reply, peer.last_response[1], now)
        peer.last_response = None
        return []

    def _add(self, peer: _Peer, session: Session) -> None:
        for kept in [kept for kept in peer.sessions.values() if kept.is_expired(session.created_at)]:
            self._remove(kept)
        self._displace([kept for kept in reversed(peer.sessions.values()) if not kept.is_confirmed])
        # In front: a session that has not been heard from yet is not the peer's latest.
        peer.sessions = {session.local_index: session, **peer.sessions}
        self._sessions[session.local_index] = session

    def _displace(self, kept: list[Session]) -> None:
        """Make room for one more beside these, all confirmed or all not; the first goes first."""
        for session in kept[: max(0, len(kept) - self.max_sessions_per_peer + 1)]:
            self._remove(session)

    def _remove(self, session: Session) -> None:
        del self._sessions[session.local_index]
        del self._peers[session.peer_key].sessions[session.local_index]

    def _new_index(self) -> int:
        while True:
            index = int.from_bytes(self._random(4), "little")
            if index not in self._sessions:
                return index
