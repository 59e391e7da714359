"""A Tunnel and a Listener that know each other, with nothing but variables between them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from raptor_s3.wireguard.keys import KeyPair, generate_private_key
from raptor_s3.wireguard.listener import Data as Received
from raptor_s3.wireguard.listener import Listener, PeerConfig, Send
from raptor_s3.wireguard.session import Session
from raptor_s3.wireguard.tunnel import HandshakeComplete, Tunnel

SOURCE = ("192.0.2.7", 4711)
UNIX_TIME = 1_700_000_000.0


def reproducible(seed: object) -> Callable[[int], bytes]:
    calls = iter(range(1 << 30))
    return lambda size: hashlib.shake_256(f"{seed} {next(calls)}".encode()).digest(size)


class Pair:
    """`tunnel` and `listener`; `clock` is `now` for both, and offset by UNIX_TIME the time of day."""

    def __init__(self, seed: object = 0, *, preshared_key: bytes | None = None, **listener_options: int) -> None:
        self.random = reproducible(seed)
        self.clock = 1000.0
        self.client = KeyPair(generate_private_key(self.random))
        self.server = KeyPair(generate_private_key(self.random))
        self.preshared_key = preshared_key
        self.tunnel = self.new_tunnel()
        self.listener = Listener(
            self.server.private, {self.client.public: PeerConfig(preshared_key)}, random=self.random, **listener_options
        )

    def new_tunnel(self) -> Tunnel:
        """Another process of the same device."""
        return Tunnel(self.client.private, self.server.public, self.preshared_key, random=self.random)

    def initiation(self, tunnel: Tunnel | None = None) -> bytes:
        self.clock += 0.1
        return (tunnel or self.tunnel).initiation(self.clock, UNIX_TIME + self.clock)

    def answer(self, message: bytes, source: tuple[str, int] = SOURCE) -> bytes:
        """The one datagram that the listener sends back."""
        [outcome] = self.listener.receive(message, source, self.clock)
        assert isinstance(outcome, Send)
        assert outcome.destination == source
        return outcome.message

    def shake_hands(self, tunnel: Tunnel | None = None) -> Session:
        """The initiator's new session; the responder's is not confirmed yet."""
        tunnel = tunnel or self.tunnel
        event = tunnel.receive(self.answer(self.initiation(tunnel)), self.clock)
        assert isinstance(event, HandshakeComplete)
        return event.session

    def deliver(self, message: bytes, source: tuple[str, int] = SOURCE) -> Received:
        [outcome] = self.listener.receive(message, source, self.clock)
        assert isinstance(outcome, Received)
        return outcome
