"""The verdict on every PutObject parameter, by the header it is serialized to (docs/drop-in.md).

The decision rests on serialized headers, not on the call's arguments: what other people's handlers add on the way
counts too. A header that is not in the table goes over HTTPS, so a parameter that S3 grows tomorrow is never dropped.
What the put header can carry is wire.put_header's to say; a test holds the two together.

Invariant: `put_fields` either carries everything that a request says or declines with a reason.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA_PREFIX: Final = "x-amz-meta-"
CHECKSUM_PREFIX: Final = "x-amz-checksum-"
MAX_HEADER_TEXT: Final = 16 * 1024  # the put header ends at 64 KiB and S3 takes 2 KiB of metadata; more goes over HTTPS


class Verdict(Enum):
    CARRIED = "carried in the put header"
    TRANSPORT = "about the HTTP connection only"
    ALLOWED = "carried where the backend's policy is known to grant it"
    HTTPS = "never carried"


class Parameter(NamedTuple):
    """`name` is boto3's spelling."""

    name: str
    verdict: Verdict


class Unsupported(Exception):
    """The fast path can't reproduce this request; str() is the reason. Never leaves routing."""


def _table(verdict: Verdict, **names: str) -> dict[str, Parameter]:
    return {header: Parameter(name, verdict) for name, header in names.items()}


HEADERS: Final[Mapping[str, Parameter]] = {
    **_table(
        Verdict.CARRIED,
        CacheControl="cache-control",
        ContentDisposition="content-disposition",
        ContentEncoding="content-encoding",
        ContentLanguage="content-language",
        ContentLength="content-length",
        ContentMD5="content-md5",
        ContentType="content-type",
        Expires="expires",
        ExpectedBucketOwner="x-amz-expected-bucket-owner",
        IfMatch="if-match",
        IfNoneMatch="if-none-match",
        ServerSideEncryption="x-amz-server-side-encryption",
        StorageClass="x-amz-storage-class",
        WebsiteRedirectLocation="x-amz-website-redirect-location",
        ChecksumAlgorithm="x-amz-sdk-checksum-algorithm",
        ChecksumCRC32="x-amz-checksum-crc32",
        ChecksumCRC32C="x-amz-checksum-crc32c",
        ChecksumCRC64NVME="x-amz-checksum-crc64nvme",
        ChecksumSHA1="x-amz-checksum-sha1",
        ChecksumSHA256="x-amz-checksum-sha256",
    ),
    **_table(
        Verdict.ALLOWED,
        SSEKMSKeyId="x-amz-server-side-encryption-aws-kms-key-id",
        SSEKMSEncryptionContext="x-amz-server-side-encryption-context",
        BucketKeyEnabled="x-amz-server-side-encryption-bucket-key-enabled",
        Tagging="x-amz-tagging",
    ),
    **_table(
        Verdict.HTTPS,
        ACL="x-amz-acl",
        ChecksumMD5="x-amz-checksum-md5",
        ChecksumSHA512="x-amz-checksum-sha512",
        ChecksumXXHASH3="x-amz-checksum-xxhash3",
        ChecksumXXHASH64="x-amz-checksum-xxhash64",
        ChecksumXXHASH128="x-amz-checksum-xxhash128",
        GrantFullControl="x-amz-grant-full-control",
        GrantRead="x-amz-grant-read",
        GrantReadACP="x-amz-grant-read-acp",
        GrantWriteACP="x-amz-grant-write-acp",
        ObjectLockMode="x-amz-object-lock-mode",
        ObjectLockRetainUntilDate="x-amz-object-lock-retain-until-date",
        ObjectLockLegalHoldStatus="x-amz-object-lock-legal-hold",
        ObjectLockEventHold="x-amz-object-lock-event-hold",
        ObjectLockEventHoldDurationDays="x-amz-object-lock-event-hold-duration-days",
        ObjectLockEventHoldDurationYears="x-amz-object-lock-event-hold-duration-years",
        RequestPayer="x-amz-request-payer",
        SSECustomerAlgorithm="x-amz-server-side-encryption-customer-algorithm",
        SSECustomerKey="x-amz-server-side-encryption-customer-key",
        SSECustomerKeyMD5="x-amz-server-side-encryption-customer-key-md5",
        WriteOffsetBytes="x-amz-write-offset-bytes",
    ),
    "user-agent": Parameter("User-Agent", Verdict.TRANSPORT),
    "expect": Parameter("Expect", Verdict.TRANSPORT),
}
# Parameters that are no header of their own.
ELSEWHERE: Final = frozenset({"Body", "Bucket", "Key", "Metadata"})

_BOOLEANS: Final = {"true": True, "false": False}


def put_fields(headers: Mapping[str, Any], bucket: str, key: str, allowances: tuple[str, ...]) -> dict[str, Any]:
    """The put header's fields (docs/wire.md) for serialized request headers, without what is computed from the body.

    `ContentLength`, when given, is among them as an int, for whoever measures the body to check. Raises Unsupported.
    """
    fields: dict[str, Any] = {"Bucket": bucket, "Key": key}
    metadata: dict[str, str] = {}
    total = 0
    for header, value in headers.items():
        lower = header.lower()
        parameter = HEADERS.get(lower)
        if parameter is not None and parameter.verdict is Verdict.TRANSPORT:
            continue
        if not isinstance(value, str) or not value.isascii() or not (value.isprintable() or not value):
            raise Unsupported(f"header {header} is not plain text")
        total += len(header) + len(value)
        if parameter is None:
            if not lower.startswith(METADATA_PREFIX) or not header.isascii() or not header.isprintable() or ":" in header:
                raise Unsupported(f"unknown header {header}")
            metadata[header[len(METADATA_PREFIX) :]] = value
        elif parameter.verdict is Verdict.CARRIED:
            fields[parameter.name] = value
        elif parameter.verdict is Verdict.ALLOWED and parameter.name in allowances:
            fields[parameter.name] = _BOOLEANS.get(value, value) if parameter.name == "BucketKeyEnabled" else value
        elif parameter.verdict is Verdict.ALLOWED:
            raise Unsupported(f"{parameter.name} is not in raptor.backend_allows")
        else:
            raise Unsupported(f"{parameter.name} is not carried")
    if total > MAX_HEADER_TEXT:
        raise Unsupported(f"{total} octets of headers")
    if metadata:
        fields["Metadata"] = metadata
    check_fields(fields, allowances)
    return fields


def check_fields(fields: dict[str, Any], allowances: tuple[str, ...]) -> None:
    """What the values of `fields` demand beyond their names. Raises Unsupported."""
    encryption = fields.get("ServerSideEncryption")
    if encryption is not None and encryption != "AES256" and "SSEKMSKeyId" not in allowances:
        raise Unsupported(f"ServerSideEncryption {encryption}: SSEKMSKeyId is not in raptor.backend_allows")
    if sum(name.startswith("Checksum") and name != "ChecksumAlgorithm" for name in fields) > 1:
        raise Unsupported("more than one checksum is given")
    if "aws-chunked" in fields.get("ContentEncoding", ""):
        raise Unsupported("ContentEncoding aws-chunked describes the HTTP request")
    length = fields.get("ContentLength")
    if length is not None:
        if not length.isdecimal():
            raise Unsupported(f"ContentLength {length}")
        fields["ContentLength"] = int(length)
