"""Whether one decoded object may be written: what the policy says, and whether it arrived whole (docs/gateway.md).

Nothing that the sender wrote in the put header is believed: wire.put_header has checked names and types, here the peer's rules
decide, and S3 checks the checksum once more.

Invariant: every refusal here is the receiver's own (outcome.Outcome.refused).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raptor_s3.receiver.outcome import Outcome
from raptor_s3.wire.put_header import MAX_KEY_BYTES, crc32_field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptor_s3.receiver.outcome import Receiver
    from raptor_s3.receiver.policy import Policy


def refusal(
    receiver: Receiver, policy: Policy, peer_key: str, fields: Mapping[str, Any], body: memoryview | None
) -> Outcome | None:
    """Why a put with these header `fields` is not carried out. `body` is None where its checksum is verified later."""
    if objection := policy.objection(peer_key, fields):
        return Outcome.refused(receiver, "AccessDenied", objection, 403)
    if body is not None and crc32_field(body) != fields["ChecksumCRC32"]:
        return Outcome.refused(receiver, "BadDigest", "the body does not match its ChecksumCRC32", 400)
    return None


def published_key(receiver: Receiver, policy: Policy, peer_key: str, prefix: str, path: str) -> str | Outcome:
    """The key of an object without a put header: its object id, a relative path, behind `prefix`. Or why there is none."""
    grant = policy.grant(peer_key)
    if grant is None or not grant.legacy:
        return Outcome.refused(receiver, "AccessDenied", "this peer may not send objects without a put header", 403)
    if not _is_safe_path(path):
        return Outcome.refused(receiver, "InvalidRequest", "the object id is no relative path", 400)
    key = prefix + path
    if len(key.encode()) > MAX_KEY_BYTES:
        return Outcome.refused(receiver, "KeyTooLongError", f"the key is longer than {MAX_KEY_BYTES:,} octets", 400)
    return key


def _is_safe_path(path: str) -> bool:
    """A relative path without `..`, empty parts, backslashes or control characters."""
    parts = path.split("/")
    return all(part not in ("", ".", "..") for part in parts) and path.isprintable() and "\\" not in path
