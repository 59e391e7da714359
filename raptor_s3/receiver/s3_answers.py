"""What S3 is asked and what its answers mean, for whoever calls PutObject with a boto3 client (docs/wire.md, docs/gateway.md).

    put_parameters, response_fields    header -> PutObject -> state 3
    failure                            an exception of boto3 -> Code, Message, StatusCode
    is_transient                       worth another attempt within the time to live
    may_have_written                   S3 may have stored the object although the attempt failed
    is_in_the_way, own_write           412, 409: whether the object that stands there is an earlier attempt's

Only exceptions come from botocore: the client is the caller's.

Invariant: where nobody can tell whether an attempt wrote, the answer is "it may have".
"""

from __future__ import annotations

import email.utils
import hashlib
import logging
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ParamValidationError,
    ProxyConnectionError,
)
from botocore.exceptions import ConnectionError as NoConnection

from raptor_s3.receiver.outcome import Outcome
from raptor_s3.wire.put_header import TIME_TO_LIVE, tells_writers_apart
from raptor_s3.wire.transfer_state import StateType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from raptor_s3.receiver.outcome import Receiver

_log = logging.getLogger(__name__)

CLOCK_SLACK_S: Final = 2.0
"""LastModified has whole seconds, and S3's hosts have a clock each."""
MAX_CONTEXT: Final = 512
"""Octets of SSEKMSEncryptionContext that travel: a state must fit a datagram."""
CONDITIONS: Final = ("IfMatch", "IfNoneMatch")
OTHER_CHECKSUMS: Final = ("ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")
FAILURES: Final = (ClientError, BotoCoreError, ValueError)
"""What a call of boto3 raises; ValueError for what can't be encoded."""

_THROTTLES: Final = frozenset(
    ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "BandwidthLimitExceeded")
)
_NEVER_REACHED: Final = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError)
_RESPONSE_FIELDS: Final = (
    "ETag", "VersionId", "Expiration", "ChecksumCRC32", *OTHER_CHECKSUMS, "ChecksumType",
    "ServerSideEncryption", "SSEKMSKeyId", "SSEKMSEncryptionContext", "BucketKeyEnabled", "Size", "RequestCharged",
)  # fmt: skip
"""PutObject's response members; a multipart upload's and HeadObject's answers have more."""


def is_whole_only(fields: Mapping[str, Any]) -> bool:
    """Whether the caller chose another checksum than CRC-32. A multipart upload has no other one of the whole object."""
    return fields.get("ChecksumAlgorithm", "CRC32") != "CRC32" or any(name in fields for name in OTHER_CHECKSUMS)


def is_conditional(fields: Mapping[str, Any]) -> bool:
    return any(name in fields for name in CONDITIONS)


def put_parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """PutObject's parameters from a put header's fields. S3 takes one checksum only: the caller's choice displaces the CRC-32."""
    parameters = {name: value for name, value in fields.items() if name != TIME_TO_LIVE}
    if is_whole_only(fields):
        parameters.pop("ChecksumCRC32", None)
    return parameters


def response_fields(response: Mapping[str, Any]) -> dict[str, Any]:
    """What travels of a write's response: PutObject's members, and what S3's support asks for."""
    fields = _members(response)
    metadata = response.get("ResponseMetadata", {})
    return fields | {name: metadata[name] for name in ("RequestId", "HostId") if metadata.get(name)}


def failure(receiver: Receiver, error: ClientError | BotoCoreError | ValueError) -> Outcome:
    """S3's own words where it said something, else ours."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        return Outcome.failed(str(details.get("Code", "Unknown")), str(details.get("Message", "")), status_of(error))
    if isinstance(error, ParamValidationError | ValueError):
        return Outcome.refused(receiver, "InvalidArgument", str(error), 400)
    if isinstance(error, HTTPClientError | NoConnection):
        return Outcome.refused(receiver, "ServiceUnavailable", f"could not reach S3: {type(error).__name__}", 503)
    _log.error("can't write: %s", error)
    return Outcome.refused(receiver, "ServiceUnavailable", f"can't write: {type(error).__name__}", 503)


def status_of(error: BaseException) -> int:
    """The HTTP status of S3's answer, 0 where there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))


def code_of(error: BaseException) -> str:
    """S3's error code, empty where there was no answer."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def is_transient(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        return status_of(error) >= 500 or status_of(error) == 429 or code_of(error) in _THROTTLES | {"RequestTimeout"}
    return isinstance(error, HTTPClientError | NoConnection)


def may_have_written(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        return status_of(error) >= 500 and code_of(error) not in _THROTTLES
    return not isinstance(error, _NEVER_REACHED)


def is_in_the_way(error: BaseException) -> bool:
    """Whether an object that an earlier attempt wrote may be what S3 objects to."""
    return status_of(error) in (409, 412)


def holds(found: Mapping[str, Any], body: memoryview, crc32: str | None) -> bool:
    """Whether the object of HeadObject's answer `found` has this content; `crc32` is ChecksumCRC32 of `body`."""
    if found["ContentLength"] != len(body):
        return False
    if "ChecksumCRC32" in found:
        return bool(found["ChecksumCRC32"] == crc32)
    return bool(found["ETag"].strip('"') == hashlib.md5(body, usedforsecurity=False).hexdigest())


def own_write(
    client: Any, fields: Mapping[str, Any], is_ours: Callable[[Mapping[str, Any]], bool], elapsed_s: float
) -> Outcome | None:
    """COMPLETE if the object that stands in the way is the one that an earlier attempt wrote, else None.

    Ours: the same content and metadata, and by S3's own clock not older than `elapsed_s`, the time since that attempt began.
    Without s3:GetObject nobody can tell, nor where the content is a few octets that anybody may write.
    """
    place = {name: fields[name] for name in ("Bucket", "Key", "ExpectedBucketOwner") if name in fields}
    try:
        found: Mapping[str, Any] = client.head_object(ChecksumMode="ENABLED", **place)
    except FAILURES as error:
        _log.warning("can't tell whether a conditional put wrote: %s", code_of(error) or type(error).__name__)
        return None
    age_s = _age_s(found)
    if age_s is None or age_s > elapsed_s + CLOCK_SLACK_S or _metadata(found) != _metadata(fields) or not is_ours(found):
        return None
    if not tells_writers_apart(fields, found["ContentLength"]):
        return None
    return Outcome(StateType.COMPLETE, _members(found))


def _metadata(fields: Mapping[str, Any]) -> dict[str, str]:
    """As S3 gives it back."""
    return {name.lower(): value for name, value in fields.get("Metadata", {}).items()}


def _members(response: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: response[name] for name in _RESPONSE_FIELDS if name in response}
    if len(fields.get("SSEKMSEncryptionContext", "")) > MAX_CONTEXT:
        del fields["SSEKMSEncryptionContext"]
    return fields


def _age_s(found: Mapping[str, Any]) -> float | None:
    """How old the object is by the clock of the host that answered; None when it didn't say."""
    date = found["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        return None
    return float((email.utils.parsedate_to_datetime(date) - found["LastModified"]).total_seconds())
