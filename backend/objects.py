"""All of S3: one PutObject for small objects; staged blocks and a multipart upload for large ones.

    attempt -> written                                        COMPLETE with PutObject's response fields
            -> S3 says no (4xx)                               FAILED with S3's Code, Message and status
            -> throttled, 5xx, no connection                  wait, attempt again, until the deadline; then `Unfinished`
            -> 412, 409 where an earlier attempt may have     look whether that was our own write
               written

S3 itself checks the body: against the CRC-32 of the put header, or against the checksum that the caller chose (then the CRC-32
has been verified here). boto3's own retries are off: they know no deadline.

Invariant: no attempt begins at or after the deadline.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError
from botocore.exceptions import ConnectionError as NeverConnected

from raptor_s3.wire.put_header import TIME_TO_LIVE
from raptor_s3.wire.transfer_state import StateType, TransferState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PART_BYTES: Final = 8 << 20
"""S3 wants 5 MiB..5 GiB for every part but the last."""
FIRST_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 1.0
CLOCK_SLACK_S: Final = 2.0
"""LastModified has whole seconds, and S3's hosts have a clock each."""
MAX_MESSAGE: Final = 400
"""Octets of an error message that travel: with its transfer id, a state must fit a datagram."""
MAX_CONTEXT: Final = 512
"""The same for SSEKMSEncryptionContext."""

_THROTTLES: Final = frozenset(
    ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "BandwidthLimitExceeded")
)
_CHECKSUMS: Final = ("ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")
_RESPONSE_FIELDS: Final = (
    "ETag", "VersionId", "Expiration", "ChecksumCRC32", *_CHECKSUMS, "ChecksumType",
    "ServerSideEncryption", "SSEKMSKeyId", "SSEKMSEncryptionContext", "BucketKeyEnabled", "Size", "RequestCharged",
)  # fmt: skip
"""PutObject's response members; a multipart upload's and HeadObject's answers have more."""
_WHOLE_BODY: Final = ("Bucket", "Key", "ContentMD5", "ChecksumAlgorithm", "ChecksumCRC32", *_CHECKSUMS, "IfMatch", "IfNoneMatch")
"""Parameters of PutObject that CreateMultipartUpload does not take, or takes otherwise."""
_CONDITIONS: Final = ("IfMatch", "IfNoneMatch")


class Unfinished(Exception):
    """No outcome before the deadline; another delivery may try again. `may_have_written`: S3's last word was lost."""

    def __init__(self, reason: str, *, may_have_written: bool) -> None:
        self.may_have_written = may_have_written
        super().__init__(reason)


def is_whole_only(fields: Mapping[str, Any]) -> bool:
    """Whether these parameters can't be carried out by a multipart upload: of whole-object checksums, it gets CRC-32 only."""
    return fields.get("ChecksumAlgorithm", "CRC32") != "CRC32" or any(name in fields for name in _CHECKSUMS)


def is_conditional(fields: Mapping[str, Any]) -> bool:
    return any(name in fields for name in _CONDITIONS)


def failed(object_id: str, code: str, message: str, status: int) -> TransferState:
    message = message.encode()[:MAX_MESSAGE].decode(errors="ignore")
    return TransferState(StateType.FAILED, object_id, fields={"Code": code, "Message": message, "StatusCode": status})


