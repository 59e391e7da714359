"""Attacks on the engine: locks, futures, a runtime directory that changes under a put, names that move."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from raptor_s3.errors import ConfirmationTimeout, HandshakeTimeout, RaptorError, TransferCancelled
from raptor_s3.net import clock, lookup
from raptor_s3.net import engine as engine_module
from raptor_s3.net.counter_lease import LEASE_VALID_S
from raptor_s3.net.engine import Engine
from raptor_s3.transfer.incoming import ObjectReady
from tests.responder import Responder, put_fields

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 4.0


def put(engine: Engine, key: str, body: bytes = b"body", timeout_s: float = 10) -> Any:
    return engine.put(put_fields(key, body), body, timeout_s=timeout_s)


def submit(engine: Engine, key: str, timeout_s: float = 10) -> Any:
    return engine.submit(put_fields(key, b"body"), b"body", timeout_s=timeout_s)


def test_a_callback_of_a_future_may_put() -> None:
    # In a process of its own, that never gets to its end: the lock stays locked.
    program = """
import os, threading
from raptor_s3.net.engine import Engine
from tests.responder import Responder, put_fields
with Responder() as responder:
    engine, done = Engine(responder.settings()), threading.Event()
    def again(future):
        engine.submit(put_fields("b", b"2"), b"2", timeout_s=5)
        done.set()
    engine.submit(put_fields("a", b"1"), b"1", timeout_s=5).add_done_callback(again)
    os._exit(0 if done.wait(4) else 1)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_close_ends_the_futures_that_are_under_way(responder: Responder) -> None:
    engine = Engine(responder.settings())
    responder.drop = lambda message: True
    future = submit(engine, "key", timeout_s=1)
    engine.close()
    assert wait([future], PATIENCE_S).done


def test_a_closed_engine_takes_no_future_that_never_ends(responder: Responder) -> None:
    engine = Engine(responder.settings())
    put(engine, "a")
    engine.close()
    try:
        future = submit(engine, "b", timeout_s=1)
    except RaptorError:
        return
    assert wait([future], PATIENCE_S).done


def test_a_second_interrupt_releases_nobody_elses_lock() -> None:
    program = """
import os, signal, threading, time
from raptor_s3.net.engine import Engine
from tests.responder import Responder, put_fields
with Responder() as responder:
    engine = Engine(responder.settings())
    engine.put(put_fields("a", b"1"), b"1", timeout_s=5)
    responder.drop = lambda message: True
    still_locked = []
    def busy():
        time.sleep(0.3)
        engine._lock.acquire()  # as any other put's thread does while it encodes, seals, or waits for a file
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        still_locked.append(engine._lock._is_owned())
    thread = threading.Thread(target=busy)
    thread.start()
    try:
        engine.put(put_fields("b", b"1"), b"1", timeout_s=10)
    except (KeyboardInterrupt, RuntimeError):
        pass
    thread.join(5)
    os._exit(0 if still_locked == [True] else 1)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_an_error_of_the_runtime_directory_does_not_end_the_pump(responder: Responder, tmp_path: Path) -> None:
    engine = Engine(responder.settings(tmp_path / "run"))
    responder.drop = lambda message: True
    future = submit(engine, "key", timeout_s=2)
    (lock,) = (tmp_path / "run").glob("*.lock")
    lock.chmod(0o644)  # the next initiation's timestamp comes from there
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda arguments: None)
        assert wait([future], PATIENCE_S).done


def test_cancelling_a_future_cancels_the_put(responder: Responder) -> None:
    engine = Engine(responder.settings())
    responder.drop = lambda message: True
    assert submit(engine, "key", timeout_s=1).cancel()
    engine.close()


def test_a_put_that_raised_is_not_written_later_because_a_file_became_readable(responder: Responder, tmp_path: Path) -> None:
    engine = Engine(responder.settings(tmp_path / "run"))
    put(engine, "key", b"first")
    waiting: list[ObjectReady] = []
    responder.sink = waiting.append  # S3 takes its time
    responder.drop_answer = lambda message: True
    for path in (tmp_path / "run").glob("*.session"):
        path.chmod(0o644)
    with pytest.raises(RaptorError):
        put(engine, "key", b"old", timeout_s=3)
    assert clock.now() >= waiting[0].expires_at  # else HTTPS writes "old", the caller "new", and S3 gets "old" again
    engine.close()


def test_an_unexpected_error_ends_no_put_that_may_still_be_written(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(responder.settings())
    put(engine, "key", b"first")
    waiting: list[ObjectReady] = []
    responder.sink = waiting.append
    assert engine._link is not None

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(engine._link.sender, "receive_state", fail)
    with pytest.raises(ConfirmationTimeout) as caught:
        put(engine, "key", b"old", timeout_s=2)
    assert clock.now() >= waiting[0].expires_at
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    monkeypatch.undo()
    responder.sink = None
    put(engine, "key", b"new")


def test_an_unexpected_error_before_anything_is_sent_ends_the_put_at_once(
    responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(responder.settings())
    put(engine, "key")
    assert engine._link is not None

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(engine._link.sender, "next_run", fail)
    with pytest.raises(TransferCancelled, match="nothing was sent"):
        put(engine, "key", timeout_s=3600)
    with pytest.raises(TransferCancelled, match="nothing was sent"):
        submit(engine, "key", timeout_s=3600).result(PATIENCE_S)


def test_a_session_that_has_no_counters_any_more_is_replaced(responder: Responder, tmp_path: Path) -> None:
    engine = Engine(responder.settings(tmp_path / "run"))
    put(engine, "a")
    for path in (tmp_path / "run").glob("*.session"):
        path.unlink()
    threading.Event().wait(3 * LEASE_VALID_S)
    assert put(engine, "b", bytes(200_000)).stats.handshake


def test_a_cancelled_future_ends_when_nothing_can_be_written_any_more(responder: Responder) -> None:
    engine = Engine(responder.settings())
    put(engine, "a")
    waiting: list[ObjectReady] = []
    responder.sink, responder.honours_cancel = waiting.append, True
    future = submit(engine, "b", timeout_s=3600)
    while not waiting:
        threading.Event().wait(0.01)
    assert future.cancel()
    with pytest.raises(TransferCancelled):
        future.result(PATIENCE_S)
    assert not future.cancel()


def test_a_runtime_directory_that_vanishes_costs_no_put(responder: Responder, tmp_path: Path) -> None:
    """What systemd-logind does to /run/user/UID when the user's last session ends."""
    engine = Engine(responder.settings(tmp_path / "run"))
    put(engine, "a")
    shutil.rmtree(tmp_path / "run")
    threading.Event().wait(3 * LEASE_VALID_S)
    body = bytes(60_000)
    for number in range(2):  # the first may pay for it
        with contextlib.suppress(RaptorError):
            put(engine, f"b{number}", body, timeout_s=2)
    assert ("bucket", "b1") in responder.objects


