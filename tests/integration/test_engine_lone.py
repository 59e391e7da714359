"""A put that has the path to itself, and what can come in between: company, silence, refusals, errors, signals, forks."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from raptor_s3.errors import HandshakeTimeout, TransferCancelled, TransferError, TransferRejected
from raptor_s3.net import clock, route
from raptor_s3.net.engine import Engine
from raptor_s3.net.handshaking import HANDSHAKE_PAUSE_S
from raptor_s3.net.udp import MessageTooLong, Socket
from raptor_s3.transfer import lone
from raptor_s3.transfer.path import INITIAL_REPAIR
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.transfer_state import StateType, TransferState
from tests.responder import Responder, put_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from raptor_s3.net.link import Link
    from raptor_s3.transfer.events import ObjectReady
    from raptor_s3.transfer.outcome import PutOutcome


@pytest.fixture
def engine(responder: Responder) -> Iterator[Engine]:
    made = warm_engine(responder)
    yield made
    made.close()
    responder.sink = None


def warm_engine(responder: Responder) -> Engine:
    """One that knows its path: the next small put goes alone."""
    engine = Engine(responder.settings())
    for index in range(INITIAL_REPAIR + 1):
        put(engine, f"warm{index}", b"1")
    return engine


def put(engine: Engine, key: str, body: bytes, **options: Any) -> PutOutcome:
    return engine.put(put_fields(key, body), body, **{"timeout_s": 20, **options})


def link_of(engine: Engine) -> Link:
    assert engine._link is not None
    return engine._link


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Held:
    """A sink that answers when it is told."""

    def __init__(self, responder: Responder) -> None:
        self.responder = responder
        self.ready: dict[str, ObjectReady] = {}
        responder.sink = self._take

    def _take(self, ready: ObjectReady) -> None:
        assert ready.fields is not None
        self.ready[ready.fields["Key"]] = ready

    def answer(self, key: str) -> None:
        wait_until(lambda: key in self.ready)
        self.responder.finish(self.ready[key], self.responder.write(self.ready[key]))


class InThread(threading.Thread):
    """One put, by somebody else."""

    def __init__(self, engine: Engine, key: str, body: bytes, **options: Any) -> None:
        super().__init__(daemon=True)
        self.work = lambda: put(engine, key, body, **options)
        self.outcome: PutOutcome | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.work()
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self.join(10)
        assert not self.is_alive()


def test_it_takes_one_datagram_each_way(responder: Responder, engine: Engine) -> None:
    before, body = responder.received, os.urandom(1000)
    outcome = put(engine, "k", body)
    assert responder.received - before == 1
    assert responder.objects[("bucket", "k")] == [body]
    stats = outcome.stats
    assert (stats.datagrams_sent, stats.source_symbols, stats.repair_symbols, stats.timeouts) == (1, 1, 0, 0)
    assert not stats.handshake
    assert stats.rtt_s is not None
    assert 0 < stats.rtt_s <= stats.elapsed_s
    assert outcome.fields["ETag"].startswith('"')
    assert link_of(engine).alone.put is None


def test_it_goes_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests of this file would be of something else."""
    confirmed: list[float] = []
    confirm = lone.confirm

    def note(*arguments: Any) -> None:
        confirm(*arguments)
        confirmed.append(arguments[-1])

    monkeypatch.setattr(lone, "confirm", note)
    for _ in range(3):
        put(engine, "k", os.urandom(1000))
    assert len(confirmed) == 3


def test_company_from_other_threads(responder: Responder, engine: Engine) -> None:
    held = Held(responder)
    bodies = {key: os.urandom(700) for key in "abc"}
    first = InThread(engine, "a", bodies["a"])
    wait_until(lambda: "a" in held.ready)
    assert link_of(engine).alone.put is not None
    others = [InThread(engine, key, bodies[key]) for key in "bc"]
    wait_until(lambda: len(held.ready) == 3)
    assert link_of(engine).alone.put is None
    for key in "bac":
        held.answer(key)
    for thread in (first, *others):
        thread.end()
        assert thread.outcome is not None
    assert {key: responder.objects[("bucket", key)] for key in "abc"} == {key: [bodies[key]] for key in "abc"}


