"""The engine when things go wrong: restarts, forks, signals, wrong keys, slow sinks."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from raptor_s3.errors import ConfigError, ConfirmationTimeout, HandshakeTimeout, TransferCancelled, TransferError
from raptor_s3.net.engine import Confirm, Engine
from raptor_s3.net.link import Link
from raptor_s3.net.settings import EndpointSettings
from raptor_s3.transfer.events import ObjectReady
from raptor_s3.wireguard.keys import generate_private_key, public_key
from tests.responder import Responder, Restartable, put_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def engine(responder: Responder) -> Iterator[Engine]:
    made = Engine(responder.settings())
    yield made
    made.close()


def put(engine: Engine, key: str, body: bytes, **options: Any) -> Any:
    return engine.put(put_fields(key, body), body, **{"timeout_s": 20, **options})


def test_a_restarted_gateway_gets_a_new_handshake(restartable: Restartable) -> None:
    engine = Engine(restartable.now.settings())
    put(engine, "a", b"1")
    restartable.stop()
    restartable.start()
    outcome = put(engine, "b", b"2")
    assert restartable.now.objects[("bucket", "b")] == [b"2"]
    assert outcome.stats.timeouts >= 1
    put(engine, "c", b"3")
    engine.close()


def test_a_put_during_which_the_gateway_restarts(restartable: Restartable) -> None:
    """It ends well under the new keys, or says that nothing will be written; never neither."""
    engine = Engine(restartable.now.settings(rate_mbps=4.0))
    body = os.urandom(300_000)  # 0.6 s
    put(engine, "warm", b"1")
    result: list[Any] = []

    def work() -> None:
        try:
            result.append(put(engine, "k", body, timeout_s=8))
        except TransferError as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.2)
    restartable.stop()
    restartable.start()
    thread.join(15)
    assert result
    written = restartable.now.objects.get(("bucket", "k"), [])
    if isinstance(result[0], TransferError):
        assert isinstance(result[0], (TransferCancelled, ConfirmationTimeout))
        time.sleep(0.5)
        assert restartable.now.objects.get(("bucket", "k"), []) == written
    else:
        assert written == [body]
    engine.close()


def test_a_stored_session_that_the_gateway_forgot(restartable: Restartable, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    engine = Engine(restartable.now.settings(directory))
    put(engine, "a", b"1")
    engine.close()
    restartable.stop()
    restartable.start()
    engine = Engine(restartable.now.settings(directory))
    put(engine, "b", b"2")
    engine.close()
    engine = Engine(restartable.now.settings(directory))
    outcome = put(engine, "c", b"3")
    assert outcome.stats.timeouts == 0
    assert not outcome.stats.handshake
    engine.close()


def test_a_forked_child_shares_nothing(responder: Responder, tmp_path: Path) -> None:
    engine = Engine(responder.settings(tmp_path / "run"))
    put(engine, "parent", b"p")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for index in range(20):
                put(engine, f"child{index}", b"c%d" % index)
            status = 0
        finally:
            os._exit(status)
    for index in range(20):
        put(engine, f"parent{index}", b"p%d" % index)
    assert os.waitpid(pid, 0)[1] == 0
    for index in range(20):
        assert responder.objects[("bucket", f"child{index}")] == [b"c%d" % index]
        assert responder.objects[("bucket", f"parent{index}")] == [b"p%d" % index]
    engine.close()


def test_fork_while_other_threads_are_putting(responder: Responder, engine: Engine) -> None:
    put(engine, "warm", b"1")
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        index = 0
        try:
            while not stop.is_set():
                put(engine, f"{thread}/{index}", b"x" * index)
                index += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                put(engine, f"child{child}", b"c")
                engine.submit(put_fields(f"future{child}", b"f"), b"f", timeout_s=20).result(20)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_ctrl_c_in_a_waiting_put_leaves_the_engine_usable(responder: Responder, engine: Engine) -> None:
    put(engine, "warm", b"1")
    responder.sink = lambda ready: None  # never answers

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        others: list[Any] = []

        def fail() -> None:
            with pytest.raises(TransferError):
                put(engine, "o", b"o", timeout_s=3)
            others.append(True)

        for as_follower in (False, True):
            if as_follower:
                thread = threading.Thread(target=fail)
                thread.start()
                time.sleep(0.1)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                put(engine, "k", b"2")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    responder.sink = None
    put(engine, "after", b"3")
    assert responder.objects[("bucket", "after")] == [b"3"]
    thread.join()
    assert others


def test_a_leader_that_is_interrupted_before_it_could_say_who_is_done(
    responder: Responder, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(engine, "warm", b"1")
    held: dict[str, ObjectReady] = {}
    responder.sink = lambda ready: held.__setitem__(ready.fields["Key"], ready)  # type: ignore[index]
    real, done = Link.finish_ended, []

    def end(link: Link, now: float) -> None:
        real(link, now)
        if threading.current_thread() is threading.main_thread():
            monkeypatch.undo()
            raise KeyboardInterrupt

    def follow() -> None:
        while "a" not in held:
            time.sleep(0.001)
        monkeypatch.setattr(Link, "finish_ended", end)
        threading.Timer(0.05, lambda: responder.finish(held["b"], responder.write(held["b"]))).start()
        done.append(put(engine, "b", b"b", timeout_s=5))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        put(engine, "a", b"a")
    thread.join(3)
    assert done


@pytest.mark.parametrize("warm", [1, 8])
def test_a_signal_handler_that_puts_is_refused(responder: Responder, engine: Engine, warm: int) -> None:
    """Its own thread leads: it would wait for itself."""
    for index in range(warm):
        put(engine, f"warm{index}", b"1")
    responder.sink = lambda ready: None
    said: list[BaseException] = []

    def handle(*_: object) -> None:
        try:
            put(engine, "handler", b"1", timeout_s=1)
        except BaseException as error:
            said.append(error)

    previous = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TransferError):
            put(engine, "k", b"x", timeout_s=0.5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert [type(error) for error in said] == [RuntimeError]


def test_a_follower_whose_leader_leaves_is_told(responder: Responder, engine: Engine) -> None:
    """The slow put begins as a follower of the quick one, and has to lead on when that has ended."""
    put(engine, "warm", b"1")
    held: dict[str, ObjectReady] = {}

    def sink(ready: ObjectReady) -> Any:
        assert ready.fields is not None
        held[ready.fields["Key"]] = ready
        return None

    responder.sink = sink
    done: list[str] = []
    threads = [threading.Thread(target=lambda key=key: (put(engine, key, b"x"), done.append(key))) for key in "abc"]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for key in "abc":
        ready = held[key]
        responder.finish(ready, responder.write(ready))
        deadline = time.monotonic() + 5
        while key not in done and time.monotonic() < deadline:
            time.sleep(0.005)
    for thread in threads:
        thread.join(5)
    assert done == ["a", "b", "c"]


def test_a_thousand_puts_in_flight_from_threads_and_futures(responder: Responder, engine: Engine) -> None:
    put(engine, "warm", b"1")
    held: list[ObjectReady] = []
    responder.sink = lambda ready: held.append(ready)
    futures = [engine.submit(put_fields(f"f{i}", b"%d" % i), b"%d" % i, timeout_s=60) for i in range(960)]
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda i=i: results.append(put(engine, f"t{i}", b"%d" % i, timeout_s=60))) for i in range(40)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while len(held) < 1000 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(held) == 1000
    for ready in held:
        responder.finish(ready, responder.write(ready))
    for future in futures:
        future.result(30)
    for thread in threads:
        thread.join(30)
    assert len(results) == 40


def test_the_cap_holds_on_the_wire(responder: Responder) -> None:
    arrivals: list[tuple[float, int]] = []

    def note(message: bytes) -> bool:
        arrivals.append((time.monotonic(), len(message) + 28))
        return False

    engine = Engine(responder.settings(rate_mbps=8.0))
    put(engine, "warm", b"1")
    responder.drop = note
    body = os.urandom(400_000)
    started_at = time.monotonic()
    put(engine, "k", body)
    total = sum(size for _, size in arrivals)
    elapsed_s = arrivals[-1][0] - started_at
    assert total * 8 / elapsed_s < 8e6 * 1.05 + 30_000 * 8 / elapsed_s
    engine.close()


def test_a_wrong_server_key_is_a_handshake_timeout(responder: Responder) -> None:
    settings = responder.settings(handshake_timeout_s=0.5)
    wrong = public_key(generate_private_key(os.urandom))
    engine = Engine(EndpointSettings(settings.url, wrong, settings.client_key, share_sessions=False, handshake_timeout_s=0.5))
    with pytest.raises(HandshakeTimeout):
        put(engine, "k", b"x")
    engine.close()


def test_an_unknown_host_is_a_handshake_timeout(responder: Responder) -> None:
    settings = responder.settings()
    engine = Engine(
        EndpointSettings("wg://no-such-host.invalid:51820", settings.server_key, settings.client_key, share_sessions=False)
    )
    with pytest.raises(HandshakeTimeout):
        put(engine, "k", b"x")
    engine.close()


def test_plaintext_needs_permission() -> None:
    with pytest.raises(ConfigError):
        EndpointSettings("udp://127.0.0.1:9")


@pytest.mark.parametrize("confirm", list(Confirm))
def test_every_confirmation(confirm: Confirm) -> None:
    with Responder(is_plaintext=True) as responder:
        engine = Engine(responder.settings())
        body = os.urandom(700_000)
        outcome = put(engine, "k", body, confirm=confirm)
        deadline = time.monotonic() + 5
        while not responder.objects and time.monotonic() < deadline:
            time.sleep(0.01)
        assert responder.objects[("bucket", "k")] == [body]
        if confirm is Confirm.FILE:
            assert outcome.fields["ETag"]
        engine.close()


def test_a_bare_object_travels_under_its_path(responder: Responder, engine: Engine) -> None:
    body = os.urandom(3000)
    engine.put(None, body, object_id="folder/file name.bin", timeout_s=10)
    assert responder.objects[("", "folder/file name.bin")] == [body]


def test_close_ends_what_is_under_way(responder: Responder, engine: Engine) -> None:
    put(engine, "warm", b"1")
    responder.sink = lambda ready: None
    responder.honours_cancel = True
    future = engine.submit(put_fields("k", b"x"), b"x", timeout_s=30)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            put(engine, "j", b"y", timeout_s=30)
        except TransferError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.2)
    engine.close()
    thread.join(5)
    assert failures
    with pytest.raises(TransferError):
        future.result(5)
