"""Conversations with wireguard-go 0.0.20220316, recorded (tests/interop/record_wireguard_go.py) and held again without it.

Our side draws the same randomness, so it must say the same bytes; wireguard-go's bytes must mean what they meant.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raptor_s3.errors import AuthenticationFailed
from raptor_s3.wireguard import messages
from raptor_s3.wireguard.cookie import MacWriter
from raptor_s3.wireguard.listener import Data as Received
from raptor_s3.wireguard.listener import Listener, PeerConfig, Send
from raptor_s3.wireguard.tunnel import Data, HandshakeComplete, Tunnel

RECORDED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "wireguard_go.json").read_text())


def stream(seed: str) -> Callable[[int], bytes]:
    calls = iter(range(1 << 30))
    return lambda size: hashlib.shake_256(f"{seed} {next(calls)}".encode()).digest(size)


def recorded(name: str) -> dict[str, Any]:
    """The conversation with its hexadecimal fields as bytes."""
    fields = {}
    for key, value in RECORDED[name].items():
        fields[key] = bytes.fromhex(value) if isinstance(value, str) and key != "seed" else value
    return fields


def test_we_initiate() -> None:
    said = recorded("we_initiate")
    tunnel = Tunnel(said["own_private_key"], said["peer_public_key"], said["preshared_key"], random=stream(said["seed"]))
    assert tunnel.initiation(0.0, said["unix_time"]) == said["initiation"]
    event = tunnel.receive(said["response"], 0.0)
    assert isinstance(event, HandshakeComplete)
    assert event.session.seal(said["request_plaintext"], 0.0) == said["request"]
    reply = tunnel.receive(said["reply"], 0.0)
    assert isinstance(reply, Data)
    assert reply.plaintext[28:33] == b"reply"  # behind the headers of IPv4 and UDP, before padding


def test_we_initiate_with_another_preshared_key() -> None:
    said = recorded("we_initiate")
    tunnel = Tunnel(said["own_private_key"], said["peer_public_key"], bytes(32), random=stream(said["seed"]))
    assert tunnel.initiation(0.0, said["unix_time"]) == said["initiation"]
    with pytest.raises(AuthenticationFailed):
        tunnel.receive(said["response"], 0.0)


def test_wireguard_go_initiates() -> None:
    said = recorded("wireguard_go_initiates")
    source = ("192.0.2.1", 51820)
    peers = {said["peer_public_key"]: PeerConfig(said["preshared_key"])}
    listener = Listener(said["own_private_key"], peers, random=stream(said["seed"]))
    assert listener.receive(said["initiation"], source, 0.0) == [Send(said["response"], source)]
    [data] = listener.receive(said["request"], source, 0.0)
    assert isinstance(data, Received)
    assert data.peer_key == said["peer_public_key"]
    assert data.plaintext[28:35] == b"request"


def test_cookie_reply_of_wireguard_go() -> None:
    said = recorded("cookie_from_wireguard_go")
    writer = MacWriter(said["peer_public_key"])
    initiation = messages.parse_initiation(said["initiation"])
    assert writer.finish(said["initiation"][:116], 0.0) == said["initiation"]
    reply = messages.parse_cookie_reply(said["cookie_reply"])
    assert reply.receiver_index == initiation.sender_index
    writer.receive_cookie(reply, initiation.mac1, 0.0)
    assert messages.parse_initiation(writer.finish(said["initiation"][:116], 0.0)).mac2 != bytes(16)


def test_wireguard_go_uses_our_cookie() -> None:
    """Its second initiation carries a mac2 that is right for our secret and its address, and for no other address."""
    said = recorded("cookie_to_wireguard_go")
    source = tuple(said["source"])

    def listener() -> Listener:
        return Listener(said["own_private_key"], {}, random=stream(said["seed"]), under_load_initiations_per_s=0)

    ours = listener()
    [reply] = ours.receive(said["initiation"], source, 0.0)
    assert messages.message_type(reply.message) == messages.TYPE_COOKIE_REPLY
    assert ours.receive(said["second_initiation"], source, 5.0) == []
    assert ours.stats.unknown_peer == 1, "the second initiation did not pass mac2"

    elsewhere = listener()
    elsewhere.receive(said["initiation"], source, 0.0)
    [again] = elsewhere.receive(said["second_initiation"], (source[0], source[1] + 1), 5.0)
    assert messages.message_type(again.message) == messages.TYPE_COOKIE_REPLY
