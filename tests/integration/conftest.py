"""What the tests of the engine share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from raptor_s3.net.engine import _all_engines
from tests.responder import Responder, Restartable

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _leaves_nothing_under_way() -> Iterator[None]:
    """A put that outlives its test goes on trying, in the next tests' time and among what they count."""
    yield
    deadline = time.monotonic() + 10
    while any(engine._link is not None and (engine._link.puts or engine._link.alone.put) for engine in _all_engines):
        assert time.monotonic() < deadline, "the test has left puts under way"
        time.sleep(0.01)


@pytest.fixture
def responder() -> Iterator[Responder]:
    with Responder() as running:
        yield running


@pytest.fixture
def restartable() -> Iterator[Restartable]:
    made = Restartable()
    yield made
    made.stop()
