"""An endpoint whose name has several addresses, of which not all answer."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from raptor_s3.errors import HandshakeTimeout
from raptor_s3.net import engine as engine_module
from raptor_s3.net import route
from raptor_s3.net.engine import Engine
from raptor_s3.net.udp import Socket
from tests.responder import Responder, put_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ELSEWHERE = "127.83.9.9"
"""Of this host too, but the responder does not listen there."""
BODY = b"x" * 500


@pytest.fixture
def opened(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses to which sockets were opened, in order. The name has two; the first is not the responder's."""
    places: list[str] = []

    def open_socket(address: Any) -> Socket:
        places.append(address[1][0])
        return Socket(address)

    monkeypatch.setattr(route, "Socket", open_socket)
    addresses = [(socket.AF_INET, (host, responder.port)) for host in (ELSEWHERE, "127.0.0.1")]
    monkeypatch.setattr(engine_module, "resolve", lambda *_: addresses)
    return places


def put(engine: Engine, **options: Any) -> Any:
    return engine.put(put_fields("k", BODY), BODY, **{"timeout_s": 10, **options})


@pytest.fixture(params=["refuses", "is silent"])
def elsewhere(request: pytest.FixtureRequest, responder: Responder) -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as black_hole:
        if request.param == "is silent":
            black_hole.bind((ELSEWHERE, responder.port))
        yield


@pytest.mark.usefixtures("elsewhere")
def test_the_first_address_does_not_answer(responder: Responder, opened: list[str], tmp_path: Path) -> None:
    for expected in ([ELSEWHERE, "127.0.0.1"], ["127.0.0.1"]):  # the next process knows better
        opened.clear()
        engine = Engine(responder.settings(tmp_path / "run"))
        assert put(engine).fields
        assert opened == expected
        engine.close()


@pytest.mark.usefixtures("elsewhere")
def test_nor_does_it_to_a_stored_session(responder: Responder, opened: list[str], tmp_path: Path) -> None:
    directory = tmp_path / "run"
    engine = Engine(responder.settings(directory))
    put(engine)
    engine.close()
    for learned in directory.glob("*.json"):
        learned.unlink()
    engine = Engine(responder.settings(directory))
    outcome = put(engine)
    assert outcome.fields
    assert opened[-1] == "127.0.0.1"
    engine.close()


def test_no_address_answers(responder: Responder, opened: list[str]) -> None:
    port, keys = responder.port, (responder.server_key, responder.client_key)
    engine = Engine(responder.settings())
    responder.stop()
    for _ in range(2):
        with pytest.raises(HandshakeTimeout, match="refused"):
            put(engine)
    assert opened[:2] == [ELSEWHERE, "127.0.0.1"]
    assert len(opened) <= 6
    responder.__init__(port=port, keys=keys)  # type: ignore[misc]
    assert put(engine).fields
    engine.close()
