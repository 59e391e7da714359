"""The loop: sockets, WireGuard, receiver, timers, completions, and an orderly end. One thread.

    a turn:  read about BATCH datagrams of each ready socket -> open -> receiver
             results of worker threads -> timers -> receiver.flush -> send all that was sealed

Invariant: only authenticated plaintext reaches the receiver (or anything at all over udp://, which is there only when asked
for); one turn is short, so that no answer waits for more than BATCH datagrams.
"""

from __future__ import annotations

import logging
import selectors
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from raptor_s3.errors import SessionExpired
from raptor_s3.gateway.log_throttle import ROUTINE
from raptor_s3.gateway.peers import PLAINTEXT_PEER
from raptor_s3.gateway.workers import Completions
from raptor_s3.net import clock
from raptor_s3.wireguard.listener import Data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raptor_s3.gateway.endpoint import Burst, Endpoint
    from raptor_s3.gateway.stats import Stats
    from raptor_s3.wireguard.listener import Listener
    from raptor_s3.wireguard.session import Session

_log = logging.getLogger(__name__)

BATCH: Final = 256
EXPIRE_EVERY_S: Final = 5.0
DRAIN_S: Final = 20.0
CLOSE_S: Final = 0.5
MAX_FAILURES: Final = 100


class Origin(NamedTuple):
    """Where a datagram came from, and so where its answers go. `session` is None over udp://."""

    endpoint: Endpoint
    session: Session | None
    address: Any


class Receiver(Protocol):
    """What stands behind the tunnel: `direct` or `forward`."""

    def receive(self, origin: Any, peer_key: bytes, data: bytes, now: float) -> None:
        """`now` is when the datagram arrived: a little in the past, or more after a pause of the whole gateway."""

    def flush(self, now: float) -> None: ...
    def get_timer(self) -> float | None: ...
    def handle_timer(self, now: float) -> None: ...
    def drain(self, now: float) -> None: ...
    def close(self, timeout_s: float) -> None: ...
    def describe(self) -> dict[str, int]: ...
    @property
    def load(self) -> int: ...


