"""Names are looked up by threads that may not come to an end, may not start, and do not survive a fork."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from raptor_s3.net import lookup

NAME = "gateway.example.com"
FOUND = [(socket.AF_INET, ("192.0.2.1", 51820))]


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Answers once this is set."""
    may_answer = threading.Event()

    def slow(name: bytes, port: int, **options: int) -> Any:
        if options["flags"]:
            raise OSError("not a literal address")
        assert may_answer.wait(10)
        return [(socket.AF_INET, None, None, None, ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield may_answer
    may_answer.set()
    lookup._open_questions.clear()


def refuse(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def start(thread: threading.Thread) -> None:
        raise error

    monkeypatch.setattr(threading.Thread, "start", start)


def test_without_a_thread_a_name_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, resolver: threading.Event) -> None:
    resolver.set()
    with monkeypatch.context() as context:
        refuse(context, RuntimeError("can't start new thread"))
        with pytest.raises(OSError, match="can't start new thread") as raised:
            lookup.resolve(NAME, 51820, 1.0)
    assert raised.value.errno == socket.EAI_AGAIN
    assert lookup.resolve(NAME, 51820, 1.0) == FOUND


def test_interrupted_before_the_thread_starts(monkeypatch: pytest.MonkeyPatch, resolver: threading.Event) -> None:
    resolver.set()
    with monkeypatch.context() as context:
        refuse(context, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            lookup.resolve(NAME, 51820, 1.0)
    assert lookup.resolve(NAME, 51820, 1.0) == FOUND


def test_interrupted_when_the_thread_has_started(monkeypatch: pytest.MonkeyPatch, resolver: threading.Event) -> None:
    """Its answer is the next one's."""
    start = threading.Thread.start
    threads = []

    def start_and_raise(thread: threading.Thread) -> None:
        start(thread)
        threads.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_raise)
    with pytest.raises(KeyboardInterrupt):
        lookup.resolve(NAME, 51820, 1.0)
    resolver.set()
    assert lookup.resolve(NAME, 51820, 1.0) == FOUND
    assert len(threads) == 1


def test_who_waits_for_a_question_that_nobody_asks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def follow() -> None:
        try:
            lookup.resolve(NAME, 51820, 5.0)
        except OSError as error:
            told.append(error.errno)

    start = threading.Thread.start
    follower = threading.Thread(target=follow)

    def start_follower_and_raise(thread: threading.Thread) -> None:
        assert not lookup._lock.locked(), "a thread takes its time to start"
        start(follower)
        while not lookup._open_questions[NAME, 51820]._condition._waiters:  # type: ignore[attr-defined]
            pass
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start_follower_and_raise)
    with pytest.raises(OSError, match="can't start new thread"):
        lookup.resolve(NAME, 51820, 1.0)
    follower.join(5.0)
    assert told == [socket.EAI_AGAIN]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("state", ["locked", "asked"])
def test_children_ask_for_themselves(state: str, resolver: threading.Event) -> None:
    """A thread that is not in the child holds the lock, or asks the question."""
    with pytest.raises(OSError, match="in time"):
        lookup.resolve(NAME, 51820, 0.01)
    if state == "locked":
        lookup._open_questions.clear()
        lookup._lock.acquire()
    try:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(5)
                resolver.set()
                status = int(lookup.resolve(NAME, 51820, 3.0) != FOUND)
            finally:
                os._exit(status)
    finally:
        if state == "locked":
            lookup._lock.release()
    assert os.waitpid(pid, 0)[1] == 0
