"""One put, from its facts to what became of it: policy, body, checksum, engine, breaker. Knows nothing of botocore.

    Declined   HTTPS is to carry it, with `body`; `after_failure` when the fast path was tried, or is known to be down
    Refused    S3 said no: its own code, message and status
    Carried    the object is in S3 (as far as the `confirm` setting asks for)

Invariant: a Declined put is not written by the fast path from then on (whether it has been is `unconfirmed`'s to say), and its
`body` reads as if nobody had touched it.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from raptor_s3.errors import RaptorError, TransferRejected
from raptor_s3.net import clock
from raptor_s3.routing import policy
from raptor_s3.routing.body import Body, GivenUp
from raptor_s3.routing.checksums import add_checksum
from raptor_s3.routing.parameters import Unsupported, put_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from raptor_s3.routing.breaker import Breaker
    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.journal import PutRecord
    from raptor_s3.routing.policy import LinkEstimate
    from raptor_s3.routing.request import PutRequest
    from raptor_s3.routing.unconfirmed import Unconfirmed

logger = logging.getLogger("raptor_s3.routing")

_REFUSAL_MEMORY_S: Final = 60.0
_REMEMBERED: Final = 1024
# From here on, who waits for a put is asked meanwhile whether it is still wanted.
_LARGE: Final = 1 << 20
_LONG_S: Final = 10.0


class PutOutcome(Protocol):
    """What the engine returns (raptor_s3.net.engine.PutOutcome), as far as it is used here."""

    @property
    def fields(self) -> Mapping[str, Any]: ...

    @property
    def stats(self) -> Any: ...


class PutEngine(Protocol):
    """The engine (raptor_s3.net.engine.Engine), as far as it is used here."""

    def put(self, fields: Mapping[str, Any], body: bytes, *, timeout_s: float, confirm: str) -> PutOutcome: ...

    def submit(self, fields: Mapping[str, Any], body: bytes, *, timeout_s: float, confirm: str) -> Future[Any]: ...


class Declined(NamedTuple):
    """HTTPS is to carry the put, with `body`."""

    reason: str
    body: Any
    after_failure: bool = False
    unconfirmed: Unconfirmed | None = None  # a conditional put that may be in S3 already
    refusal: Refused | None = None  # the receiver's own words, for who does not want HTTPS


class Refused(NamedTuple):
    """S3 said no."""

    code: str
    message: str
    status: int


class Carried(NamedTuple):
    """It is in S3; `fields` as the receiver gave them."""

    fields: Mapping[str, Any]


Result = Declined | Refused | Carried


class FastPath:
    """Carries puts by one client's settings. Thread-safe."""

    def __init__(
        self,
        config: RaptorConfig,
        engine: Callable[[], PutEngine],
        breaker: Breaker,
        link: Callable[[], LinkEstimate | None] = lambda: None,
    ) -> None:
        self.config = config
        self._engine = engine
        self._breaker = breaker
        self._link = link
        self._bucket_reasons: dict[tuple[str, str], str] = {}
        self._refusals: dict[tuple[str, str], tuple[float, str]] = {}
        self._complained_at = -_REFUSAL_MEMORY_S

    def put(self, request: PutRequest, record: PutRecord) -> Result:
        """Carry one put, or say why not; `record` learns size and costs.

        Exceptions of the body's own read pass through, s3transfer's cancellation of a put that is under way among them.
        """
        reason = self.bucket_reason(request.bucket, request.base_url)
        if reason:
            return Declined(reason, request.body)
        try:
            fields = put_fields(request.headers, request.bucket, request.key, self.config.backend_allows)
        except Unsupported as unsupported:
            return Declined(str(unsupported), request.body)
        return self.carry(request, fields, record)

    def carry(self, request: PutRequest, fields: dict[str, Any], record: PutRecord) -> Result:
        """The same, for a bucket that has no `bucket_reason` and a request whose put header `fields` are at hand."""
        config = self.config
        try:
            body = Body(request.body)
            body.expect(fields.pop("ContentLength", None))
        except Unsupported as unsupported:
            return Declined(str(unsupported), request.body)
        record.size_bytes = body.size_bytes
        link = None
        if config.threshold_bytes is None and not self._breaker.is_open():  # to ask for the link may resolve the endpoint's name
            link = self._link()
        limit = policy.body_limit(config, link)
        reason = policy.decide(request, body.size_bytes, config, limit).reason or self._refusal(request)
        if reason:
            return Declined(reason, request.body)
        started_at = time.time()  # before it is admitted, so that the failures of others are no news to it
        if config.transport != "raptor":  # who insists on the fast path wants it tried
            reason = self._breaker.admit(config.timeout_s)
            if reason:
                return Declined(reason, request.body, after_failure=True)
        try:
            data = body.read(limit)
            record.size_bytes = len(data)
            add_checksum(fields, request.checksum_algorithm, data)
        except Unsupported as unsupported:
            return Declined(str(unsupported), body.put_back())
        return self._send(request, record, fields, data, body, started_at)

    def _send(
        self, request: PutRequest, record: PutRecord, fields: dict[str, Any], data: bytes, body: Body, started_at: float
    ) -> Result:
        config = self.config
        began_at = clock.now()
        try:
            patience_s = policy.patience_s(config, len(data))
            if (len(data) >= _LARGE or patience_s > _LONG_S) and body.can_be_asked:
                from raptor_s3.routing import attended  # imported here, where few puts come

                outcome = attended.put(self._engine(), fields, data, body, timeout_s=patience_s, confirm=_confirm(fields, config))
            else:
                outcome = self._engine().put(fields, data, timeout_s=patience_s, confirm=_confirm(fields, config))
        except GivenUp as given_up:
            raise given_up.reason from None
        except ValueError as error:
            return Declined(f"can't travel: {error}", body.put_back())
        except Exception as error:  # a bug here, or a socket's OSError, must not cost the caller a put that HTTPS can carry
            return self._failed(error, request, fields, data, body, started_at, began_at)
        self._breaker.succeeded()
        _note_costs(record, outcome.stats)
        return Carried(outcome.fields)

    def _failed(
        self,
        error: Exception,
        request: PutRequest,
        fields: dict[str, Any],
        data: bytes,
        body: Body,
        started_at: float,
        began_at: float,
    ) -> Declined | Refused:
        from raptor_s3.routing import ending  # imported here, where few puts come
        from raptor_s3.routing.unconfirmed import unconfirmed

        failure = ending.failure(error)
        self._breaker.ended(failure, started_at)
        refusal = None
        reason = f"fast path failed: {failure}"
        if isinstance(error, TransferRejected):
            refusal = Refused(error.code, error.message, error.status)
            if not ending.is_receivers_own(error):
                return refusal
            reason = f"refused: {error}"
            self._note_refusal(request, error, is_known=bool(failure))
        elif not isinstance(error, RaptorError):
            logger.error("fast path failed", exc_info=error)
        sent = unconfirmed(error, fields, data, began_at)
        return Declined(reason, body.put_back(), after_failure=True, unconfirmed=sent, refusal=refusal)

    def body_limit(self) -> int:
        """Octets of body above which a put goes over HTTPS, as things are."""
        return policy.body_limit(self.config, self._link() if self.config.threshold_bytes is None else None)

    def bucket_reason(self, bucket: str, base_url: str) -> str:
        """Why nothing of this bucket takes the fast path, remembered; empty when puts may."""
        reason = self._bucket_reasons.get((bucket, base_url))
        if reason is None:
            if len(self._bucket_reasons) >= _REMEMBERED:
                self._bucket_reasons.clear()
            reason = policy.endpoint_reason(self.config) or policy.bucket_reason(bucket, base_url, self.config)
            self._bucket_reasons[bucket, base_url] = reason
        return reason

    def _refusal(self, request: PutRequest) -> str:
        """What the receiver's policy lately said about this place, so that each further put doesn't travel twice."""
        if not self._refusals or self._is_strict:
            return ""
        expires_at, reason = self._refusals.get(_place(request), (0.0, ""))
        return f"lately refused: {reason}" if time.monotonic() < expires_at else ""

    def _note_refusal(self, request: PutRequest, rejection: TransferRejected, *, is_known: bool) -> None:
        """Remember what the policy said; once in a while say aloud that HTTPS has to do what the receiver would not.

        `is_known`: the breaker has said it already.
        """
        now = time.monotonic()
        if rejection.status == 403:
            if len(self._refusals) >= _REMEMBERED:
                self._refusals.clear()
            self._refusals[_place(request)] = (now + _REFUSAL_MEMORY_S, str(rejection))
        if not is_known and now >= self._complained_at + _REFUSAL_MEMORY_S and not self._is_strict:
            self._complained_at = now
            logger.warning("the receiver refuses s3://%s/%s, HTTPS takes over: %s", request.bucket, request.key, rejection)

    @property
    def _is_strict(self) -> bool:
        """Whether whoever calls hears of every failure."""
        return self.config.transport == "raptor" or self.config.on_failure == "raise"


def _confirm(fields: dict[str, Any], config: RaptorConfig) -> str:
    """What to wait for. Whether a condition holds, only S3 can say."""
    return "file" if "IfNoneMatch" in fields or "IfMatch" in fields else config.confirm


def _place(request: PutRequest) -> tuple[str, str]:
    return request.bucket, request.key.rpartition("/")[0]


def _note_costs(record: PutRecord, stats: Any) -> None:
    record.datagrams = stats.datagrams_sent
    record.lost = stats.lost_estimate or 0
    record.rtt_s = stats.rtt_s
    record.handshake = stats.handshake