def test_company_of_a_future(responder: Responder, engine: Engine) -> None:
    held = Held(responder)
    first = InThread(engine, "a", b"a" * 100)
    wait_until(lambda: "a" in held.ready)
    future = engine.submit(put_fields("f", b"f" * 100), b"f" * 100, timeout_s=20)
    held.answer("a")
    first.end()
    held.answer("f")
    assert future.result(10).fields
    assert first.outcome is not None


def test_a_lost_datagram_is_made_up_for(responder: Responder, engine: Engine) -> None:
    lost = iter([True])
    responder.drop = lambda message: next(lost, False)
    body = os.urandom(1000)
    outcome = put(engine, "k", body)
    assert responder.objects[("bucket", "k")] == [body]
    assert outcome.stats.timeouts == 1
    assert outcome.stats.datagrams_sent > 1


def test_a_lost_answer_is_asked_for_and_nothing_written_twice(responder: Responder, engine: Engine) -> None:
    lost = iter([True])
    responder.drop_answer = lambda message: next(lost, False)
    body = os.urandom(1000)
    outcome = put(engine, "k", body)
    assert responder.objects[("bucket", "k")] == [body]
    assert outcome.stats.timeouts >= 1


def test_a_slow_write(responder: Responder, engine: Engine) -> None:
    """The receiver says that it is writing, and is left alone with it."""
    held = Held(responder)
    thread = InThread(engine, "k", b"x" * 500)
    wait_until(lambda: "k" in held.ready)
    time.sleep(0.1)
    held.answer("k")
    thread.end()
    assert thread.outcome is not None
    assert responder.objects[("bucket", "k")] == [b"x" * 500]


def test_a_refusal_by_the_receiver(responder: Responder, engine: Engine) -> None:
    answer = {"Code": "AccessDenied", "Message": "no", "StatusCode": 403}
    responder.sink = lambda ready: TransferState(StateType.FAILED, ready.transfer.object_id, fields=answer)
    with pytest.raises(TransferRejected) as caught:
        put(engine, "k", b"x" * 500)
    assert caught.value.code == "AccessDenied"
    responder.sink = None
    assert put(engine, "after", b"y").fields


def test_garbage_is_ignored(responder: Responder, engine: Engine) -> None:
    held = Held(responder)
    thread = InThread(engine, "k", b"x" * 500)
    wait_until(lambda: "k" in held.ready)
    link = link_of(engine)
    assert link.route.socket is not None
    for message in (b"", b"\x04", os.urandom(100), b"\x04\0\0\0" + os.urandom(60), b"\x02\0\0\0" + bytes(88)):
        responder._send(message, link.route.socket.local_address())
    wait_until(lambda: link.malformed >= 5)
    held.answer("k")
    thread.end()
    assert thread.outcome is not None


@pytest.mark.parametrize("is_answered", [True, False])
def test_close_ends_it(responder: Responder, engine: Engine, is_answered: bool) -> None:
    Held(responder)
    responder.honours_cancel = is_answered
    thread = InThread(engine, "k", b"x" * 500, timeout_s=2)
    wait_until(lambda: link_of(engine).alone.put is not None)
    engine.close()
    thread.end()
    assert isinstance(thread.error, TransferCancelled if is_answered else TransferError)
    responder.sink = None
    assert put(engine, "after", b"y").fields


