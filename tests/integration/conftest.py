"""What the tests of the engine share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.responder import Responder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def responder() -> Iterator[Responder]:
    with Responder() as running:
        yield running
