"""The direct sink: PutObject by boto3, in a bounded pool of threads (docs/gateway.md).

    attempt -> written                                       COMPLETE, with S3's own response fields
            -> S3 says no (4xx)                              FAILED, with S3's Code, Message and status
            -> 5xx, throttled, no connection                 wait, attempt again, until the time to live has passed
            -> 412/409 after an attempt whose end is unknown look whether that was our own write (If-None-Match)
            -> no time left, or cancelled                    CANCELLED; FAILED where an attempt may have written

Between attempts a cancel is honoured; during one it waits for S3's word. boto3's own retries are off: they know neither
the time to live nor cancels.

An attempt waits for S3 about as long as there is time left: of clients with several read timeouts it takes the one that fits.

Invariant: no request leaves after the deadline or after a cancel; CANCELLED is said only when no attempt can have written.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.gateway.workers import Completions, WorkerPool
from raptor_s3.net import clock
from raptor_s3.receiver import s3_answers
from raptor_s3.receiver.outcome import CANCELLED, Outcome, given_up
from raptor_s3.receiver.s3_client import TooLate, only_while
from raptor_s3.wire.transfer_state import StateType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raptor_s3.gateway.sink import ObjectWrite

_log = logging.getLogger(__name__)

FIRST_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 2.0


class S3Sink:
    """Writes objects by PutObject. At most `limit` writes wait for one of `workers` threads.

    `hasty`: (read timeout in seconds, client), the shortest first, for attempts that have less time than `client` takes.
    """

    def __init__(
        self,
        client: Any,
        completions: Completions,
        *,
        workers: int = 16,
        limit: int = 1024,
        hasty: Sequence[tuple[float, Any]] = (),
        clock: Callable[[], float] = clock.now,
    ) -> None:
        self._client = client
        self._hasty = hasty
        self._completions = completions
        self._pool = WorkerPool("s3", threads=workers, limit=limit)
        self._clock = clock
        self._puts: dict[ObjectWrite, _Put] = {}

    def submit(self, write: ObjectWrite, done: Callable[[Outcome], None]) -> bool:
        put = _Put(self._client, self._hasty, write, self._clock)

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

    def __init__(self, client: Any, hasty: Sequence[tuple[float, Any]], write: ObjectWrite, clock: Callable[[], float]) -> None:
        self._client = client
        self._hasty = hasty
        self._write = write
        self._clock = clock
        self._attempted_at: float | None = None  # since when an attempt may have written
        self.cancelled = threading.Event()

    def run(self) -> Outcome:
        try:
            return self._attempts()
        except Exception as error:  # an outcome is owed whatever happens
            _log.exception("put to s3://%s failed", self._write.parameters.get("Bucket"))
            return Outcome.refused("gateway", "InternalError", type(error).__name__, 500)

    def _attempts(self) -> Outcome:
        fields = self._write.parameters
        parameters = s3_answers.put_parameters(fields)
        body = bytes(self._write.body)
        backoff_s = FIRST_BACKOFF_S
        while True:
            begun = self._clock()
            if not self._may_begin():
                return given_up("gateway", may_have_written=self._attempted_at is not None)
            try:
                with only_while(self._may_begin):
                    response = self._client_for(self._write.deadline - begun).put_object(Body=body, **parameters)
            except TooLate:
                continue
            except s3_answers.FAILURES as error:
                failure = s3_answers.failure("gateway", error)
                if s3_answers.is_in_the_way(error) and self._attempted_at is not None:
                    return self._own_write(self._clock() - self._attempted_at) or failure
                if not s3_answers.is_transient(error):
                    return failure
                if self._attempted_at is None and s3_answers.may_have_written(error):
                    self._attempted_at = begun
                _log.info("put to s3://%s: %s", parameters["Bucket"], s3_answers.code_of(error) or type(error).__name__)
            else:
                return Outcome(StateType.COMPLETE, s3_answers.response_fields(response))
            wait_s = backoff_s * random.uniform(0.5, 1.0)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
            self.cancelled.wait(min(wait_s, max(0.0, self._write.deadline - self._clock())))

    def _may_begin(self) -> bool:
        return not self.cancelled.is_set() and self._clock() < self._write.deadline

    def _client_for(self, remaining_s: float) -> Any:
        """The most patient of the hasty clients, where there is less time than for two of its timeouts."""
        chosen = self._client
        for timeout_s, client in reversed(self._hasty):
            if remaining_s >= 2 * timeout_s:
                break
            chosen = client
        return chosen

    def _own_write(self, elapsed_s: float) -> Outcome | None:
        fields, body = self._write.parameters, self._write.body
        crc32 = fields.get("ChecksumCRC32")
        return s3_answers.own_write(self._client, fields, lambda found: s3_answers.holds(found, body, crc32), elapsed_s)
