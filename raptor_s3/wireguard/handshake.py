"""Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (whitepaper 5.4.1 to 5.4.5), driven by noiseprotocol.

    initiation:  e, es, s, ss, {timestamp}      32 + 48 + 28 octets
    response:    e, ee, se, psk, {}             32 + 16 octets

The Noise parts only; types, indices and MACs around them belong to `messages` and `cookie`. Key pairs for `e` come
from the caller.

Invariant: a message that does not authenticate leaves the handshake as it was, so a forged response can't spoil the real one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noise.noise_protocol import NoiseProtocol

from raptor_s3.errors import AuthenticationFailed
from raptor_s3.wireguard.constants import CONSTRUCTION, IDENTIFIER, TIMESTAMP_SIZE
from raptor_s3.wireguard.noise_backend import KeyPair25519, SodiumBackend

if TYPE_CHECKING:
    from raptor_s3.wireguard.keys import KeyPair

NO_PRESHARED_KEY = bytes(32)

_BACKEND = SodiumBackend()


class TransportKeys(NamedTuple):
    """The two keys of KDF_2(C, empty) (whitepaper 5.4.5), by direction of the initiator."""

    initiator_sends: bytes
    responder_sends: bytes

    def __repr__(self) -> str:
        return "TransportKeys(...)"


class InitiatorHandshake:
    """One handshake of ours: write the initiation, then read responses until one is authentic."""

    def __init__(self, static: KeyPair, peer_public: bytes, preshared_key: bytes | None, ephemeral: KeyPair) -> None:
        self._protocol = _protocol(
            initiator=True,
            preshared_key=preshared_key,
            s=KeyPair25519.from_key_pair(static),
            e=KeyPair25519.from_key_pair(ephemeral),
            rs=KeyPair25519.from_public_bytes(peer_public),
        )

    def write_initiation(self, timestamp: bytes) -> bytes:
        """The Noise part of an initiation, 108 octets.

        `timestamp`: TAI64N. Raises AuthenticationFailed if the peer's public key is of low order.
        """
        message = bytearray()
        self._protocol.handshake_state.write_message(timestamp, message)
        return bytes(message)

    def read_response(self, noise: bytes) -> TransportKeys:
        """The keys, from the Noise part of a response (48 octets). Raises AuthenticationFailed and may then be called again."""
        protocol = self._protocol
        handshake, symmetric = protocol.handshake_state, protocol.symmetric_state
        cipher = symmetric.cipher_state
        saved = (symmetric.h, symmetric.ck, cipher.k, cipher.n, handshake.re)
        patterns, preshared_keys = list(handshake.message_patterns), list(protocol.psks)
        try:
            first, second = handshake.read_message(noise, bytearray())
        except AuthenticationFailed:
            symmetric.h, symmetric.ck, cipher.k, cipher.n, handshake.re = saved
            handshake.message_patterns, protocol.psks = patterns, preshared_keys
            raise
        return TransportKeys(first.k, second.k)


class ResponderHandshake:
    """One handshake of a peer's: read the initiation, look the peer up, then answer."""

    peer_public: bytes
    timestamp: bytes

    def __init__(self, static: KeyPair, noise: bytes) -> None:
        """Reads the Noise part of an initiation (108 octets): `peer_public` and `timestamp` are then known and authentic.

        Raises AuthenticationFailed.
        """
        self._protocol = _protocol(initiator=False, preshared_key=None, s=KeyPair25519.from_key_pair(static))
        payload = bytearray()
        handshake = self._protocol.handshake_state
        handshake.read_message(noise, payload)
        if len(payload) != TIMESTAMP_SIZE:
            raise AuthenticationFailed("initiation without a timestamp")
        self.peer_public = handshake.rs.public_bytes
        self.timestamp = bytes(payload)

    def write_response(self, preshared_key: bytes | None, ephemeral: KeyPair) -> tuple[bytes, TransportKeys]:
        """The Noise part of the response (48 octets) and the keys. Once per handshake."""
        self._protocol.psks = [preshared_key or NO_PRESHARED_KEY]
        handshake = self._protocol.handshake_state
        handshake.e = KeyPair25519.from_key_pair(ephemeral)
        message = bytearray()
        first, second = handshake.write_message(b"", message)
        return bytes(message), TransportKeys(first.k, second.k)


def _protocol(*, initiator: bool, preshared_key: bytes | None, **keypairs: KeyPair25519) -> Any:
    # NoiseConnection and validate() are passed by: they import the default backend and warn about injected ephemeral keys.
    protocol = NoiseProtocol(CONSTRUCTION, _BACKEND)
    protocol.initiator = initiator
    protocol.prologue = IDENTIFIER
    protocol.psks = [preshared_key or NO_PRESHARED_KEY]
    protocol.keypairs.update(keypairs)
    protocol.initialise_handshake_state()
    return protocol
