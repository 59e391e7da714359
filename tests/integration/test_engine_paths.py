"""The engine on paths and behind kernels that take less than it has: small MTUs, black holes, full buffers, slow functions."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from raptor_s3.errors import ConfirmationTimeout, RaptorError, TransferCancelled
from raptor_s3.net.engine import Engine
from raptor_s3.net.udp import MessageTooLong
from raptor_s3.transfer.incoming import CollectorLimits
from raptor_s3.wire.datagram import MAX_DATAGRAM
from tests.responder import Responder, Restartable, put_fields

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def engine(responder: Responder) -> Iterator[Engine]:
    made = Engine(responder.settings())
    yield made
    made.close()


def put(engine: Engine, key: str, body: bytes, **options: Any) -> Any:
    return engine.put(put_fields(key, body), body, **{"timeout_s": 20, **options})


class PickySocket:
    """A socket in front of the engine's own: too small an MTU, or no room in the kernel now and then."""

    def __init__(self, inner: Any, mtu: int = 65_535, refuse_every: int = 0) -> None:
        self.inner, self.mtu, self.refuse_every, self.calls, self.sizes = inner, mtu, refuse_every, 0, []
        self.receive_into, self.fileno, self.close = inner.receive_into, inner.fileno, inner.close
        self.was_refused = False

    def _has_room(self) -> bool:
        self.calls += 1
        return not self.refuse_every or self.calls % self.refuse_every != 0

    def send(self, message: Any) -> bool:
        if len(message) > self.mtu:
            raise MessageTooLong
        self.sizes.append(len(message))
        return self._has_room() and self.inner.send(message)

    def send_train(self, train: memoryview, size: int) -> int:
        if size > self.mtu:
            raise MessageTooLong
        self.sizes.append(size)
        return self.inner.send_train(train, size) if self._has_room() else 0


@pytest.mark.parametrize("size", [1100, 100_000])
def test_datagrams_that_do_not_fit_get_smaller(responder: Responder, engine: Engine, size: int) -> None:
    put(engine, "warm", b"1")
    link = engine._link
    assert link is not None
    link.route.socket = picky = PickySocket(link.route.socket, mtu=700)  # type: ignore[assignment]
    body = os.urandom(size)
    put(engine, "k", body)
    assert responder.objects[("bucket", "k")] == [body]
    assert max(picky.sizes) <= 700
    put(engine, "again", body)
    assert responder.objects[("bucket", "again")] == [body]


def test_a_full_socket_buffer_only_delays(responder: Responder, engine: Engine) -> None:
    put(engine, "warm", b"1")
    link = engine._link
    assert link is not None
    link.route.socket = PickySocket(link.route.socket, refuse_every=3)  # type: ignore[assignment]
    body = os.urandom(200_000)
    put(engine, "k", body)
    assert responder.objects[("bucket", "k")] == [body]


def test_full_size_datagrams_that_vanish_are_replaced_by_smaller_ones(responder: Responder, engine: Engine) -> None:
    """A black hole: the path drops what is long, and nobody says so."""
    put(engine, "warm", b"1")
    responder.drop = lambda message: len(message) > 1250
    body = os.urandom(10_000)  # 8 symbols of 1,260 octets
    for attempt in range(3):
        outcome = put(engine, f"k{attempt}", body, timeout_s=8)
        assert responder.objects[("bucket", f"k{attempt}")] == [body]
    assert engine._link is not None
    assert engine._link.size.octets == 1200
    assert outcome.stats.timeouts == 0, "the third knows"
    responder.drop = None
    put(engine, "wider", body)
    assert engine._link.size.octets == 1200, "nobody has tried"


def test_a_black_hole_far_away(responder: Responder, engine: Engine) -> None:
    """The blind part of a put is over after a few round trips: before it has asked often enough to be sure."""
    receive = responder._receive

    def receive_later(message: bytes, source: Any) -> None:
        def receive_now() -> None:
            with responder.lock:
                receive(message, source)

        if len(message) <= 1250:
            threading.Timer(0.15, receive_now).start()

    responder._receive = receive_later  # type: ignore[method-assign]
    body = os.urandom(1150)
    for attempt in range(2):
        put(engine, f"k{attempt}", body, timeout_s=5)
        assert responder.objects[("bucket", f"k{attempt}")] == [body]
    assert engine._link is not None
    assert engine._link.size.octets == 1200


def test_a_gateway_that_is_slow_after_a_restart_is_no_black_hole(restartable: Restartable) -> None:
    """It shakes hands at once, and is silent for some timeouts of a path as short as this one."""
    engine = Engine(restartable.now.settings())
    for index in range(6):
        put(engine, f"warm{index}", b"1")
    restartable.stop()
    restartable.start()
    silent_until: list[float] = []

    def drop(message: bytes) -> bool:
        if message[0] != 4:
            return False
        silent_until.append(time.monotonic() + 0.06)
        return time.monotonic() < silent_until[0]

    restartable.now.drop = drop
    link = engine._link
    assert link is not None
    before, body = link.size.octets, os.urandom(900)
    outcome = put(engine, "k", body)
    assert restartable.now.objects[("bucket", "k")] == [body]
    assert outcome.stats.timeouts >= 3
    assert link.size.octets == before
    engine.close()


