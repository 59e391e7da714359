"""A conditional put whose confirmation was lost, refused when HTTPS repeats it: is the object in the way its own?

    fast path: written, confirmation lost -> HTTPS: If-None-Match or If-Match fails on that very object -> 412 or 409

That refusal would be false. HeadObject tells, with the client that made the call: the same content and parameters, and by S3's
clock not older than the call. A receiver asks the same between attempts of its own (raptor_s3.receiver.s3_answers).

Invariant: where it can't be told (no s3:GetObject, another's object, nothing in it that could tell two writers apart), S3's
refusal stands as it came.
"""

from __future__ import annotations

import email.utils
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raptor_s3.net import clock
from raptor_s3.routing import response
from raptor_s3.routing.ending import may_have_written
from raptor_s3.wire.put_header import tells_writers_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger("raptor_s3.routing")

CLOCK_SLACK_S: Final = 2.0
"""LastModified has whole seconds, and S3's hosts have a clock each."""
_REFUSALS: Final = (409, 412)
_CONDITIONS: Final = ("IfMatch", "IfNoneMatch")
_CHECKSUMS: Final = ("ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")
# Parameters that come back from HeadObject as they were given, and what they mean when they were not.
_ECHOED: Final[Mapping[str, str]] = {
    "CacheControl": "",
    "ContentDisposition": "",
    "ContentEncoding": "",
    "ContentLanguage": "",
    "StorageClass": "STANDARD",
    "WebsiteRedirectLocation": "",
}
_TYPES_NOT_GIVEN: Final = ("binary/octet-stream", "application/octet-stream", None)
# The bucket has defaults of its own for them.
_ECHOED_IF_GIVEN: Final = ("BucketKeyEnabled", "ServerSideEncryption")


class Unconfirmed(NamedTuple):
    """A conditional put that the fast path may have written."""

    fields: Mapping[str, Any]  # as they travelled
    size_bytes: int
    md5: str  # of the body, in hexadecimal
    began_at: float  # clock.now()


def unconfirmed(error: Exception, fields: Mapping[str, Any], body: bytes, began_at: float) -> Unconfirmed | None:
    """What to look for if S3 refuses the repetition over HTTPS; None when a refusal is sure to be true."""
    if not any(name in fields for name in _CONDITIONS) or not may_have_written(error):
        return None
    if not tells_writers_apart(fields, len(body)):
        return None
    import hashlib

    return Unconfirmed(fields, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest(), began_at)


def settle(client: Callable[[], Any], sent: Unconfirmed, http: Any, parsed: dict[str, Any]) -> bool:
    """Turn S3's refusal of `sent` into the answer of the put that it collided with, if that was ours; whether it was.

    `http` and `parsed` are botocore's, at after-call; both are changed in place. `client` is asked for only when needed.
    """
    if http.status_code not in _REFUSALS:
        return False
    found = _head(client(), sent)
    if found is None or not _is_ours(found, sent, clock.now() - sent.began_at):
        return False
    answer = response.success({**found, **_request_ids(found)}, getattr(http, "url", ""))
    answer.parsed["ResponseMetadata"]["RetryAttempts"] = parsed.get("ResponseMetadata", {}).get("RetryAttempts", 0)
    parsed.clear()
    parsed.update(answer.parsed)
    http.status_code = answer.http.status_code
    http.headers.clear()
    http.headers.update(answer.http.headers)
    return True


def _head(client: Any, sent: Unconfirmed) -> Mapping[str, Any] | None:
    if client is None:
        return None
    place = {name: sent.fields[name] for name in ("Bucket", "Key", "ExpectedBucketOwner") if name in sent.fields}
    try:
        found: Mapping[str, Any] = client.head_object(ChecksumMode="ENABLED", **place)
    except Exception as error:  # denied, gone, no connection, stubbed: botocore's classes are not ours to import
        logger.warning("can't tell whether a conditional put was written: %s", error)
        return None
    return found


def _is_ours(found: Mapping[str, Any], sent: Unconfirmed, elapsed_s: float) -> bool:
    age_s = _age_s(found)
    if age_s is None or age_s > elapsed_s + CLOCK_SLACK_S or found.get("ContentLength") != sent.size_bytes:
        return False
    checksums = [name for name in _CHECKSUMS if name in found and name in sent.fields]
    if checksums:
        is_same = all(found[name] == sent.fields[name] for name in checksums)
    else:
        is_same = str(found.get("ETag", "")).strip('"') == sent.md5
    return is_same and _has_same_parameters(found, sent.fields)


def _has_same_parameters(found: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    return (
        all(found.get(name, default) == fields.get(name, default) for name, default in _ECHOED.items())
        and all(found.get(name) == fields[name] for name in _ECHOED_IF_GIVEN if name in fields)
        and found.get("ContentType") in ((fields["ContentType"],) if "ContentType" in fields else _TYPES_NOT_GIVEN)
        and str(found.get("SSEKMSKeyId", "")).endswith(fields.get("SSEKMSKeyId", ""))  # an ARN, in answers
        and _headers(found).get("expires") == fields.get("Expires")
        and _lower_names(found) == _lower_names(fields)
    )


def _headers(found: Mapping[str, Any]) -> Mapping[str, Any]:
    headers: Mapping[str, Any] = found.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def _lower_names(fields: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as S3 gives it back."""
    return {name.lower(): value for name, value in fields.get("Metadata", {}).items()}


def _age_s(found: Mapping[str, Any]) -> float | None:
    """How old the object is by the clock of the host that answered; None when it didn't say."""
    try:
        date = email.utils.parsedate_to_datetime(_headers(found)["date"])
        return float((date - found["LastModified"]).total_seconds())
    except (KeyError, TypeError, ValueError):
        return None


def _request_ids(found: Mapping[str, Any]) -> dict[str, str]:
    metadata = found.get("ResponseMetadata", {})
    return {name: str(metadata.get(name, "")) for name in ("RequestId", "HostId")}
