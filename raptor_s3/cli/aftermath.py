"""What follows when an upload of `raptor send` has ended: the report, the journal, and the circuit breaker that boto3 obeys too.

Invariant: each upload that left is noted once in each of them; what a receiver does not confirm by choice opens no breaker.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from raptor_s3.cli.destination import Bucket, Receiver, Upload
from raptor_s3.cli.explain import explain
from raptor_s3.cli.output import seconds
from raptor_s3.errors import ConfirmationTimeout, HandshakeTimeout, RaptorError
from raptor_s3.routing import ending
from raptor_s3.routing.journal import PutRecord

if TYPE_CHECKING:
    from raptor_s3.cli.report import Report
    from raptor_s3.net.engine import Engine, PutOutcome
    from raptor_s3.routing.breaker import Breaker
    from raptor_s3.routing.journal import Journal

PROBE_TIMEOUT_S = 2.0


class Departure(NamedTuple):
    """An upload that is under way."""

    upload: Upload
    size_bytes: int
    started_at: float  # unix time
    began: float  # time.perf_counter()


class Aftermath:
    """Notes how the uploads of one command ended."""

    def __init__(
        self, engine: Engine, destination: Bucket | Receiver, report: Report, journal: Journal | None, breaker: Breaker
    ) -> None:
        self._engine = engine
        self._destination = destination
        self._report = report
        self._journal = journal
        self._breaker = breaker
        self._ping_s: float | None = None
        self._has_pinged = False

    def succeed(self, sent: Departure, outcome: PutOutcome, *, is_confirmed: bool) -> None:
        record, stats = self._record(sent), outcome.stats
        record.status, record.etag = 200, str(outcome.fields.get("ETag", ""))
        record.elapsed_s, record.rtt_s, record.handshake = stats.elapsed_s, stats.rtt_s, stats.handshake
        record.datagrams, record.lost = stats.datagrams_sent, stats.lost_estimate
        self._write(record)
        if is_confirmed:
            self._breaker.succeeded()
        self._report.succeed(sent.upload, sent.size_bytes, outcome)

    def fail(self, sent: Departure, error: RaptorError | ValueError, elapsed_s: float) -> None:
        record = self._record(sent)
        record.error = getattr(error, "code", type(error).__name__)
        record.reason = str(error)
        record.status = getattr(error, "status", 0)
        record.elapsed_s = elapsed_s
        self._write(record)
        if isinstance(error, RaptorError) and (isinstance(self._destination, Bucket) or isinstance(error, HandshakeTimeout)):
            self._breaker.ended(ending.failure(error), sent.started_at)
        self._report.fail(sent.upload, sent.size_bytes, self.explain(error))

    def _record(self, sent: Departure) -> PutRecord:
        bucket = self._destination.name if isinstance(self._destination, Bucket) else ""
        name, size_bytes = sent.upload.name, sent.size_bytes
        return PutRecord(sent.started_at, bucket, name, size_bytes=size_bytes, route="raptor", source="raptor")

    def _write(self, record: PutRecord) -> None:
        if self._journal is not None:
            self._journal.record(record)

    def explain(self, error: RaptorError | ValueError) -> str:
        """What went wrong and what to do about it."""
        if isinstance(self._destination, Receiver) and isinstance(error, ConfirmationTimeout):
            ping_s = self._ping()
            if ping_s is not None:
                return (
                    f"{error}, although the receiver answers pings in {seconds(ping_s)}. A raptor gateway stores objects that "
                    'name no bucket only for peers with "legacy": true, under its --legacy-bucket, and is silent about others. '
                    "To name the bucket: raptor configure, then raptor FILE s3://BUCKET/KEY"
                )
        if isinstance(self._destination, Receiver):
            return explain(error, endpoint="DESTINATION")  # `raptor ping` asks the profile's endpoint
        return explain(error, may_ping=True)

    def _ping(self) -> float | None:
        """The round trip if the endpoint gives a sign of life; asked once."""
        if not self._has_pinged:
            self._has_pinged = True
            began = time.perf_counter()
            try:
                outcome = self._engine.ping(timeout_s=PROBE_TIMEOUT_S)
            except RaptorError:
                return None
            self._ping_s = outcome.stats.rtt_s or time.perf_counter() - began
        return self._ping_s