class Server:
    """Runs until `stop`. `stop` and `call` are safe from signal handlers and other threads, the rest is the loop's."""

    def __init__(
        self, endpoints: Sequence[Endpoint], listener: Listener | None, stats: Stats, *, stats_interval_s: float
    ) -> None:
        self._endpoints = endpoints
        self._listener = listener
        self._stats = stats
        self._stats_interval_s = stats_interval_s
        self._wake_out, self._wake_in = socket.socketpair()
        for end in (self._wake_out, self._wake_in):
            end.setblocking(False)
        self.completions = Completions(self._wake)
        self._receiver: Receiver
        self._drain_until = 0.0
        self._is_complaining = False
        self._next_expiry = clock.now() + EXPIRE_EVERY_S
        self._next_stats = clock.now() + stats_interval_s

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def stop(self) -> None:
        """Take no more datagrams, finish what is at hand within DRAIN_S, return from `run`."""
        self.call(self._begin_drain)

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` in the loop's thread."""
        self.completions.put(function)

    def send(self, origin: Origin, payload: bytes) -> None:
        """Queue `payload` for where `origin`'s datagram came from, in its session, or a newer one when that has expired."""
        if origin.session is None:
            origin.endpoint.send(payload, origin.address)
        else:
            now = clock.now()
            try:
                message = origin.session.seal(payload, now)
            except SessionExpired:
                heir = self._heir(origin.session, origin.address)
                if heir is None:
                    self._stats.dropped_unsent += 1
                    return
                message = heir.seal(payload, now)
            origin.endpoint.send(message, origin.address)
        self._stats.states_sent += 1

    def run(self) -> None:
        """Serve until `stop`. A turn that fails is logged and counted; MAX_FAILURES in a row are raised."""
        failures = 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_out, selectors.EVENT_READ)
            for endpoint in self._endpoints:
                selector.register(endpoint, selectors.EVENT_READ, endpoint)
            try:
                while not self._is_done():
                    ready = selector.select(max(0.0, self._next_timer() - clock.now()))
                    try:
                        self._turn([key.data for key, _ in ready])
                        failures = 0
                    except Exception:
                        failures += 1
                        self._stats.errors += 1
                        if failures == MAX_FAILURES:
                            raise
                        _log.exception("a turn of the loop failed")
                        self._wake()  # there may be completions left
                    if self._drain_until:
                        self._unregister(selector)
            finally:
                self._close()

    def _next_timer(self) -> float:
        timers = [self._next_expiry, self._next_stats]
        if self._drain_until:
            timers.append(self._drain_until)
        if (timer := self._receiver.get_timer()) is not None:
            timers.append(timer)
        return min(timers)

    def _turn(self, ready: Sequence[Endpoint | None]) -> None:
        """`ready` are the sockets that can be read; None is the wakeup."""
        self._is_complaining = False
        for endpoint in ready:
            if endpoint is None:
                self._drain_wakeups()
            elif not self._drain_until:
                self._read(endpoint)
        self.completions.run()
        now = clock.now()
        if (timer := self._receiver.get_timer()) is not None and timer <= now:
            self._receiver.handle_timer(now)
        self._receiver.flush(now)
        for each in self._endpoints:
            each.flush()
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRE_EVERY_S
            if self._listener is not None:
                self._listener.expire(now)
        if now >= self._next_stats:
            self._next_stats = now + self._stats_interval_s
            _log.info("%s", self.stats_line(), extra=ROUTINE)

    def _close(self) -> None:
        self._receiver.close(CLOSE_S)
        for endpoint in self._endpoints:
            endpoint.flush()
            endpoint.close()
        self._wake_in.close()
        self._wake_out.close()

    def stats_line(self) -> str:
        stats = self._stats
        more = self._receiver.describe()
        if self._listener is not None:
            seen = self._listener.stats
            stats.handshakes = seen.handshakes
            stats.dropped_unauthentic = (
                seen.malformed + seen.unknown_session + seen.expired_session + seen.not_authentic
                + seen.mac1_invalid + seen.unknown_peer + seen.replayed_initiation + seen.rate_limited
            )  # fmt: skip
            more["sessions"] = self._listener.session_count
        if drops := sum(endpoint.kernel_drops() for endpoint in self._endpoints):
            more["kernel_drops"] = drops
        return stats.line(**{name: value for name, value in more.items() if value}, under_way=self._receiver.load)

    def _read(self, endpoint: Endpoint) -> None:
        """Take about BATCH datagrams of a socket that has some."""
        take = self._take_plaintext if endpoint.is_plaintext else self._take_sealed
        count = 0
        while count < BATCH and (burst := endpoint.receive()):
            count += take(endpoint, burst, clock.now())

    def _take_sealed(self, endpoint: Endpoint, burst: Burst, now: float) -> int:
        """Datagrams that must be WireGuard messages; how many there were."""
        octets, segment, source, age_s = burst
        open_message, receive = cast("Listener", self._listener).receive, self._receiver.receive
        starts = range(0, len(octets), segment)
        origin = None
        for start in starts:
            for outcome in open_message(octets[start : start + segment], source, now):
                if type(outcome) is Data:
                    plaintext, peer_key, session, _ = outcome
                    if origin is None or origin.session is not session:
                        origin = Origin(endpoint, session, source)
                    try:
                        receive(origin, peer_key, plaintext, now - age_s)
                    except Exception:
                        self._contain()
                else:
                    endpoint.send(*outcome)
        return len(starts) or 1

    def _take_plaintext(self, endpoint: Endpoint, burst: Burst, now: float) -> int:
        octets, segment, source, age_s = burst
        starts = range(0, len(octets), segment)
        for start in starts:
            datagram = bytes(octets[start : start + segment])
            try:
                self._receiver.receive(Origin(endpoint, None, source), PLAINTEXT_PEER, datagram, now - age_s)
            except Exception:
                self._contain()
        return len(starts) or 1

    def _contain(self) -> None:
        """A datagram that found a bug behind the tunnel: others of its burst may be other peers' or other transfers'."""
        self._stats.errors += 1
        if not self._is_complaining:
            self._is_complaining = True  # once a turn
            _log.exception("a datagram could not be worked on")

    def _heir(self, session: Session, address: Any) -> Session | None:
        if self._listener is None:
            return None
        heir = self._listener.session_at(session.peer_key, address)
        return None if heir is None or heir.is_expired(clock.now()) else heir

    def _begin_drain(self) -> None:
        if not self._drain_until:
            now = clock.now()
            self._drain_until = now + DRAIN_S
            _log.info("stopping: %d still under way", self._receiver.load)
            self._receiver.drain(now)

    def _is_done(self) -> bool:
        if not self._drain_until:
            return False
        return not self._receiver.load or clock.now() >= self._drain_until

    def _unregister(self, selector: selectors.BaseSelector) -> None:
        """Nothing more is read: new transfers find nobody, and their senders turn to HTTPS or to the next gateway."""
        for endpoint in self._endpoints:
            if endpoint in selector.get_map():
                selector.unregister(endpoint)

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"\0")
        except OSError:  # full: the loop is awake already; closed: there is no loop any more
            return

    def _drain_wakeups(self) -> None:
        try:
            while self._wake_out.recv(4096):
                pass
        except OSError:
            return
