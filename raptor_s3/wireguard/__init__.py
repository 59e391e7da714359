"""WireGuard, sans-IO: both roles of the protocol of the whitepaper, for datagrams instead of IP packets (docs/wireguard.md).

    constants   numbers of the whitepaper, and our own limits apart from them
    messages    the four message types, bytes to values and back
    sodium      the only place that touches libsodium (PyNaCl's cffi layer)
    symmetric   BLAKE2s, HMAC, KDF, TAI64N and the two AEADs of the handshake
    keys        X25519 key pairs and their base64 form
    replay      the sliding window over received counters (RFC 6479)
    counters    nonces for sending, taken from ranges that may be shared between processes
    arena       many transport messages at once, in C where it was built
    session     one pair of transport keys: seal and open datagrams
    handshake   Noise_IKpsk2, driven by noiseprotocol (imported only when a handshake starts)
    noise_backend   libsodium and hashlib as noiseprotocol's primitives
    cookie      mac1, mac2, cookie replies: denial-of-service defence (whitepaper 5.3, 5.4.4, 5.4.7)
    ratelimit   load meter and token buckets
    tunnel      initiator for one peer: `Tunnel`
    listener    responder for many peers: `Listener`

No module here reads a clock, opens a socket or draws randomness: `now` (seconds, monotonic), `unix_time` (seconds since 1970) and
`random: Callable[[int], bytes]` are arguments. Nothing is thread-safe; the owner of a Tunnel or Listener serialises calls.

Invariant: indices, windows, timers and endpoints change only after a tag has verified; no nonce is used twice under one key.
"""
