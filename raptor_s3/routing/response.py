"""What put_object returns when the fast path carried it: the shape of a direct call.

Fields are the receiver's own, from S3's answer (state 3, docs/wire.md); nothing is computed locally. Errors are S3's
code, message and status, so that botocore raises the ClientError that a direct call would.

Invariant: only members of PutObjectOutput reach the caller, beside ResponseMetadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptor_s3.routing.journal import PutRecord

METADATA_KEY: Final = "Raptor"  # in ResponseMetadata, on every put that the plugin saw

# PutObjectOutput's members and the headers they are parsed from.
_MEMBERS: Final[Mapping[str, str]] = {
    "Expiration": "x-amz-expiration",
    "ETag": "etag",
    "ChecksumCRC32": "x-amz-checksum-crc32",
    "ChecksumCRC32C": "x-amz-checksum-crc32c",
    "ChecksumCRC64NVME": "x-amz-checksum-crc64nvme",
    "ChecksumMD5": "x-amz-checksum-md5",
    "ChecksumSHA1": "x-amz-checksum-sha1",
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ChecksumSHA512": "x-amz-checksum-sha512",
    "ChecksumXXHASH3": "x-amz-checksum-xxhash3",
    "ChecksumXXHASH64": "x-amz-checksum-xxhash64",
    "ChecksumXXHASH128": "x-amz-checksum-xxhash128",
    "ChecksumType": "x-amz-checksum-type",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "VersionId": "x-amz-version-id",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "SSEKMSEncryptionContext": "x-amz-server-side-encryption-context",
    "BucketKeyEnabled": "x-amz-server-side-encryption-bucket-key-enabled",
    "Size": "x-amz-object-size",
    "RequestCharged": "x-amz-request-charged",
}


class HttpResponse:
    """Stands where botocore's AWSResponse would, for handlers of after-call."""

    __slots__ = ("headers", "status_code", "url")
    content = b""
    text = ""
    raw = None

    def __init__(self, status_code: int, headers: dict[str, str], url: str) -> None:
        self.status_code = status_code
        self.headers = headers
        self.url = url


class EventResponse(NamedTuple):
    """What a before-call handler returns instead of None."""

    http: HttpResponse
    parsed: dict[str, Any]


def success(fields: Mapping[str, Any], url: str) -> EventResponse:
    """The answer to a confirmed put, for handlers of events."""
    parsed = parsed_success(fields)
    return EventResponse(HttpResponse(200, parsed["ResponseMetadata"]["HTTPHeaders"], url), parsed)


def parsed_success(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What put_object returns. `fields`: the JSON of state 3; `RequestId` and `HostId`, where present, are S3's."""
    parsed: dict[str, Any] = {}
    request_id, host_id = str(fields.get("RequestId", "")), str(fields.get("HostId", ""))
    headers = {"x-amz-id-2": host_id, "x-amz-request-id": request_id, "content-length": "0", "server": "AmazonS3"}
    for name, value in fields.items():
        header = _MEMBERS.get(name)
        if header is not None:
            parsed[name] = value
            headers[header] = value if type(value) is str else _header_text(value)
    parsed["ResponseMetadata"] = _metadata(200, headers, request_id, host_id)
    return parsed


def failure(code: str, message: str, status: int, url: str) -> EventResponse:
    """The answer to a refused put; botocore raises ClientError(code) from it because `status` >= 300."""
    headers = {"x-amz-id-2": "", "x-amz-request-id": "", "content-type": "application/xml", "server": "AmazonS3"}
    status = max(status, 300)
    parsed = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": _metadata(status, headers, "", "")}
    return EventResponse(HttpResponse(status, headers, url), parsed)


def metadata(record: PutRecord) -> dict[str, Any]:
    """`ResponseMetadata['Raptor']`: the path taken, why, and what it cost."""
    if record.route == "https":
        return {"Route": "https", "Reason": record.reason}
    told = {
        "Route": record.route,
        "Datagrams": record.datagrams,
        "Lost": record.lost,
        "RoundTripTime": record.rtt_s,
        "Handshake": record.handshake,
    }
    if record.reason:
        told["Reason"] = record.reason
    return told


def _metadata(status: int, headers: dict[str, str], request_id: str, host_id: str) -> dict[str, Any]:
    return {
        "RequestId": request_id,
        "HostId": host_id,
        "HTTPStatusCode": status,
        "HTTPHeaders": headers,
        "RetryAttempts": 0,
    }


def _header_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
