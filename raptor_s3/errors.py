"""Every exception that raptor-s3 raises, named by who is to blame.

    RaptorError
    ├── ConfigError              the user's settings; names the file, the profile and the key
    ├── MalformedPacket          the peer's bytes; a receiver drops and counts it
    ├── WireGuardError           the tunnel
    │   ├── AuthenticationFailed    a tag did not verify, or the message is a replay
    │   ├── SessionExpired          no usable keys: a handshake is needed first
    │   └── HandshakeTimeout        the peer never answered an initiation (wrong key, no UDP, nobody there)
    └── TransferError            one put
        ├── ConfirmationTimeout     no final state before the deadline
        ├── TransferRejected        the receiver or S3 refused; carries S3's code, message and status
        └── TransferCancelled       the receiver promised that nothing was and nothing will be written

"Not enough symbols yet" is a value, never an exception.
"""

from __future__ import annotations


class RaptorError(Exception):
    """The root of the tree."""


class ConfigError(RaptorError):
    """A setting is unknown or malformed. `source` says where it stands, e.g. `~/.aws/config [profile edge] raptor.threshold`;
    `message` is what is wrong with it, without that."""

    def __init__(self, message: str, *, source: str = "", key: str = "") -> None:
        self.message = message
        self.source = source
        self.key = key
        where = " ".join(part for part in (source, f"raptor.{key}" if key else "") if part)
        super().__init__(f"{where}: {message}" if where else message)


class MalformedPacket(RaptorError):
    """Bytes from the peer do not parse, or say something impossible."""


class WireGuardError(RaptorError):
    """The tunnel can't carry this message."""


class AuthenticationFailed(WireGuardError):
    """A MAC or AEAD tag did not verify, or the counter or timestamp was seen before."""


class SessionExpired(WireGuardError):
    """The session passed REJECT_AFTER_TIME or REJECT_AFTER_MESSAGES, or never existed (whitepaper 6.1)."""


class HandshakeTimeout(WireGuardError):
    """No valid handshake response came in time. No put datagram has been sent, so HTTPS may take over at once."""


class TransferError(RaptorError):
    """A put did not succeed."""


class ConfirmationTimeout(TransferError):
    """The time to live of the put has passed without a final state: nothing can be written any more, HTTPS may take over."""


class TransferRejected(TransferError):
    """The receiver answered with state 0x80. `code`, `message` and `status` are S3's own where S3 refused."""

    def __init__(self, code: str, message: str, status: int) -> None:
        self.code = code
        self.message = message
        self.status = status
        super().__init__(f"{code} ({status}): {message}")


class TransferCancelled(TransferError):
    """The receiver acknowledged a cancel (state 0x81): nothing was and nothing will be written."""
