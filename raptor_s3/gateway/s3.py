"""The direct sink: PutObject by boto3, in a bounded pool of threads (DESIGN 4).

    attempt -> written                                       COMPLETE, with S3's own response fields
            -> S3 says no (4xx)                              FAILED, with S3's Code, Message and status
            -> 5xx, throttled, no connection                 wait, attempt again, until the time to live has passed
            -> 412/409 after an attempt whose end is unknown look whether that was our own write (If-None-Match)

Between attempts a cancel is honoured; during one it waits for S3's word. boto3's own retries are off: they know neither
the time to live nor cancels.

Invariant: no attempt begins after the deadline or after a cancel; CANCELLED is said only when no attempt can have written.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
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

from raptor_s3.gateway.sink import CANCELLED, ObjectWrite, Outcome
from raptor_s3.gateway.workers import Completions, WorkerPool
from raptor_s3.wire.transfer_state import StateType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

FIRST_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 2.0
CLOCK_SLACK_S: Final = 2.0
"""LastModified has whole seconds, and S3's hosts have a clock each."""

_THROTTLES: Final = frozenset(
    ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "BandwidthLimitExceeded")
)
_RETRIED_CODES: Final = _THROTTLES | {"RequestTimeout"}
_NETWORK: Final = (HTTPClientError, NoConnection)
_NEVER_REACHED: Final = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError)
_PRECONDITIONS: Final = ("IfMatch", "IfNoneMatch")
_OTHER_CHECKSUMS: Final = frozenset(("ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256"))
_HEAD_FIELDS: Final = (
    "ETag", "VersionId", "Expiration", "ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1",
    "ChecksumSHA256", "ChecksumType", "ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled",
)  # fmt: skip
"""PutObject's response fields that HeadObject knows too."""


