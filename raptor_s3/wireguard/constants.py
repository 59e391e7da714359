"""The numbers of the WireGuard whitepaper (sections 5 and 6.1), then our own limits. Times in seconds."""

from __future__ import annotations

from typing import Final

# Whitepaper 5.4: Noise construction, identifier (prologue) and labels.
CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"

# Whitepaper 6.1.
REKEY_AFTER_MESSAGES: Final = 2**60
REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1
REKEY_AFTER_TIME: Final = 120.0
REJECT_AFTER_TIME: Final = 180.0
REKEY_ATTEMPT_TIME: Final = 90.0
REKEY_TIMEOUT: Final = 5.0
KEEPALIVE_TIMEOUT: Final = 10.0
# Whitepaper 5.4.7 and 6.6: the responder's secret changes every two minutes; the reference stops using a cookie 5 s earlier.
COOKIE_SECRET_MAX_AGE: Final = 120.0
COOKIE_SECRET_LATENCY: Final = 5.0

KEY_SIZE: Final = 32
TAG_SIZE: Final = 16
MAC_SIZE: Final = 16
TIMESTAMP_SIZE: Final = 12
# Type, receiver index and counter in front of the ciphertext, the tag behind it.
TRANSPORT_HEADER_SIZE: Final = 16
TRANSPORT_OVERHEAD: Final = TRANSPORT_HEADER_SIZE + TAG_SIZE

# RFC 6479: a ring of 2^13 bits, of which one 64-bit block is always being cleared.
WINDOW_BITS: Final = 2**13
WINDOW_BLOCK_BITS: Final = 64
WINDOW_SIZE: Final = WINDOW_BITS - WINDOW_BLOCK_BITS

# Ours. A put can't wait for REKEY_TIMEOUT when its initiation was lost, so retransmission starts sooner and backs off to it.
INITIATION_RETRANSMIT: Final = 1.0
# Initiations that may still be answered: a response that crosses a retransmission is not wasted.
MAX_PENDING_INITIATIONS: Final = 5
MAX_SESSIONS_PER_PEER: Final = 8
# Above this many initiations with a valid mac1 in a second (5% of a core), the responder asks for mac2.
UNDER_LOAD_INITIATIONS_PER_S: Final = 200
# With a valid mac2, each source address and each peer key still has a token bucket for initiations.
INITIATIONS_PER_S: Final = 20
INITIATIONS_BURST: Final = 16
MAX_RATE_LIMIT_ENTRIES: Final = 4096
# Where datagrams get lost an initiator sends each initiation twice, so far apart; the responder answers both with one response.
REPEAT_INITIATION: Final = 0.025
REPEAT_WITHIN: Final = 1.0
MAX_REPEATABLE_RESPONSES: Final = 256
