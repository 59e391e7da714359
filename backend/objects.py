"""All of S3: one PutObject for small objects; staged blocks and a multipart upload for large ones.

    attempt -> written                                        COMPLETE with PutObject's response fields
            -> S3 says no (4xx)                               FAILED with S3's Code, Message and status
            -> past the deadline                              CANCELLED; FAILED where an earlier attempt may have written
            -> throttled, 5xx, no connection                  wait, attempt again, until the deadline; then `Unfinished`
            -> 412, 409 where an earlier attempt may have     look whether that was our own write
               written

S3 itself checks the body: against the CRC-32 of the put header, or against the checksum that the caller chose (then the CRC-32
has been verified here). boto3's own retries are off: they know no deadline.

Invariant: no request for an object leaves at or after the deadline.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.receiver import s3_answers
from raptor_s3.receiver.outcome import Outcome, given_up
from raptor_s3.receiver.s3_client import TooLate, only_while
from raptor_s3.wire.transfer_state import StateType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from botocore.exceptions import BotoCoreError, ClientError

PART_BYTES: Final = 8 << 20
"""S3 wants 5 MiB..5 GiB for every part but the last."""
FIRST_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 1.0

_WHOLE_BODY: Final = (
    "Bucket", "Key", "ContentMD5", "ChecksumAlgorithm", "ChecksumCRC32", *s3_answers.OTHER_CHECKSUMS, *s3_answers.CONDITIONS,
)  # fmt: skip
"""Parameters of PutObject that CreateMultipartUpload does not take, or takes otherwise."""


class Unfinished(Exception):
    """No outcome before the deadline; another delivery may try again. `may_have_written`: S3's last word was lost."""

    def __init__(self, reason: str, *, may_have_written: bool) -> None:
        self.may_have_written = may_have_written
        super().__init__(reason)


class Objects:
    """`staging_bucket` holds symbols and blocks of unfinished large transfers, under a lifecycle rule that ends them."""

    def __init__(self, s3: Any, staging_bucket: str, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._s3 = s3
        self._staging_bucket = staging_bucket
        self._clock = clock
        self._sleep = sleep

    def put(self, fields: Mapping[str, Any], body: memoryview, deadline: float, attempted_at: float | None) -> Outcome:
        """Write one object. `fields` are a put header's; `attempted_at`: since when an earlier attempt may have written it.

        Raises Unfinished.
        """
        parameters = s3_answers.put_parameters(fields)

        def write() -> Mapping[str, Any]:
            return self._s3.put_object(Body=bytes(body), **parameters)  # type: ignore[no-any-return]

        def is_ours(found: Mapping[str, Any]) -> bool:
            return s3_answers.holds(found, body, fields.get("ChecksumCRC32"))

        return self._attempts(fields, write, is_ours, deadline, attempted_at)

    def put_parts(
        self,
        fields: Mapping[str, Any],
        parts: Iterable[bytes],
        deadline: float,
        attempted_at: float | None,
        verify: Callable[[], str],
    ) -> Outcome:
        """Write one large object by a multipart upload. `verify` says, after the last part, what is wrong with the body.

        Raises Unfinished.
        """
        place = {"Bucket": fields["Bucket"], "Key": fields["Key"]}
        if "ExpectedBucketOwner" in fields:
            place["ExpectedBucketOwner"] = fields["ExpectedBucketOwner"]
        others = {name: value for name, value in s3_answers.put_parameters(fields).items() if name not in _WHOLE_BODY}
        try:
            upload = self._s3.create_multipart_upload(**place, **others, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
        except s3_answers.FAILURES as error:
            return _verdict(error)
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
                return Outcome.refused("backend", "BadDigest", objection, 400)
        except s3_answers.FAILURES as error:
            self._abort(handle)
            return _verdict(error)
        except BaseException:
            self._abort(handle)
            raise
        whole = {"MultipartUpload": {"Parts": uploaded}, "MpuObjectSize": size}
        if upload.get("ChecksumType") == "FULL_OBJECT" and "ChecksumCRC32" in fields:
            whole |= {"ChecksumCRC32": fields["ChecksumCRC32"], "ChecksumType": "FULL_OBJECT"}
        whole |= {name: fields[name] for name in s3_answers.CONDITIONS if name in fields}

        def is_ours(found: Mapping[str, Any]) -> bool:
            return bool(found["ContentLength"] == size and found["ETag"].strip('"').endswith(f"-{len(uploaded)}"))

        def complete() -> Mapping[str, Any]:
            return self._s3.complete_multipart_upload(**handle, **whole)  # type: ignore[no-any-return]

        outcome = self._attempts(fields, complete, is_ours, deadline, attempted_at)
        if outcome.type is not StateType.COMPLETE:
            self._abort(handle)
        return outcome

    # Staging

    def stage(self, name: str, data: bytes) -> None:
        self._s3.put_object(Bucket=self._staging_bucket, Key=name, Body=data)

    def staged(self, name: str) -> bytes | None:
        """None when the lifecycle rule, or somebody who finished the transfer, was faster."""
        try:
            data: bytes = self._s3.get_object(Bucket=self._staging_bucket, Key=name)["Body"].read()
        except s3_answers.FAILURES as error:
            if s3_answers.status_of(error) == 404:
                return None
            raise
        return data

    def unstage(self, names: list[str]) -> None:
        """Best effort; what is left, the lifecycle rule takes."""
        with contextlib.suppress(*s3_answers.FAILURES):
            self._s3.delete_objects(
                Bucket=self._staging_bucket, Delete={"Objects": [{"Key": name} for name in names], "Quiet": True}
            )

    # Attempts

    def _attempts(
        self,
        fields: Mapping[str, Any],
        write: Callable[[], Mapping[str, Any]],
        is_ours: Callable[[Mapping[str, Any]], bool],
        deadline: float,
        attempted_at: float | None,
    ) -> Outcome:
        backoff_s = FIRST_BACKOFF_S
        while True:
            begun = self._clock()
            if begun >= deadline:
                return given_up("backend", may_have_written=attempted_at is not None)
            try:
                with only_while(lambda: self._clock() < deadline):
                    response = write()
            except TooLate:
                continue
            except s3_answers.FAILURES as error:
                in_the_way = s3_answers.is_in_the_way(error) or s3_answers.code_of(error) == "NoSuchUpload"
                if in_the_way and attempted_at is not None:
                    found = s3_answers.own_write(self._s3, fields, is_ours, self._clock() - attempted_at)
                    if found is not None:
                        return found
                if not s3_answers.is_transient(error):
                    return s3_answers.failure("backend", error)
                if attempted_at is None and s3_answers.may_have_written(error):
                    attempted_at = begun
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
                wait_s = backoff_s * random.uniform(0.25, 0.5)
                if self._clock() + wait_s >= deadline:
                    raise Unfinished(str(error), may_have_written=attempted_at is not None) from error
                self._sleep(wait_s)
                continue
            return Outcome(StateType.COMPLETE, s3_answers.response_fields(response))

    def _abort(self, handle: Mapping[str, Any]) -> None:
        """Best effort; what is left, the bucket's lifecycle rule ends."""
        with contextlib.suppress(*s3_answers.FAILURES):
            self._s3.abort_multipart_upload(**handle)


def _verdict(error: ClientError | BotoCoreError | ValueError) -> Outcome:
    """Of a request that makes no object. Raises Unfinished."""
    if s3_answers.is_transient(error):
        raise Unfinished(str(error), may_have_written=False) from error
    return s3_answers.failure("backend", error)
