"""Write tests/vectors/wireguard_go.json: what wireguard-go said to us, with the keys and randomness to replay our side.

As root, with the tools of wireguard_go_rig: python tests/interop/record_wireguard_go.py
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from test_wireguard_go import MAX_DATAGRAM, THEIRS, Client, Server, cookie_reply_under_load
from wireguard_go_rig import WireGuardGo, running

from raptor_s3.wireguard.keys import KeyPair, generate_private_key
from raptor_s3.wireguard.listener import Listener, PeerConfig, Send

PATH = Path(__file__).resolve().parents[1] / "vectors" / "wireguard_go.json"
UNIX_TIME = 1_700_000_000.5


def stream(seed: str) -> Callable[[int], bytes]:
    """Reproducible randomness: SHAKE-256 of the seed and the call's number."""
    calls = iter(range(1 << 30))
    return lambda size: hashlib.shake_256(f"{seed} {next(calls)}".encode()).digest(size)


def record_initiator() -> dict[str, Any]:
    own, theirs = (KeyPair(generate_private_key(os.urandom)) for _ in range(2))
    preshared_key = os.urandom(32)
    with running(private_key=theirs.private, peer_public_key=own.public, preshared_key=preshared_key) as device:
        client = Client(device, own, theirs.public, preshared_key, random=stream("initiator"))
        initiation = client.tunnel.initiation(0.0, UNIX_TIME)
        client.socket.sendto(initiation, THEIRS)
        response = client.socket.recv(MAX_DATAGRAM)
        client.tunnel.receive(response, 0.0)
        assert client.tunnel.session is not None
        request = client.tunnel.session.seal(client.packet(b"request"), 0.0)
        client.socket.sendto(request, THEIRS)
        data, source = client.inner.recvfrom(MAX_DATAGRAM)
        assert data == b"request"
        client.inner.sendto(b"reply", source)
        reply = client.socket.recv(MAX_DATAGRAM)
    return {
        "seed": "initiator",
        "unix_time": UNIX_TIME,
        "own_private_key": own.private.hex(),
        "peer_public_key": theirs.public.hex(),
        "preshared_key": preshared_key.hex(),
        "initiation": initiation.hex(),
        "response": response.hex(),
        "request_plaintext": client.packet(b"request").hex(),
        "request": request.hex(),
        "reply": reply.hex(),
    }


def record_responder() -> dict[str, Any]:
    own, theirs = (KeyPair(generate_private_key(os.urandom)) for _ in range(2))
    preshared_key = os.urandom(32)
    with WireGuardGo() as device:
        device.configure(theirs.private, own.public, preshared_key=preshared_key, endpoint=("127.0.0.2", 40000))
        server = Server(device, own, theirs.public, PeerConfig(preshared_key), 40000)
        server.listener = Listener(own.private, {theirs.public: PeerConfig(preshared_key)}, random=stream("responder"))
        server.send_inner(b"request")
        initiation, source = server.socket.recvfrom(MAX_DATAGRAM)
        [response] = server.listener.receive(initiation, source, 0.0)
        assert isinstance(response, Send)
        server.socket.sendto(*response)
        request = server.socket.recv(MAX_DATAGRAM)
    return {
        "seed": "responder",
        "own_private_key": own.private.hex(),
        "peer_public_key": theirs.public.hex(),
        "preshared_key": preshared_key.hex(),
        "initiation": initiation.hex(),
        "response": response.message.hex(),
        "request": request.hex(),
    }


def record_cookie_from_wireguard_go() -> dict[str, Any]:
    own, theirs = (KeyPair(generate_private_key(os.urandom)) for _ in range(2))
    with running(private_key=theirs.private, peer_public_key=own.public) as device:
        initiation, reply = cookie_reply_under_load(Client(device, own, theirs.public))
    return {"peer_public_key": theirs.public.hex(), "initiation": initiation.hex(), "cookie_reply": reply.hex()}


def record_cookie_to_wireguard_go() -> dict[str, Any]:
    own, theirs = (KeyPair(generate_private_key(os.urandom)) for _ in range(2))
    with WireGuardGo() as device:
        device.configure(theirs.private, own.public, endpoint=("127.0.0.2", 40000))
        server = Server(device, own, theirs.public, PeerConfig(), 40000)
        server.listener = Listener(
            own.private, {theirs.public: PeerConfig()}, random=stream("cookie"), under_load_initiations_per_s=0
        )
        server.send_inner(b"request")
        server.receive_data()
        (initiation, source), (second_initiation, _) = server.messages[:2]
    return {
        "seed": "cookie",
        "own_private_key": own.private.hex(),
        "source": source,
        "initiation": initiation.hex(),
        "second_initiation": second_initiation.hex(),
    }


if __name__ == "__main__":
    recorded = {
        "we_initiate": record_initiator(),
        "wireguard_go_initiates": record_responder(),
        "cookie_from_wireguard_go": record_cookie_from_wireguard_go(),
        "cookie_to_wireguard_go": record_cookie_to_wireguard_go(),
    }
    PATH.write_text(json.dumps(recorded, indent=2) + "\n")