class Objects:
    """`staging_bucket` holds symbols and blocks of unfinished large transfers, under a lifecycle rule that ends them."""

    def __init__(self, s3: Any, staging_bucket: str, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._s3 = s3
        self._staging_bucket = staging_bucket
        self._clock = clock
        self._sleep = sleep

    def put(
        self, object_id: str, fields: Mapping[str, Any], body: memoryview, deadline: float, attempted_at: float | None
    ) -> TransferState:
        """Write one object. `fields` are a put header's; `attempted_at`: since when an earlier attempt may have written it.

        Returns a final state. Raises Unfinished.
        """
        parameters = _parameters(fields)

        def write() -> Mapping[str, Any]:
            return self._s3.put_object(Body=bytes(body), **parameters)  # type: ignore[no-any-return]

        def is_ours(found: Mapping[str, Any]) -> bool:
            if found["ContentLength"] != len(body):
                return False
            if "ChecksumCRC32" in found:
                return bool(found["ChecksumCRC32"] == fields.get("ChecksumCRC32"))
            return bool(found["ETag"].strip('"') == hashlib.md5(body, usedforsecurity=False).hexdigest())

        return self._attempts(object_id, fields, write, is_ours, deadline, attempted_at)

    def put_parts(
        self,
        object_id: str,
        fields: Mapping[str, Any],
        parts: Iterable[bytes],
        deadline: float,
        attempted_at: float | None,
        verify: Callable[[], str],
    ) -> TransferState:
        """Write one large object by a multipart upload. `verify` says, after the last part, what is wrong with the body.

        Returns a final state. Raises Unfinished.
        """
        place = {"Bucket": fields["Bucket"], "Key": fields["Key"]}
        if "ExpectedBucketOwner" in fields:
            place["ExpectedBucketOwner"] = fields["ExpectedBucketOwner"]
        others = {name: value for name, value in _parameters(fields).items() if name not in _WHOLE_BODY}
        try:
            upload = self._s3.create_multipart_upload(**place, **others, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
        except (ClientError, BotoCoreError) as error:
            return self._verdict(object_id, error, wrote=False)
        handle = {**place, "UploadId": upload["UploadId"]}
        size, uploaded = 0, []
        try:
            for number, part in enumerate(parts, start=1):
                answer = self._s3.upload_part(**handle, PartNumber=number, Body=part, ChecksumAlgorithm="CRC32")
                size += len(part)
                names = ("ETag", "ChecksumCRC32")
                uploaded.append({"PartNumber": number} | {name: answer[name] for name in names if name in answer})
            if objection := verify():
                self._abort(handle)
                return failed(object_id, "BadDigest", objection, 400)
        except (ClientError, BotoCoreError) as error:
            self._abort(handle)
            return self._verdict(object_id, error, wrote=False)
        except BaseException:
            self._abort(handle)
            raise
        whole = {"MultipartUpload": {"Parts": uploaded}, "MpuObjectSize": size}
        if upload.get("ChecksumType") == "FULL_OBJECT" and "ChecksumCRC32" in fields:
            whole |= {"ChecksumCRC32": fields["ChecksumCRC32"], "ChecksumType": "FULL_OBJECT"}
        whole |= {name: fields[name] for name in _CONDITIONS if name in fields}

        def is_ours(found: Mapping[str, Any]) -> bool:
            return bool(found["ContentLength"] == size and found["ETag"].strip('"').endswith(f"-{len(uploaded)}"))

        def complete() -> Mapping[str, Any]:
            return self._s3.complete_multipart_upload(**handle, **whole)  # type: ignore[no-any-return]

        state = self._attempts(object_id, fields, complete, is_ours, deadline, attempted_at)
        if state.type is not StateType.COMPLETE:
            self._abort(handle)
        return state

    # Staging

    def stage(self, name: str, data: bytes) -> None:
        self._s3.put_object(Bucket=self._staging_bucket, Key=name, Body=data)

    def staged(self, name: str) -> bytes | None:
        """None when the lifecycle rule, or somebody who finished the transfer, was faster."""
        try:
            data: bytes = self._s3.get_object(Bucket=self._staging_bucket, Key=name)["Body"].read()
        except ClientError as error:
            if _status(error) == 404:
                return None
            raise
        return data

    def unstage(self, names: list[str]) -> None:
        """Best effort; what is left, the lifecycle rule takes."""
        with contextlib.suppress(ClientError, BotoCoreError):
            self._s3.delete_objects(
                Bucket=self._staging_bucket, Delete={"Objects": [{"Key": name} for name in names], "Quiet": True}
            )

    # Attempts

    def _attempts(
        self,
        object_id: str,
        fields: Mapping[str, Any],
        write: Callable[[], Mapping[str, Any]],
        is_ours: Callable[[Mapping[str, Any]], bool],
        deadline: float,
        attempted_at: float | None,
    ) -> TransferState:
        backoff_s = FIRST_BACKOFF_S
        while True:
            begun = self._clock()
            if begun >= deadline:
                return failed(object_id, "RequestExpired", "backend: the put's time to live has passed", 400)
            try:
                response = write()
            except (ClientError, BotoCoreError) as error:
                in_the_way = (is_conditional(fields) and _status(error) in (409, 412)) or _code(error) == "NoSuchUpload"
                found = self._own_write(fields, is_ours, attempted_at) if attempted_at is not None and in_the_way else None
                if found is not None:
                    return TransferState(StateType.COMPLETE, object_id, fields=_response_fields(found))
                if not _is_transient(error):
                    return self._verdict(object_id, error, wrote=False)
                if attempted_at is None and _may_have_written(error):
                    attempted_at = begun
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
                wait_s = backoff_s * random.uniform(0.25, 0.5)
                if self._clock() + wait_s >= deadline:
                    raise Unfinished(str(error), may_have_written=attempted_at is not None) from error
                self._sleep(wait_s)
                continue
            return TransferState(StateType.COMPLETE, object_id, fields=_response_fields(response))

    def _verdict(self, object_id: str, error: ClientError | BotoCoreError, *, wrote: bool) -> TransferState:
        if _is_transient(error):
            raise Unfinished(str(error), may_have_written=wrote) from error
        if isinstance(error, ClientError):
            details = error.response.get("Error", {})
            return failed(object_id, str(details.get("Code", "Unknown")), str(details.get("Message", "")), _status(error))
        if isinstance(error, ParamValidationError):
            return failed(object_id, "InvalidArgument", f"backend: {error}", 400)
        return failed(object_id, "InternalError", f"backend: can't write: {type(error).__name__}", 500)

    def _own_write(
        self, fields: Mapping[str, Any], is_ours: Callable[[Mapping[str, Any]], bool], attempted_at: float
    ) -> Mapping[str, Any] | None:
        """The object that stands in the way of a conditional put, if it is the one that an earlier attempt wrote.

        Ours: the same content, and not older than the first attempt. Without s3:GetObject nobody can tell.
        """
        place = {name: fields[name] for name in ("Bucket", "Key", "ExpectedBucketOwner") if name in fields}
        try:
            found: Mapping[str, Any] = self._s3.head_object(ChecksumMode="ENABLED", **place)
        except (ClientError, BotoCoreError):
            return None
        if found["LastModified"].timestamp() < attempted_at - CLOCK_SLACK_S or not is_ours(found):
            return None
        return found

    def _abort(self, handle: Mapping[str, Any]) -> None:
        """Best effort; what is left, the bucket's lifecycle rule ends."""
        with contextlib.suppress(ClientError, BotoCoreError):
            self._s3.abort_multipart_upload(**handle)


def _parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """PutObject's parameters. S3 takes one checksum only: where the caller chose another, the CRC-32 stays behind."""
    parameters = {name: value for name, value in fields.items() if name != TIME_TO_LIVE}
    if is_whole_only(fields):
        parameters.pop("ChecksumCRC32", None)
    return parameters


def _response_fields(response: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: response[name] for name in _RESPONSE_FIELDS if name in response}
    if len(fields.get("SSEKMSEncryptionContext", "")) > MAX_CONTEXT:
        del fields["SSEKMSEncryptionContext"]
    return fields


def _status(error: BaseException) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))


def _code(error: BaseException) -> str:
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        return _status(error) >= 500 or _status(error) == 429 or _code(error) in _THROTTLES | {"RequestTimeout"}
    return isinstance(error, HTTPClientError | NeverConnected)


def _may_have_written(error: BaseException) -> bool:
    """Whether S3 may have stored the object although the attempt failed."""
    if isinstance(error, ClientError):
        return _status(error) >= 500 and _code(error) not in _THROTTLES
    return not isinstance(error, NeverConnected)
