"""Attacks on futures and on who leads: no threads, no descriptors, callbacks that exit or fork, interrupts, a close between."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raptor_s3.errors import ConfirmationTimeout, HandshakeTimeout, RaptorError, TransferCancelled
from raptor_s3.net import engine as engine_module
from raptor_s3.net.engine import Engine
from tests.responder import Responder, put_fields

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 4.0


def put(engine: Engine, key: str, body: bytes = b"body", timeout_s: float = 10) -> Any:
    return engine.put(put_fields(key, body), body, timeout_s=timeout_s)


def submit(engine: Engine, key: str, timeout_s: float = 10) -> Any:
    return engine.submit(put_fields(key, b"body"), b"body", timeout_s=timeout_s)


@pytest.mark.parametrize("missing", ["raptor-s3-futures", "raptor-s3"])
def test_a_future_for_which_there_is_no_thread_is_refused_unsent(
    responder: Responder, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    engine = Engine(responder.settings())
    put(engine, "a")
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name == missing:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_others)
        with pytest.raises(RuntimeError, match="new thread"):
            submit(engine, "b")
    assert engine._link is not None
    assert not engine._link.puts
    assert submit(engine, "c").result(PATIENCE_S).fields["ETag"], "there are threads again"
    assert ("bucket", "b") not in responder.objects
    engine.close()


def test_a_callback_that_exits_does_not_keep_the_next_future_waiting(
    responder: Responder, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(responder.settings())
    with responder.lock:
        submit(engine, "a").add_done_callback(lambda future: sys.exit(3))
        future = submit(engine, "b")
    assert future.result(PATIENCE_S).fields["ETag"]
    assert "callback" in caplog.text
    engine.close()


def test_a_callback_that_forks_leaves_the_other_futures_to_the_parent() -> None:
    """Its child returns from it, into the thread that resolves futures: with nothing to do there, it ends."""
    program = """
import os, signal, threading, time
from raptor_s3.net.engine import Engine
from tests.responder import Responder, put_fields
with Responder() as responder:
    engine, children = Engine(responder.settings()), []
    read, write = os.pipe()
    def fork(future):
        while engine._link.puts:
            time.sleep(0.001)
        child = os.fork()
        if child:
            children.append(child)
        else:
            signal.alarm(3)
    with responder.lock:
        for key in "abcd":
            future = engine.submit(put_fields(key, b"1"), b"1", timeout_s=10)
            future.add_done_callback(fork if key == "a" else lambda future: os.write(write, b"%d " % os.getpid()))
    while not children:
        time.sleep(0.001)
    _, status = os.waitpid(children[0], 0)
    said = []
    while len(said) < 3:
        said += os.read(read, 1000).split()
    os._exit(0 if status == 0 and said == [b"%d" % os.getpid()] * 3 else 1)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("step", ["add", "next_run"])
def test_an_interrupt_before_the_caller_has_its_future(responder: Responder, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    engine = Engine(responder.settings())
    put(engine, "a")
    assert engine._link is not None
    sender = engine._link.sender
    real = getattr(sender, step)

    def interrupted(argument: Any) -> Any:
        real(argument)
        raise KeyboardInterrupt

    monkeypatch.setattr(sender, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit(engine, "b")
    monkeypatch.undo()
    assert not engine._link.puts, "nobody waits for it"
    assert submit(engine, "c", timeout_s=2).result(PATIENCE_S).fields["ETag"]
    engine.close()


def test_who_can_not_wait_for_an_answer_sends_nothing(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left: nobody could poll the socket."""

    def refuse() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    engine = Engine(responder.settings())
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "Readiness", refuse)
        with pytest.raises(HandshakeTimeout, match="Too many"):
            put(engine, "a", timeout_s=1)
    assert not responder.received
    assert put(engine, "b").fields["ETag"]
    engine.close()


@pytest.mark.parametrize("call", [put, submit], ids=["put", "future"])
def test_a_leader_whose_every_turn_fails_does_not_spin(responder: Responder, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    engine = Engine(responder.settings())
    put(engine, "a")
    responder.sink = lambda ready: None
    assert engine._readiness is not None
    turns = []

    def fail(*_: object, **__: object) -> None:
        turns.append(1)
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(engine._readiness, "wait", fail)
    with contextlib.suppress(ConfirmationTimeout):
        assert isinstance(call(engine, "b", timeout_s=0.5).exception(PATIENCE_S), ConfirmationTimeout)
    assert 1 < len(turns) < 30
    engine.close()


def test_a_put_whose_engine_is_closed_under_it(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks for the link."""
    engine = Engine(responder.settings())
    put(engine, "a")
    link = engine._link
    assert link is not None
    link.route.wants_addresses = True
    real = engine_module.resolve

    def resolve_and_close(*arguments: Any) -> Any:
        monkeypatch.undo()
        engine.close()
        return [*real(*arguments), (socket.AF_INET, ("127.0.0.1", 9))]

    monkeypatch.setattr(engine_module, "resolve", resolve_and_close)
    with pytest.raises(TransferCancelled):
        put(engine, "b")
    assert link.route.socket is None
    assert put(engine, "c").fields["ETag"]
    engine.close()


def test_who_waits_for_a_closed_engine_is_woken_and_closes_what_he_waits_for(responder: Responder) -> None:
    """The next one to get the descriptor would be read from; and whoever leads would sleep until its timer."""
    engine = Engine(responder.settings(handshake_timeout_s=30))
    responder.drop = lambda message: True
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(RaptorError):
            put(engine, "a", timeout_s=30)
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    while not engine._polling_until:
        time.sleep(0.001)
    readiness, began_at = engine._readiness, time.monotonic()
    assert readiness is not None
    waiting = threading.Event()
    real = readiness.wait

    def wait_longer(timeout_s: float, *, writable: bool = False) -> None:
        waiting.set()
        real(20.0, writable=writable)

    readiness.wait = wait_longer  # type: ignore[method-assign]
    assert waiting.wait(5)
    engine.close()
    assert ended.wait(PATIENCE_S)
    assert time.monotonic() - began_at < 15
    assert readiness._event == -1