def test_an_endpoint_that_moves_is_found_again(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(responder.settings())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        old = [(socket.AF_INET, nobody.getsockname())]
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "resolve", lambda *_: old)
        with pytest.raises(HandshakeTimeout):
            put(engine, "a", timeout_s=3)
    put(engine, "b", timeout_s=3)


def test_threads_do_not_wait_for_one_failing_lookup_after_another(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten threads of s3transfer, a resolver that takes ten seconds to fail: the last put waits for a hundred."""
    lookups = []
    everyone = threading.Barrier(5)

    def resolve(host: str, port: int, *_: object) -> Any:
        lookups.append(host)
        threading.Event().wait(0.3)
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(engine_module, "resolve", resolve)
    engine = Engine(responder.settings())

    def work() -> None:
        everyone.wait()
        with pytest.raises(HandshakeTimeout):
            put(engine, "key", timeout_s=0.5)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lookups) < 5


def test_a_body_that_changes_after_submit_is_sent_as_it_was() -> None:
    with Responder(is_plaintext=True) as responder:
        engine = Engine(responder.settings())
        body = bytearray(b"a" * 300_000)
        future = engine.submit(None, body, timeout_s=20, object_id="path")
        body[:] = b"b" * len(body)
        future.result(20)
        assert responder.objects[("", "path")] == [b"a" * 300_000]
        engine.close()


def test_what_waited_for_a_stopped_process_tells_no_round_trip(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suspended, starved, in a debugger: what came meanwhile waited in the socket. Else the next puts would not even be tried."""
    engine = Engine(responder.settings())
    for number in range(8):
        put(engine, str(number))
    waits = iter([1.0])
    assert engine._readiness is not None
    wait_for = engine._readiness.wait

    def oversleep(timeout_s: float, **options: Any) -> None:
        threading.Event().wait(next(waits, 0.0))
        wait_for(timeout_s, **options)

    monkeypatch.setattr(engine._readiness, "wait", oversleep)
    futures = [submit(engine, f"during {number}") for number in range(8)]
    for future in futures:
        assert future.result(10).fields["ETag"]
    assert next(waits, None) is None
    assert engine._link is not None
    path = engine._link.sender.path
    assert path.rtt.timeout_s < 0.3
    assert path.confirmation.timeout_s < 0.3
    engine.close()


@pytest.mark.parametrize("call", [put, submit], ids=["put", "future"])
def test_a_put_that_finds_the_engine_just_closed_ends(responder: Responder, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    """Between the look for the link and the lock; what is added to a link that is shut would never be looked after."""
    engine = Engine(responder.settings())
    put(engine, "a")
    open_link = engine._open

    def open_and_close() -> Any:
        link = open_link()
        engine.close()
        return link

    monkeypatch.setattr(engine, "_open", open_and_close)
    with pytest.raises(TransferCancelled):
        call(engine, "b", timeout_s=1)
    monkeypatch.undo()
    assert put(engine, "c").fields["ETag"]
    engine.close()


def test_a_resolver_that_fails_does_not_take_away_what_is_known(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(responder.settings())
    put(engine, "a", timeout_s=3)
    assert engine._link is not None
    engine._link.route.wants_addresses = True

    def resolve(*_: object) -> Any:
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(engine_module, "resolve", resolve)
    put(engine, "b", timeout_s=3)
    put(engine, "c", timeout_s=3)
    engine.close()


def test_an_answer_that_came_too_late_is_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    questions, may_answer = [], threading.Event()

    def slow(name: bytes, port: int, **options: int) -> Any:
        if options["flags"]:
            raise OSError("not a literal address")
        questions.append(name)
        assert may_answer.wait(10)
        return [(socket.AF_INET, None, None, None, ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    for _ in range(3):
        with pytest.raises(OSError, match="in time"):
            lookup.resolve("gateway.example.com", 51820, 0.05)
    may_answer.set()
    assert lookup.resolve("gateway.example.com", 51820, 5.0) == [(socket.AF_INET, ("192.0.2.1", 51820))]
    assert questions == [b"gateway.example.com"]
    lookup.resolve("gateway.example.com", 51820, 5.0)
    assert len(questions) == 2, "answers are not kept"
