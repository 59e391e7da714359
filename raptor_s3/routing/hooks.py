"""The one place where raptor-s3 touches botocore: handlers on a client's events.

`attach` registers them on a client, or on a session's event emitter before clients copy it. botocore itself is never
imported, because inside the AWS CLI it is a vendored copy: all that is needed hangs on the arguments of the events.

    before-call  registered last at the root of the event tree, so that it runs after everybody else's handler and after
                 Stubber: takes the put, or lets the very same request go on to HTTPS
    after-call   first of all, a refusal that only repeats what the fast path has done is put right (`unconfirmed`); last of
                 all, ResponseMetadata says which way the put went, and the journal is written

Invariant: whatever happens on the fast path, the request that goes on to HTTPS is the one that would have gone without
it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import ConfigError
from raptor_s3.net.forking import in_forked_child
from raptor_s3.routing import last_resort, response
from raptor_s3.routing.body import size_at_a_glance
from raptor_s3.routing.fast_path import Carried, Declined, Refused
from raptor_s3.routing.journal import PutRecord
from raptor_s3.routing.request import Destination, PutRequest, read_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.fast_path import FastPath, Result
    from raptor_s3.routing.journal import Journal
    from raptor_s3.routing.unconfirmed import Unconfirmed

logger = logging.getLogger("raptor_s3.routing")

_ID: Final = "raptor-s3"
_CONTEXT_KEY: Final = "raptor_s3"
_PUT: Final = ".s3.PutObject"
_BEFORE_CALL: Final = f"before-call{_PUT}"
_AFTER_PUT: Final = f"after-call{_PUT}"
_MULTIPART: Final = frozenset({"before-call.s3.CreateMultipartUpload", "before-call.s3.UploadPart"})
_REMEMBERED: Final = 1024
_NO_CREDENTIALS: Final = frozenset({"NoCredentialsError", "PartialCredentialsError"})


class Call:
    """One PutObject call, from its beginning to its journal entry."""

    __slots__ = ("after_failure", "began", "emitter", "record", "unconfirmed")

    def __init__(self, source: str) -> None:
        self.record = PutRecord(time.time(), source=source)
        self.began = time.perf_counter()
        self.after_failure = False  # of the fast path, HTTPS has taken over
        self.unconfirmed: Unconfirmed | None = None  # what S3 may refuse because the fast path has done it
        self.emitter: Any = None  # of the client that makes the call; only with `unconfirmed`


class Attachment:
    """The fast path on one client or emitter. Thread-safe; survives fork."""

    def __init__(
        self,
        target: Any,
        config: RaptorConfig | Callable[[], RaptorConfig],
        source: str,
        make_fast_path: Callable[[RaptorConfig], FastPath],
        make_journal: Callable[[RaptorConfig], Journal | None],
        on_https_error: Callable[[PutRecord], None] | None,
    ) -> None:
        self.is_active = True
        is_client = hasattr(target, "meta")
        self._emitter = target.meta.events if is_client else target
        self._client = weakref.ref(target) if is_client else lambda: None
        self._given_config = config
        self._source = source
        self._make_fast_path = make_fast_path
        self._make_journal = make_journal
        self._on_https_error = on_https_error
        self._fast_path: FastPath | None = None
        self._journal: Journal | None = None
        self._has_complained = False
        self.destinations: dict[str, Destination] = {}
        self.declined: dict[int, Declined] = {}  # by thread: what a shortcut has already heard about the call under way

    @property
    def fast_path(self) -> FastPath:
        """Made at the first put. Raises ConfigError."""
        if self._fast_path is None:
            with _registration:
                if self._fast_path is None:
                    config = self._given_config() if callable(self._given_config) else self._given_config
                    self._journal = self._make_journal(config)
                    self._fast_path = self._make_fast_path(config)
        return self._fast_path

    @property
    def config(self) -> RaptorConfig:
        """The settings in force. Raises ConfigError."""
        return self.fast_path.config

    def detach(self) -> None:
        """Take the fast path off again, also from clients that have copied the emitter since."""
        self.is_active = False
        with _registration:
            for event, handler in self._handlers():
                self._emitter.unregister(event, handler, unique_id=f"{_ID}.{event}")

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _register(self) -> None:
        with _registration:
            for event, handler in self._handlers():
                self._emitter.unregister(event, unique_id=f"{_ID}.{event}")  # the latest attachment holds
                register = self._emitter.register_first if event == _AFTER_PUT else self._emitter.register_last
                register(event, handler, unique_id=f"{_ID}.{event}")

    def _handlers(self) -> tuple[tuple[str, Callable[..., Any]], ...]:
        return (
            ("before-call", self._before_call),
            (_AFTER_PUT, self._settle),
            ("after-call", self._after_call),
            ("after-call-error", self._after_call_error),
        )

    def _before_call(self, event_name: str, **event: Any) -> response.EventResponse | None:
        if event_name == _BEFORE_CALL:
            return self._put(event["params"], event["context"], event.get("request_signer")) if self.is_active else None
        if event_name in _MULTIPART and self.is_active and self._is_strict:
            return _refuse("a multipart upload (see multipart_threshold) can't take the fast path", 400, event["params"]["url"])
        return None

    @property
    def _is_strict(self) -> bool:
        """Whether the settings, as far as they can be known, forbid HTTPS."""
        given = self._given_config
        if not callable(given):
            return given.transport == "raptor"
        with contextlib.suppress(ConfigError):
            return self.config.transport == "raptor"
        return False

    def new_call(self) -> Call:
        return Call(self._source)

    def _put(self, params: dict[str, Any], context: dict[str, Any], signer: Any) -> response.EventResponse | None:
        context[_CONTEXT_KEY] = call = self.new_call()
        record = call.record
        try:
            fast_path = self.fast_path
        except ConfigError as error:
            return self._without_settings(record, error, params["url"])
        emitter = getattr(signer, "_event_emitter", None)
        request = read_request(params, context, emitter)
        result: Result
        if isinstance(request, str):
            result = Declined(request, params["body"])
        else:
            record.bucket, record.key = request.bucket, request.key
            self._remember(request)
            known = self.declined.pop(threading.get_ident(), None) if self.declined else None
            result = fast_path.put(request, record) if known is None else known._replace(body=request.body)
        answer = self.answer(result, record, params["url"])
        if record.size_bytes is None:
            record.size_bytes = size_at_a_glance(params["body"])
        if isinstance(answer, Declined):
            params["body"] = answer.body
            call.after_failure, call.unconfirmed, call.emitter = answer.after_failure, answer.unconfirmed, emitter
            return None
        return answer

    def _without_settings(self, record: PutRecord, error: ConfigError, url: str) -> response.EventResponse | None:
        record.route, record.reason = "https", str(error)
        if not self._has_complained:
            self._has_complained = True
            logger.error("no fast path: %s", error)
        return _refuse(str(error), 400, url) if self._is_strict else None

    def answer(self, result: Result, record: PutRecord, url: str) -> response.EventResponse | Declined:
        """What the caller gets for a result by the settings; Declined: HTTPS is to take over."""
        record.route = "raptor"
        if isinstance(result, Carried):
            return response.success(result.fields, url)
        if isinstance(result, Refused):
            return response.failure(result.code, result.message, result.status, url)
        record.reason = result.reason
        config = self.config
        if config.transport == "raptor" or (result.after_failure and config.on_failure == "raise"):
            if result.refusal is not None:
                return response.failure(*result.refusal, url)
            return _refuse(result.reason, 503 if result.after_failure else 400, url)
        record.route = "https"
        return result

    def _remember(self, request: PutRequest) -> None:
        if request.bucket not in self.destinations:
            if len(self.destinations) >= _REMEMBERED:
                self.destinations.clear()
            self.destinations[request.bucket] = Destination(request.base_url, request.auth_type, request.signing_name)

    def _settle(self, context: dict[str, Any], parsed: dict[str, Any], http_response: Any, **_: Any) -> None:
        call = context.get(_CONTEXT_KEY)
        if call is None or call.unconfirmed is None:
            return
        from raptor_s3.routing import unconfirmed  # needed for lost confirmations only
        from raptor_s3.routing.listeners import client_of

        refusal = parsed.get("Error", {}).get("Code", "")
        if unconfirmed.settle(lambda: self._client() or client_of(call.emitter), call.unconfirmed, http_response, parsed):
            call.record.route = "raptor"
            call.record.reason = f"confirmation lost, found in S3 after {refusal} over HTTPS ({call.record.reason})"

    def _after_call(self, event_name: str, context: dict[str, Any], parsed: dict[str, Any], http_response: Any, **_: Any) -> None:
        call = context.pop(_CONTEXT_KEY, None) if event_name.endswith(_PUT) else None
        if call is not None:
            self.finish(call, getattr(http_response, "status_code", 0), parsed)

    def _after_call_error(self, event_name: str, context: dict[str, Any], exception: BaseException, **_: Any) -> None:
        call = context.pop(_CONTEXT_KEY, None) if event_name.endswith(_PUT) else None
        if call is not None:
            call.record.error = type(exception).__name__
            if call.record.route == "https":
                exception.add_note(f"raptor_s3: not on the fast path: {call.record.reason}")
            self._write(call)
            self._tell(call)

    def finish(self, call: Call, status: int, parsed: dict[str, Any]) -> None:
        """Note how a call ended, in the journal and in the response itself."""
        record = call.record
        record.status = status
        record.etag = parsed.get("ETag", "")
        if status >= 300:
            record.error = parsed.get("Error", {}).get("Code", "")
        parsed.setdefault("ResponseMetadata", {})[response.METADATA_KEY] = response.metadata(record)
        self._write(call)
        if status >= 300:
            self._tell(call)

    def _tell(self, call: Call) -> None:
        """A put failed over HTTPS. If the fast path is what should have carried it, say why it has not."""
        record = call.record
        tell = self._on_https_error
        if tell is not None and record.route == "https" and (call.after_failure or record.error in _NO_CREDENTIALS):
            tell(record)

    def _write(self, call: Call) -> None:
        record = call.record
        record.elapsed_s = time.perf_counter() - call.began
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("s3://%s/%s %s %s", record.bucket, record.key, record.route, record.reason or record.etag)
        if self._journal is not None:
            self._journal.record(record)


def attach(
    target: Any,
    config: RaptorConfig | Callable[[], RaptorConfig],
    *,
    source: str = "boto3",
    make_fast_path: Callable[[RaptorConfig], FastPath] | None = None,
    make_journal: Callable[[RaptorConfig], Journal | None] | None = None,
    on_https_error: Callable[[PutRecord], None] | None = None,
) -> Attachment:
    """Put the fast path on an S3 client, or on the event emitter of a session for the clients it will make.

    `config` may be a function, asked at the first put. Attaching again replaces what was attached before. `source`
    names the face in the journal. `on_https_error` hears of puts that HTTPS could not do after the fast path had failed, or
    for want of credentials. The other two stand in for the real ones in tests.
    """
    last_resort.install()
    attachment = Attachment(
        target, config, source, make_fast_path or _real_fast_path, make_journal or _real_journal, on_https_error
    )
    attachment._register()
    return attachment


def _refuse(reason: str, status: int, url: str) -> response.EventResponse:
    return response.failure("RaptorUnavailable", reason, status, url)


def _real_fast_path(config: RaptorConfig) -> FastPath:
    from raptor_s3.routing.endpoint import fast_path_for

    return fast_path_for(config)


def _real_journal(config: RaptorConfig) -> Journal | None:
    from raptor_s3.routing.endpoint import journal_for

    return journal_for(config)


_registration = threading.RLock()


@in_forked_child
def _after_fork() -> None:
    global _registration
    _registration = threading.RLock()
