"""Puts over the fast path: one engine per process and endpoint, for any number of threads (docs/transport.md).

A blocking put needs no second thread. Whoever waits first is the *leader*: it polls the socket and runs the timers for all, and
wakes the others (the *followers*) when their puts have ended. When its own put ends it hands over to a follower. Only
`submit` keeps threads: the *pump*, which leads while nobody else does, and one that resolves futures (net/future.py). All state
is behind one lock, released while the leader waits.

Invariants: while a put is under way somebody leads or has been told to; after a fork the child shares nothing with its parent;
only the thread that took the lock releases it, however often it is interrupted.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raptor_s3.errors import HandshakeTimeout
from raptor_s3.net import clock
from raptor_s3.net.channel import PlainChannel, WireGuardChannel
from raptor_s3.net.forking import in_forked_child
from raptor_s3.net.future import FutureResolver, PutFuture
from raptor_s3.net.link import PAUSE_S, Link
from raptor_s3.net.lookup import resolve
from raptor_s3.net.put import new_transfer_id
from raptor_s3.net.session_store import DEFAULT, SessionStore
from raptor_s3.net.settings import EndpointSettings
from raptor_s3.net.udp import Readiness
from raptor_s3.transfer.outcome import Confirm, PutOutcome, TransferStats
from raptor_s3.transfer.plan import PutRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from typing_extensions import Buffer

    from raptor_s3.net.channel import Channel
    from raptor_s3.net.put import Put

__all__ = ["Confirm", "EndpointSettings", "Engine", "PutOutcome", "TransferStats"]

_log = logging.getLogger(__name__)

RECEIVE_LIMIT: Final = 256
LATE_S: Final = 0.25
"""A process that comes to itself so long after its time (stopped, suspended, starved) can't tell round trips."""
LOOKUP_INTERVAL_S: Final = 5.0
"""An endpoint that does not answer may have moved: so often its name is looked up again."""
_MAX_WAIT_S: Final = 3600.0

_engines: dict[EndpointSettings, Engine] = {}
_all_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_registry_lock = threading.Lock()


class LinkStatus(NamedTuple):
    """What is known of the way to the endpoint. Seconds, a share, octets per second; None where nothing is known."""

    rtt_s: float | None
    loss: float
    rate: float | None
    handshake_s: float | None


