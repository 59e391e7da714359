"""The addresses of an endpoint's name, without waiting for a resolver that does not come to an end.

Invariant: of each name there is one question at a time, and the answer to one that took too long is the next one's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

Address = tuple[int, Any]
"""Address family, and the address as the socket module writes it."""

_lock = threading.Lock()
_open_questions: dict[tuple[int, str, int], Future[list[Address]]] = {}


def resolve(host: str, port: int, timeout_s: float) -> list[Address]:
    """The endpoint's addresses in the order to try them. Waits for the resolver, but no longer than `timeout_s`.

    Raises OSError when there are none.
    """
    with contextlib.suppress(OSError):  # a literal address needs no resolver
        return _addresses(host, port, socket.AI_NUMERICHOST)
    question = (os.getpid(), host, port)  # a fork's child has none of its parent's threads
    with _lock:
        answer = _open_questions.get(question)
        if answer is None:
            answer = _open_questions[question] = Future()
            threading.Thread(target=_ask, args=(question, answer), name="raptor-s3-resolver", daemon=True).start()
    try:
        addresses = answer.result(timeout_s)
    except FutureTimeoutError:
        if not answer.done():
            raise OSError(errno.ETIMEDOUT, f"{host} could not be resolved in time") from None
        addresses = answer.result()
    finally:
        if answer.done():
            with _lock:
                if _open_questions.get(question) is answer:
                    del _open_questions[question]
    return addresses


def _ask(question: tuple[int, str, int], answer: Future[list[Address]]) -> None:
    try:
        answer.set_result(_addresses(*question[1:], 0))
    except Exception as error:
        answer.set_exception(error)


def _addresses(host: str, port: int, flags: int) -> list[Address]:
    # Octets go to the resolver as they are; for text Python loads its IDNA codec first, 2 ms that ASCII does not need.
    name = host.encode() if host.isascii() else host
    found = socket.getaddrinfo(name, port, type=socket.SOCK_DGRAM, flags=flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
