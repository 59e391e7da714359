"""The addresses of an endpoint's name, without waiting for a resolver that does not come to an end.

Invariants: of each name there is one question at a time, and the answer to one that took too long is the next one's. A question
that nobody asks (no thread for it, interrupted, a fork's child) is forgotten.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from raptor_s3.net.forking import in_forked_child

Address = tuple[int, Any]
"""Address family, and the address as the socket module writes it."""

_lock = threading.Lock()
_open_questions: dict[tuple[str, int], Future[list[Address]]] = {}


def resolve(host: str, port: int, timeout_s: float) -> list[Address]:
    """The endpoint's addresses in the order to try them. Waits for the resolver, but no longer than `timeout_s`.

    Raises OSError when there are none.
    """
    with contextlib.suppress(OSError):  # a literal address needs no resolver
        return _addresses(host, port, socket.AI_NUMERICHOST)
    question = (host, port)
    answer = _find_or_ask(question)
    try:
        addresses = answer.result(timeout_s)
    except FutureTimeoutError:
        if not answer.done():
            raise OSError(errno.ETIMEDOUT, f"{host} could not be resolved in time") from None
        addresses = answer.result()
    finally:
        if answer.done():
            _forget(question, answer)
    return addresses


def _find_or_ask(question: tuple[str, int]) -> Future[list[Address]]:
    own: Future[list[Address]] = Future()
    thread = threading.Thread(target=_ask, args=(question, own), name="raptor-s3-resolver", daemon=True)
    try:
        with _lock:
            answer = _open_questions.setdefault(question, own)
        if answer is own:
            thread.start()
    except BaseException as error:
        if thread.ident is None:
            no_thread = socket.gaierror(socket.EAI_AGAIN, f"{question[0]} could not be looked up: {error!r}")
            _forget(question, own)
            _answer(own, no_thread)  # to those who have found it in the meantime
            if isinstance(error, RuntimeError):  # can't start new thread
                raise no_thread from error
        raise
    return answer


def _forget(question: tuple[str, int], answer: Future[list[Address]]) -> None:
    with _lock:
        if _open_questions.get(question) is answer:
            del _open_questions[question]


def _ask(question: tuple[str, int], answer: Future[list[Address]]) -> None:
    try:
        _answer(answer, _addresses(*question, 0))
    except Exception as error:
        _answer(answer, error)


def _answer(answer: Future[list[Address]], result: list[Address] | Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # it was thought that nobody asks
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)


def _addresses(host: str, port: int, flags: int) -> list[Address]:
    # Octets go to the resolver as they are; for text Python loads its IDNA codec first, 2 ms that ASCII does not need.
    name = host.encode() if host.isascii() else host
    found = socket.getaddrinfo(name, port, type=socket.SOCK_DGRAM, flags=flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


@in_forked_child
def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _open_questions.clear()