class S3Sink:
    """Writes objects by PutObject. At most `limit` writes wait for one of `workers` threads."""

    def __init__(
        self,
        client: Any,
        completions: Completions,
        *,
        workers: int = 16,
        limit: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._completions = completions
        self._pool = WorkerPool("s3", threads=workers, limit=limit)
        self._clock = clock
        self._puts: dict[ObjectWrite, _Put] = {}

    def submit(self, write: ObjectWrite, done: Callable[[Outcome], None]) -> bool:
        put = _Put(self._client, write, self._clock)

        def finish(outcome: Outcome) -> None:
            del self._puts[write]
            done(outcome)

        def job() -> None:
            outcome = put.run()
            self._completions.put(lambda: finish(outcome))

        put.job = job
        put.finish = finish
        self._puts[write] = put
        if self._pool.submit(job):
            return True
        del self._puts[write]
        return False

    def cancel(self, write: ObjectWrite) -> None:
        put = self._puts.get(write)
        if put is None:
            return
        put.cancelled.set()
        if self._pool.remove(put.job):
            put.finish(CANCELLED)

    @property
    def load(self) -> int:
        return len(self._puts)

    def close(self, timeout_s: float) -> None:
        if not self._pool.close(timeout_s):
            _log.warning("%d writes were still under way", len(self._puts))


class _Put:
    """One PutObject through its attempts; `run` blocks, in a worker's thread."""

    job: Callable[[], None]
    finish: Callable[[Outcome], None]

    def __init__(self, client: Any, write: ObjectWrite, clock: Callable[[], float]) -> None:
        self._client = client
        self._write = write
        self._clock = clock
        self._may_have_written = False
        self.cancelled = threading.Event()

    def run(self) -> Outcome:
        try:
            return self._attempts()
        except Exception as error:  # an outcome is owed whatever happens
            _log.exception("put to s3://%s failed", self._write.parameters.get("Bucket"))
            return Outcome.failed("InternalError", f"gateway: {type(error).__name__}", 500)

    def _attempts(self) -> Outcome:
        parameters = _parameters_for_s3(self._write.parameters)
        body = bytes(self._write.body)
        begun = self._clock()
        backoff_s = FIRST_BACKOFF_S
        last: Outcome | None = None
        while True:
            if self.cancelled.is_set() or self._clock() >= self._write.deadline:
                return last if last is not None and self._may_have_written else CANCELLED
            try:
                response = self._client.put_object(Body=body, **parameters)
            except (ClientError, BotoCoreError) as error:
                last = _failure(error)
                if _is_conditional(error) and self._may_have_written:
                    return self._own_write(body, begun) or last
                if not _is_retried(error):
                    return last
                self._may_have_written |= _may_have_written(error)
                _log.info("put to s3://%s: %s", parameters["Bucket"], last.fields["Code"])
            else:
                return Outcome(StateType.COMPLETE, _response_fields(response))
            wait_s = backoff_s * random.uniform(0.5, 1.0)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
            self.cancelled.wait(min(wait_s, max(0.0, self._write.deadline - self._clock())))

    def _own_write(self, body: bytes, begun: float) -> Outcome | None:
        """COMPLETE if the object that stands in the way is the one an earlier attempt wrote, else None.

        Ours: same length, same checksum, and not older than our first attempt by S3's own clock.
        """
        names = {k: v for k, v in self._write.parameters.items() if k in ("Bucket", "Key", "ExpectedBucketOwner")}
        try:
            found = self._client.head_object(ChecksumMode="ENABLED", **names)
        except (ClientError, BotoCoreError) as error:
            _log.warning("can't tell whether a conditional put wrote: %s", _failure(error).fields["Code"])
            return None
        if found.get("ContentLength") != len(body):
            return None
        if checksum := found.get("ChecksumCRC32"):
            if checksum != self._write.parameters.get("ChecksumCRC32"):
                return None
        elif found.get("ETag", "").strip('"') != hashlib.md5(body, usedforsecurity=False).hexdigest():
            return None
        if _age_s(found) > self._clock() - begun + CLOCK_SLACK_S:
            return None
        return Outcome(StateType.COMPLETE, {name: found[name] for name in _HEAD_FIELDS if name in found})


def _parameters_for_s3(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """S3 takes one checksum only: where the caller chose another, CRC-32 (already verified here) stays behind."""
    chosen = dict(parameters)
    algorithm = chosen.get("ChecksumAlgorithm", "CRC32")
    if algorithm != "CRC32" or _OTHER_CHECKSUMS & chosen.keys():
        chosen.pop("ChecksumCRC32", None)
    return chosen


def _response_fields(response: dict[str, Any]) -> dict[str, Any]:
    """PutObject's response fields, and what S3's support asks for."""
    metadata = response.pop("ResponseMetadata")
    return response | {name: metadata[name] for name in ("RequestId", "HostId") if metadata.get(name)}


def _failure(error: ClientError | BotoCoreError) -> Outcome:
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        return Outcome.failed(str(details.get("Code", "Unknown")), str(details.get("Message", "")), int(status))
    if isinstance(error, ParamValidationError):
        return Outcome.failed("InvalidArgument", f"gateway: {error}", 400)
    if isinstance(error, _NETWORK):
        return Outcome.failed("ServiceUnavailable", f"gateway: could not reach S3: {type(error).__name__}", 503)
    _log.error("gateway can't write: %s", error)
    return Outcome.failed("ServiceUnavailable", f"gateway: can't write: {type(error).__name__}", 503)


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_retried(error: ClientError | BotoCoreError) -> bool:
    if isinstance(error, ClientError):
        return _status(error) >= 500 or _status(error) == 429 or _code(error) in _RETRIED_CODES
    return isinstance(error, _NETWORK)


def _may_have_written(error: ClientError | BotoCoreError) -> bool:
    """Whether S3 may have stored the object although the attempt failed."""
    if isinstance(error, ClientError):
        return _status(error) >= 500 and _code(error) not in _THROTTLES
    return not isinstance(error, _NEVER_REACHED)


def _is_conditional(error: ClientError | BotoCoreError) -> bool:
    return isinstance(error, ClientError) and _status(error) in (409, 412)


def _age_s(found: Mapping[str, Any]) -> float:
    """How old the object is by the clock of the host that answered."""
    from email.utils import parsedate_to_datetime  # needed once in a blue moon

    now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
    return float((now - found["LastModified"]).total_seconds())
