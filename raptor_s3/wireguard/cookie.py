"""mac1, mac2 and cookie replies: who may make a responder compute (whitepaper 5.3, 5.4.4, 5.4.7).

    mac1 = MAC(HASH("mac1----" || responder's public key), message before mac1)     proves knowledge of the public key
    mac2 = MAC(cookie, message before mac2)                                          proves ownership of the source address
    cookie = MAC(a secret that changes every two minutes, source address)            sent under XChaCha20-Poly1305

`MacWriter` is the sending side of handshake messages and holds the last cookie; `MacChecker` is the receiving side
and issues cookies.

Invariant: a checker keeps no state about sources.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from raptor_s3.wireguard import messages
from raptor_s3.wireguard.constants import (
    COOKIE_SECRET_LATENCY,
    COOKIE_SECRET_MAX_AGE,
    LABEL_COOKIE,
    LABEL_MAC1,
    MAC_SIZE,
)
from raptor_s3.wireguard.sodium import is_equal, xaead_open, xaead_seal
from raptor_s3.wireguard.symmetric import hash_blake2s, mac

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.wireguard.session import Address

_NO_MAC = bytes(MAC_SIZE)


class MacWriter:
    """Appends the MACs to handshake messages for one peer; learns cookies from its replies."""

    def __init__(self, peer_public: bytes) -> None:
        self._mac1_key = hash_blake2s(LABEL_MAC1 + peer_public)
        self._cookie_key = hash_blake2s(LABEL_COOKIE + peer_public)
        self._cookie = b""
        self._cookie_expires_at = -math.inf

    def finish(self, message: bytes, now: float) -> bytes:
        """`message` (up to mac1) with mac1 and mac2; mac2 is zero without a cookie that is still good."""
        message += mac(self._mac1_key, message)
        return message + (mac(self._cookie, message) if now < self._cookie_expires_at else _NO_MAC)

    def receive_cookie(self, reply: messages.CookieReply, question_mac1: bytes, now: float) -> None:
        """Take the cookie for the handshake messages to come.

        Raises AuthenticationFailed unless it answers the message with `question_mac1`.
        """
        self._cookie = xaead_open(self._cookie_key, reply.nonce, reply.encrypted_cookie, question_mac1)
        self._cookie_expires_at = now + COOKIE_SECRET_MAX_AGE - COOKIE_SECRET_LATENCY


class MacChecker:
    """Checks the MACs of handshake messages that arrive; makes cookie replies. `random` as `os.urandom`."""

    def __init__(self, own_public: bytes, random: Callable[[int], bytes]) -> None:
        self._mac1_key = hash_blake2s(LABEL_MAC1 + own_public)
        self._cookie_key = hash_blake2s(LABEL_COOKIE + own_public)
        self._random = random
        self._secret = b""
        self._secret_expires_at = -math.inf

    def mac1_is_valid(self, message: bytes, mac1: bytes) -> bool:
        """`message` whole, as it arrived."""
        return is_equal(mac(self._mac1_key, messages.before_mac1(message)), mac1)

    def mac2_is_valid(self, message: bytes, mac2: bytes, source: Address, now: float) -> bool:
        """`message` whole; true only for a cookie that was issued to `source` under the present secret."""
        if now >= self._secret_expires_at:
            return False
        return is_equal(mac(self._cookie_for(source), messages.before_mac2(message)), mac2)

    def cookie_reply(self, sender_index: int, mac1: bytes, source: Address, now: float) -> bytes:
        """The answer to a handshake message with these fields from `source`: 64 octets, fewer than any question has."""
        if now >= self._secret_expires_at:
            self._secret = self._random(32)
            self._secret_expires_at = now + COOKIE_SECRET_MAX_AGE
        nonce = self._random(24)
        encrypted = xaead_seal(self._cookie_key, nonce, self._cookie_for(source), mac1)
        return messages.build_cookie_reply(sender_index, nonce, encrypted)

    def _cookie_for(self, source: Address) -> bytes:
        return mac(self._secret, source[1].to_bytes(2, "big") + source[0].encode())