class Engine:
    """Sends puts to one endpoint. Safe for threads, and for fork."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self._degree_table = settings.degree_table
        self._reset()
        _all_engines.add(self)

    @classmethod
    def for_endpoint(cls, settings: EndpointSettings) -> Engine:
        """This process's engine for the endpoint."""
        with _registry_lock:
            engine = _engines.get(settings)
            if engine is None:
                engine = _engines[settings] = cls(settings)
            return engine

    def _reset(self) -> None:
        # Reentrant only for its exact knowledge of its owner: `_take_lock` refuses to be called twice.
        self._lock: Any = threading.RLock()
        self._open_lock = threading.Lock()
        self._lookup_failed_at = float("-inf")
        self._lookup_error = ""
        self._lookup_at = float("-inf")
        self._link: Link | None = None
        self._readiness: Readiness | None = None
        self._leader: Any = None
        self._leading_thread = 0
        self._polling_until = 0.0
        self._followers: list[Put] = []
        self._pump: threading.Thread | None = None
        self._pump_wake: Any = threading.Lock()  # an Event is Python, and may stay locked when its `set` is interrupted
        self._pump_wake.acquire()
        self._resolver = FutureResolver()
        self._is_closing = False

    def put(
        self,
        fields: Mapping[str, Any] | None,
        body: Buffer,
        *,
        timeout_s: float,
        confirm: Confirm | str = Confirm.FILE,
        object_id: str | None = None,
    ) -> PutOutcome:
        """Send one object and wait for its confirmation.

        `fields` are PutObject's parameters for the put header, without TtlMs; None sends a bare object under `object_id`,
        as the published CLI does. Raises ConfirmationTimeout, TransferRejected, TransferCancelled or HandshakeTimeout:
        after each of them nothing is written any more. Raises ValueError for parameters that can't travel, ConfigError
        for an unusable runtime directory.
        """
        started_at = clock.now()
        link = self._open()
        request = self._request(link, fields, body, timeout_s, confirm, object_id)
        return self._wait(link, link.prepare(request, started_at))

    def ping(self, *, timeout_s: float) -> PutOutcome:
        """Ask the receiver for a sign of life and wait for it; `stats.rtt_s` is the round trip. Writes nothing.

        Raises ConfirmationTimeout when no answer comes, HandshakeTimeout when there is nobody to ask, ConfigError.
        """
        started_at = clock.now()
        link = self._open()
        return self._wait(link, link.prepare_probe(timeout_s, started_at))

    def _wait(self, link: Link, put: Put) -> PutOutcome:
        self._refuse_reentry()
        try:
            self._lock.acquire()
            now = clock.now()
            if self._leader is not None or not link.send_alone(put, now):
                link.add(put, put.started_at)
                self._advance(link, now)
            while not put.is_done:
                if self._leader is None:
                    self._lead(link, put)
                else:
                    self._follow(put)
        finally:
            try:
                if self._lock._is_owned():
                    self._leave(link, put)
                else:  # a second interrupt came while the lock was somebody else's
                    with contextlib.suppress(RuntimeError):
                        threading.Thread(target=self._leave_later, args=(link, put), daemon=True).start()
            finally:
                try:  # noqa: SIM105 - nothing in Python, and no question first: an interrupt may come after either
                    self._lock.release()
                except RuntimeError:
                    pass
        return put.outcome(clock.now())

    def _leave(self, link: Link, put: Put) -> None:
        """The caller of `put` goes away."""
        if not put.is_done:
            link.abandon(put, clock.now())
        if put.wake is not None:
            self._stop_following(put)
        if link.ended or link.sender.ended:  # the leader was interrupted before it could say so
            link.finish_ended(clock.now())
            self._tell(link)
        if self._leader is None and (self._followers or link.puts or link is not self._link):
            self._hand_over()

    def _leave_later(self, link: Link, put: Put) -> None:
        with self._lock:
            self._leave(link, put)

    def _refuse_reentry(self) -> None:
        """A signal handler that has interrupted this very thread in here would use counters twice, or wait for itself."""
        if self._lock._is_owned() or (self._leader is not None and self._leading_thread == threading.get_ident()):
            raise RuntimeError("the engine is not reentrant: a signal handler or finalizer can't use it")

    def submit(
        self,
        fields: Mapping[str, Any] | None,
        body: Buffer,
        *,
        timeout_s: float,
        confirm: Confirm | str = Confirm.FILE,
        object_id: str | None = None,
    ) -> Future[PutOutcome]:
        """The same, without waiting. Keeps a copy of a body that may change. For `cancel` see PutFuture.

        Callbacks of all futures run in one thread, one after the other; they may use the engine.
        """
        started_at = clock.now()
        link = self._open()
        body = body if type(body) is bytes else bytes(body)
        put = link.prepare(self._request(link, fields, body, timeout_s, confirm, object_id), started_at)
        future = put.future = PutFuture(functools.partial(self._cancel, link, put))
        self._refuse_reentry()
        with self._lock:
            if self._pump is None:
                self._start_threads()
            try:
                link.add(put, started_at)
                self._advance(link, clock.now())
                if self._leader is None:
                    self._wake_pump()
            except BaseException:  # an interrupt, too: the caller has no future to wait for
                self._leave(link, put)
                raise
        return future

    def _cancel(self, link: Link, put: Put) -> bool:
        self._refuse_reentry()
        with self._lock:
            if put.is_done:
                return False
            link.cancel(put, clock.now())
            self._advance(link, clock.now())
            return True

    def _request(
        self,
        link: Link,
        fields: Mapping[str, Any] | None,
        body: Buffer,
        timeout_s: float,
        confirm: Confirm | str,
        object_id: str | None,
    ) -> PutRequest:
        if not timeout_s > 0:
            raise ValueError(f"a timeout of {timeout_s} s")
        if fields is None and object_id is None:
            raise ValueError("a bare object needs an object id")
        if fields is None and type(body) is not bytes:
            body = bytes(body)  # no checksum would tell that another thread has changed it
        return PutRequest(
            new_transfer_id() if fields is not None or object_id is None else object_id,
            fields,
            body,
            timeout_s,
            confirm if type(confirm) is Confirm else Confirm(confirm),
            self.settings.overhead,
            link.size.octets,
            self._degree_table,
        )

    # Leading and following; all of it with the lock held

    def _lead(self, link: Link, put: Put) -> None:
        """Poll for everybody until `put` has ended."""
        self._leading_thread = threading.get_ident()
        self._leader = put
        try:
            while not put.is_done:
                self._turn(link, put)
        finally:
            self._leader = None

    def _turn(self, link: Link, own: Put | None) -> None:
        """Wait for the socket or the next timer, then do what there is to do. Errors are the puts', not the leader's."""
        try:
            self._wait_and_receive(link, own)
        except Exception as error:
            link.fail(error, clock.now())
            self._advance(link, clock.now())
            if link.puts:  # it may well be the same the next time
                self._lock.release()
                try:
                    time.sleep(PAUSE_S)
                finally:
                    self._lock.acquire()
        self._advance(link, clock.now())

    def _wait_and_receive(self, link: Link, own: Put | None) -> None:
        readiness = self._readiness = self._readiness or Readiness()
        if link.route.descriptor != readiness.watched:
            readiness.watch(link.route.descriptor)
        now = clock.now()
        due = link.next_deadline(now)
        if due > now:
            self._polling_until = due
            self._lock.release()
            try:
                readiness.wait(due - now if due - now < _MAX_WAIT_S else _MAX_WAIT_S, writable=link.route.is_blocked)
            finally:
                self._lock.acquire()
                self._polling_until = 0.0
                if readiness is not self._readiness:
                    readiness.close()
            now = clock.now()
        # A lone put is done with the datagram that ends it: what comes after is the next one's.
        link.receive(now, RECEIVE_LIMIT, is_lone=own is not None and len(link.puts) < 2, is_late=now > due + LATE_S)

    def _follow(self, put: Put) -> None:
        """Sleep until the leader says that the put has ended, or that it is our turn to lead."""
        wake = threading.Lock()
        wake.acquire()
        put.wake = wake
        self._followers.append(put)
        self._lock.release()
        try:
            wake.acquire()
        finally:
            self._lock.acquire()
            self._stop_following(put)

    def _stop_following(self, put: Put) -> None:
        if put in self._followers:
            self._followers.remove(put)
        put.wake = None

    def _hand_over(self) -> None:
        """Make sure that somebody leads."""
        if self._leader is not None:
            return
        for put in self._followers:
            if not put.is_done:
                put.wake_up()
                return
        if self._has_futures():
            self._wake_pump()

    def _has_futures(self) -> bool:
        return self._link is not None and any(put.future is not None for put in self._link.puts.values())

    def _advance(self, link: Link, now: float) -> None:
        """Send what is due, tell those whose puts have ended, and have the leader look at the clock again if need be."""
        if link.puts:
            try:
                link.pump(now)
            except Exception as error:
                link.fail(error, now)
        if link.ended:
            self._tell(link)
        if (
            self._polling_until > now
            and self._readiness is not None
            and (link.next_deadline(now) < self._polling_until or link.route.descriptor != self._readiness.watched)
        ):
            self._polling_until = 0.0
            self._readiness.wake()
        if self._is_closing and not link.puts and self._link is link:
            self._shut(link)

    def _tell(self, link: Link) -> None:
        """Those whose puts have ended. Interrupted, this can be done again."""
        ended = link.ended
        while ended:
            put = ended[0]
            if put.future is not None:
                self._resolver.ended.put(put)
            else:
                put.wake_up()
            del ended[0]

    # The pump

    def _start_threads(self) -> None:
        """Those that futures take, before anything is sent. Raises RuntimeError where there are none to be had."""
        self._resolver.start()
        pump = threading.Thread(target=self._run_pump, args=(self._pump_wake,), name="raptor-s3", daemon=True)
        pump.start()
        self._pump = pump

    def _wake_pump(self) -> None:
        if self._pump_wake.locked():
            self._pump_wake.release()

    def _run_pump(self, wake: Any) -> None:
        while wake is self._pump_wake:  # else this is a child that was forked in here, and the engine has begun anew
            wake.acquire()
            try:
                self._pump_futures()
            except BaseException:
                _log.exception("%s: unexpected error", self.settings.url)
                time.sleep(PAUSE_S)
                with self._lock:
                    self._wake_pump()

    def _pump_futures(self) -> None:
        with self._lock:
            while (link := self._link) is not None and self._leader is None and self._has_futures():
                self._leading_thread = threading.get_ident()
                self._leader = self
                try:
                    self._turn(link, None)
                finally:
                    self._leader = None
            self._hand_over()

    # Opening and closing

    def _open(self) -> Link:
        link = self._link
        if link is not None and (not link.route.wants_addresses or clock.now() < self._lookup_at) and not self._is_closing:
            return link
        settings, called_at = self.settings, clock.now()
        if not self._open_lock.acquire(timeout=settings.handshake_timeout_s if link is None else 0):
            if link is not None:
                return link  # with the addresses that it has
            raise HandshakeTimeout(f"{settings.url}: {settings.host} could not be resolved in time")
        try:
            if called_at <= self._lookup_failed_at and self._link is None:
                raise HandshakeTimeout(self._lookup_error)  # we waited for it: one more would fail too, and as slowly
            self._is_closing = False
            link = self._link
            if link is None:
                addresses = resolve(settings.host, settings.port, settings.handshake_timeout_s)
                self._readiness = self._readiness or Readiness()  # who can't have one must not find out when it has sent
                link = self._link = Link(settings, self._channel(), addresses, clock.now())
            elif link.route.wants_addresses:
                self._lookup_at = clock.now() + LOOKUP_INTERVAL_S
                addresses = resolve(settings.host, settings.port, settings.handshake_timeout_s)
                with self._lock:
                    if link is self._link:
                        link.route.set_addresses(addresses)
        except OSError as error:
            if link is None:
                self._lookup_failed_at = clock.now()
                self._lookup_error = f"{settings.url}: {error.strerror or error}"
                raise HandshakeTimeout(self._lookup_error) from None
            _log.debug("%s: %s", settings.url, error)  # who was known by name may still be there
        finally:
            self._open_lock.release()
        return link

    def _channel(self) -> Channel:
        settings = self.settings
        if settings.is_plaintext:
            return PlainChannel()
        directory: Any = settings.runtime_dir or DEFAULT
        return WireGuardChannel(settings, SessionStore(directory if settings.share_sessions else None))

    def status(self) -> LinkStatus:
        """What puts so far have taught about the path."""
        link = self._open()
        learned = link.sender.learned
        return LinkStatus(learned.srtt_s, learned.loss, learned.rate, link.channel.handshake_rtt_s)

    def close(self) -> None:
        """Keep what was learned for the next process, and give up the socket.

        Puts that are under way are cancelled; each ends as soon as that is acknowledged, and the last one closes the socket.
        """
        self._refuse_reentry()
        with self._lock:
            link = self._link
            if link is None:
                return
            try:
                link.save()
            finally:
                self._is_closing = True
                link.cancel_all(clock.now())
                self._advance(link, clock.now())

    def _shut(self, link: Link) -> None:
        link.close()
        readiness, self._readiness = self._readiness, None
        if readiness is not None:
            if self._polling_until:
                readiness.wake()  # who waits closes it
            else:
                readiness.close()
        self._link = None  # last: from now on `_open` makes new ones, and takes no lock for that
        self._is_closing = False
        self._wake_pump()

    def after_fork(self) -> None:
        """In the child: a new socket, new locks, a new thread, a share of its own in the session."""
        link, readiness = self._link, self._readiness
        self._resolver.after_fork()
        self._reset()
        if link is not None:
            link.close()
        if readiness is not None:
            readiness.close()


@in_forked_child
def _after_fork_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    for engine in list(_all_engines):
        engine.after_fork()


def _at_exit() -> None:
    for engine in list(_all_engines):
        with contextlib.suppress(Exception):
            engine.close()


atexit.register(_at_exit)