@pytest.mark.parametrize("error", [MessageTooLong(), OSError(113, "no route"), BlockingIOError(11, "full")])
def test_a_datagram_that_can_not_leave_goes_the_usual_way(
    responder: Responder, engine: Engine, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket: Any = link_of(engine).route.socket
    send, failures = socket.send, iter([error])

    def send_later(message: bytes) -> bool:
        failure = next(failures, None)
        if isinstance(failure, BlockingIOError):
            return False
        if failure is not None:
            raise failure
        return bool(send(message))

    monkeypatch.setattr(socket, "send", send_later)
    body = os.urandom(900)
    outcome = put(engine, "k", body)
    assert responder.objects[("bucket", "k")] == [body]
    assert outcome.stats.timeouts == 0


def test_a_peer_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host refuses (ICMP): the put that is alone has left, and waits for a new session, which it asks for now and then."""
    first = Responder()
    engine = warm_engine(first)
    opened: list[Any] = []
    monkeypatch.setattr(route, "Socket", lambda address: opened.append(address) or Socket(address))
    first.stop()
    begun = time.monotonic()
    thread = InThread(engine, "k", b"x" * 500, timeout_s=30)
    time.sleep(0.8)
    assert thread.is_alive()
    sockets = len(opened)
    assert 1 <= sockets <= 2 + (time.monotonic() - begun) / HANDSHAKE_PAUSE_S
    with pytest.raises(HandshakeTimeout, match="refused"):  # of this one nothing has left: it asks at once
        put(engine, "new", b"z" * 500)
    with Responder(port=first.port, keys=(first.server_key, first.client_key)) as again:
        thread.end()
        assert thread.outcome is not None, thread.error
        assert again.objects[("bucket", "k")] == [b"x" * 500]
        assert put(engine, "after", b"y" * 500).fields
        engine.close()


@pytest.mark.parametrize("place", ["confirm", "go_on"])
def test_an_unexpected_error_gives_it_up(
    responder: Responder, engine: Engine, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(lone, place, fail)
    if place == "go_on":
        Held(responder)
        responder.honours_cancel = True
        with pytest.raises(TransferError):
            put(engine, "k", b"x" * 500, timeout_s=3)
        responder.sink = None
    else:  # the answer to the cancel says that the object is there
        assert put(engine, "k", b"x" * 500, timeout_s=3).fields
    assert link_of(engine).alone.put is None
    assert put(engine, "after", b"y").fields


@pytest.mark.parametrize("fields", [{"Bucket": "b"}, {"Bogus": "x"}, {"Metadata": {"a": 1}}, {"Key": "\ud800"}])
def test_what_can_not_travel_is_said_at_once(responder: Responder, engine: Engine, fields: dict[str, Any]) -> None:
    before, body = responder.received, b"x" * 500
    wrong = fields if fields == {"Bucket": "b"} else put_fields("k", body) | fields
    with pytest.raises(ValueError, match=r"put header|travel|Metadata|Unicode"):
        engine.put(wrong, body, timeout_s=5)
    assert responder.received == before
    assert put(engine, "after", b"y").fields


def test_ctrl_c(responder: Responder, engine: Engine) -> None:
    held = Held(responder)
    cancelled: list[str] = []
    finish = responder.collector.receive
    responder.collector.receive = lambda *arguments: (
        (cancelled.append(arguments[1].object_id) if arguments[1].is_cancel else None) or finish(*arguments)
    )  # type: ignore[method-assign]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.004)  # before the write is reported: it is alone
        with pytest.raises(KeyboardInterrupt):
            put(engine, "k", b"x" * 500)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    wait_until(lambda: cancelled)
    assert cancelled == [held.ready["k"].transfer.object_id]
    assert link_of(engine).alone.put is None
    assert not link_of(engine).puts
    responder.sink = None
    assert put(engine, "after", b"y").fields


def test_a_child_of_a_process_that_waits(responder: Responder, engine: Engine) -> None:
    held = Held(responder)
    thread = InThread(engine, "k", b"x" * 500)
    wait_until(lambda: "k" in held.ready)
    responder.sink = None
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            put(engine, "child", b"c" * 500)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    held.answer("k")
    thread.end()
    assert thread.outcome is not None
    assert responder.objects[("bucket", "child")] == [b"c" * 500]


def interrupt_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Ctrl-C as the main thread calls `name`."""
    real = getattr(owner, name)

    def interrupted(*arguments: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return real(*arguments)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(("owner", "name"), [(lone, "go_on"), (lone, "transfer_of"), (Sender, "next_run"), (Sender, "_enqueue")])
def test_company_that_is_interrupted_as_it_comes(
    responder: Responder, engine: Engine, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    """The put that was alone ends as if nobody had come, and nothing of it stays behind."""
    link, held = link_of(engine), Held(responder)
    first = InThread(engine, "a", b"a" * 500)
    wait_until(lambda: "a" in held.ready)
    assert link.alone.put is not None
    link.alone.put.due += 1
    interrupt_once(monkeypatch, owner, name)
    with pytest.raises(KeyboardInterrupt):
        put(engine, "b", b"b" * 500)
    held.answer("a")
    first.end()
    assert first.outcome is not None
    responder.sink = None
    assert put(engine, "after", b"y").fields
    assert link.alone.put is None
    assert not link.puts
    assert not link.sender


@pytest.mark.parametrize("name", ["_enqueue", "next_run"])
def test_a_put_whose_datagram_is_lost_while_company_is_interrupted(
    responder: Responder, engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    link = link_of(engine)
    link.sender.path.rtt.timeout_s = 0.2
    responder.drop = lambda message: True
    first = InThread(engine, "a", b"a" * 500, timeout_s=2)
    wait_until(lambda: link.alone.put is not None)
    interrupt_once(monkeypatch, Sender, name)
    with pytest.raises(KeyboardInterrupt):
        put(engine, "b", b"b" * 500)
    first.join(5)
    assert isinstance(first.error, TransferError)


def test_fields_that_change_under_way(responder: Responder, engine: Engine) -> None:
    """What is sent again is what was sent: the caller's dictionary may have become something that can't travel."""
    held, body = Held(responder), b"x" * 500
    fields = put_fields("k", body) | {"Metadata": {"a": "1"}}
    ended: list[Any] = []

    def work() -> None:
        ended.append(engine.put(fields, body, timeout_s=5))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_until(lambda: "k" in held.ready)
    fields["Metadata"]["a"] = 1
    time.sleep(0.05)
    assert link_of(engine).alone.put is None, "its timer has made it an ordinary one"
    held.answer("k")
    thread.join(5)
    assert ended
    responder.sink = None
    assert put(engine, "after", b"y").fields


def test_one_that_is_alone_does_not_push_out_another(engine: Engine) -> None:
    link = link_of(engine)
    first, second = (
        link.prepare(engine._request(link, put_fields(key, b"1"), b"1", 5, "file", None), clock.now()) for key in "ab"
    )
    with engine._lock:
        assert link.send_alone(first, clock.now())
        assert not link.send_alone(second, clock.now())
        assert link.alone.put is first
        link.abandon(first, clock.now())


def test_a_signal_handler_that_forks(responder: Responder, engine: Engine) -> None:
    """The child's copy of the put ends in its time: it has no socket, and nothing to wait for."""
    responder.sink = lambda ready: None
    children: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda *_: children.append(os.fork()))
    status, error = 1, None
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.004)
        try:
            put(engine, "k", b"x" * 500, timeout_s=1)
        except TransferError as caught:
            error = caught
            status = 0
    finally:
        if children == [0]:
            os._exit(status)
        signal.signal(signal.SIGALRM, previous)
    assert isinstance(error, TransferError)
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(children[0], os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    if ended == (0, 0):
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)
    assert ended == (children[0], 0)


def test_threads_that_come_and_go(responder: Responder, engine: Engine) -> None:
    """Alone and in company by turns: each object is there once, and nobody waits for ever."""
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for index in range(150):
                put(engine, f"{name}/{index}", b"%d/%d" % (name, index) * 30)
                if index % 7 == name:
                    time.sleep(0.003)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    for name in range(3):
        for index in range(150):
            assert responder.objects[("bucket", f"{name}/{index}")] == [b"%d/%d" % (name, index) * 30]
