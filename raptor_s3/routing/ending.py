"""What an error that ended a put on the fast path says: about the endpoint, about S3, about the object.

    is_receivers_own    the receiver speaks of itself, not S3 of the object: HTTPS has its own credentials and its own luck
    failure             what the circuit breaker is told; empty when the endpoint has done its part
    may_have_written    whether the object may be in S3 all the same

Invariant: where nobody can tell whether a put was written, the answer is that it may have been.
"""

from __future__ import annotations

from typing import Final

from raptor_s3.errors import ConfigError, HandshakeTimeout, TransferCancelled, TransferRejected

_RECEIVER_PREFIXES: Final = ("gateway:", "backend:")
_RECEIVERS_OWN: Final = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "SlowDown"}
)


def is_receivers_own(rejection: TransferRejected) -> bool:
    return (
        rejection.status >= 500
        or rejection.status == 429
        or rejection.code in _RECEIVERS_OWN
        or rejection.message.startswith(_RECEIVER_PREFIXES)
    )


def failure(error: Exception) -> str:
    if isinstance(error, TransferRejected):
        is_down = is_receivers_own(error) and may_have_written(error)  # it talks, but does not get to S3
        return f"refused: {error}" if is_down else ""
    kind = "no handshake" if isinstance(error, HandshakeTimeout) else type(error).__name__
    return f"{kind}: {error}"


def may_have_written(error: Exception) -> bool:
    if isinstance(error, TransferRejected):  # RequestExpired: the receiver itself can't tell
        return error.status >= 500 or error.code == "RequestExpired"
    return not isinstance(error, HandshakeTimeout | TransferCancelled | ConfigError)