@pytest.mark.parametrize("size", [400, 4000])
def test_a_function_that_starts_slowly_is_no_dead_session(responder: Responder, engine: Engine, size: int) -> None:
    """A gateway answers handshakes at once, and the function behind it takes a second for the first datagram."""
    for index in range(6):
        put(engine, f"warm{index}", b"1")
    receive, wakes_at = responder._receive, time.monotonic() + 1.0
    waiting: list[Any] = []

    def receive_later(message: bytes, source: Any) -> None:
        if message[0] == 4 and time.monotonic() < wakes_at:
            waiting.append((message, source))
            return
        for earlier in waiting:
            receive(*earlier)
        waiting.clear()
        receive(message, source)

    responder._receive = receive_later  # type: ignore[method-assign]
    handshakes = responder.listener.stats.handshakes
    body = os.urandom(size)
    put(engine, "k", body)
    assert responder.objects[("bucket", "k")] == [body]
    assert responder.listener.stats.handshakes - handshakes <= 2
    link = engine._link
    assert link is not None
    assert (link.size.octets, link.malformed) == (MAX_DATAGRAM, 0)


def test_a_receiver_without_room_is_no_path_without_room(responder: Responder, engine: Engine) -> None:
    """It is silent about what it can't take in now, but answers others: neither keys nor datagrams are the reason."""
    put(engine, "warm", b"1")
    responder.collector.limits = CollectorLimits(max_bytes=3000)
    handshakes = responder.listener.stats.handshakes
    with pytest.raises((TransferCancelled, ConfirmationTimeout)):
        put(engine, "k", os.urandom(100_000), timeout_s=4)
    assert responder.listener.stats.handshakes - handshakes <= 4
    assert engine._link is not None
    assert engine._link.size.octets == MAX_DATAGRAM
    responder.collector.limits = CollectorLimits()
    put(engine, "again", body := os.urandom(100_000))
    assert responder.objects[("bucket", "again")] == [body]


def test_what_the_kernel_had_no_room_for_does_not_leave_after_its_put(responder: Responder, engine: Engine) -> None:
    """It would be written over what has been written since."""
    for index in range(6):
        put(engine, f"warm{index}", b"1")
    link = engine._link
    assert link is not None
    link.route.socket = stalled = PickySocket(link.route.socket, refuse_every=1)  # type: ignore[assignment]
    with pytest.raises((TransferCancelled, ConfirmationTimeout)):
        put(engine, "k", os.urandom(9000), timeout_s=1)
    stalled.refuse_every = 0
    put(engine, "other", b"1")
    time.sleep(0.2)
    assert ("bucket", "k") not in responder.objects


@pytest.mark.parametrize("error", [OSError(errno.ENETUNREACH, "Network is unreachable"), BlockingIOError(errno.EAGAIN, "full")])
@pytest.mark.parametrize("size", [300, 5000])
def test_a_put_without_confirmation_succeeds_only_when_it_has_left(
    responder: Responder, engine: Engine, error: OSError, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(6):
        put(engine, f"warm{index}", b"1")
    link = engine._link
    assert link is not None
    socket: Any = link.route.socket
    until = time.monotonic() + 0.3

    def failing(real: Any) -> Any:
        def send(*args: Any) -> Any:
            if time.monotonic() < until:
                raise error
            return real(*args)

        return send

    monkeypatch.setattr(socket, "_send", failing(socket._send))
    monkeypatch.setattr(socket, "_has_gso", False)
    body = os.urandom(size)
    try:
        put(engine, "k", body, confirm="none")
    except RaptorError:
        assert error.errno == errno.ENETUNREACH
        time.sleep(0.2)
        assert ("bucket", "k") not in responder.objects
    else:
        deadline = time.monotonic() + 5
        while responder.objects.get(("bucket", "k")) != [body]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_another_datagrams_icmp_error_is_not_about_this_one(responder: Responder, engine: Engine) -> None:
    """The kernel reports "fragmentation needed" once, to whoever sends next."""
    for index in range(6):
        put(engine, f"warm{index}", b"1")
    link = engine._link
    assert link is not None
    socket: Any = link.route.socket
    real, pending = socket._send, [OSError(errno.EMSGSIZE, "Message too long")]

    def send(message: Any) -> Any:
        if pending:
            raise pending.pop()
        return real(message)

    socket._send = send
    engine.submit(put_fields("small", b"x"), b"x", timeout_s=5).result(5)
    assert not pending
    assert link.size.octets == MAX_DATAGRAM
