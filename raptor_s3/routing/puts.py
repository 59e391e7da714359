"""PutObject calls of one client or session: which way each goes, what its caller gets, what is noted of it.

    put       before a request is sent: the fast path's answer, or None and the body that HTTPS is to send
    settle    S3 has answered HTTPS: a refusal that only repeats what the fast path has done is put right (`unconfirmed`)
    finish    ResponseMetadata says which way it went, and the journal is written

botocore's requests and responses come as plain dicts: `hooks` listens for them and imports this with the first one.

Invariant: whatever happens on the fast path, the request that goes on to HTTPS is the one that would have gone without
it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import ConfigError
from raptor_s3.net.forking import in_forked_child
from raptor_s3.routing import response
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

_REMEMBERED: Final = 1024
_NO_CREDENTIALS: Final = frozenset({"NoCredentialsError", "PartialCredentialsError"})


class Call:
    """One PutObject call, from its beginning to its journal entry."""

    after_failure = False  # of the fast path, HTTPS has taken over
    unconfirmed: Unconfirmed | None = None  # what S3 may refuse because the fast path has done it
    emitter: Any = None  # of the client that makes the call; only with `unconfirmed`

    def __init__(self, source: str) -> None:
        self.record = PutRecord(time.time(), source=source)
        self.began = time.perf_counter()


class Puts:
    """Thread-safe; survives fork. The arguments are those of `hooks.attach`."""

    def __init__(
        self,
        config: RaptorConfig | Callable[[], RaptorConfig],
        source: str,
        make_fast_path: Callable[[RaptorConfig], FastPath] | None,
        make_journal: Callable[[RaptorConfig], Journal | None] | None,
        on_https_error: Callable[[PutRecord], None] | None,
    ) -> None:
        self._given_config = config
        self._source = source
        self._make_fast_path = make_fast_path or _real_fast_path
        self._make_journal = make_journal or _real_journal
        self._on_https_error = on_https_error
        self._fast_path: FastPath | None = None
        self._journal: Journal | None = None
        self._has_complained = False
        self.destinations: dict[str, Destination] = {}
        self.declined: dict[int, tuple[Declined, Call]] = {}  # by thread: what a shortcut has already heard about its call

    @property
    def fast_path(self) -> FastPath:
        """Made at the first put. Raises ConfigError."""
        if self._fast_path is None:
            with _making:
                if self._fast_path is None:
                    config = self._given_config() if callable(self._given_config) else self._given_config
                    self._journal = self._make_journal(config)
                    self._fast_path = self._make_fast_path(config)
        return self._fast_path

    @property
    def config(self) -> RaptorConfig:
        """The settings in force. Raises ConfigError."""
        return self.fast_path.config

    @property
    def is_strict(self) -> bool:
        """Whether the settings, as far as they can be known, forbid HTTPS."""
        given = self._given_config
        if not callable(given):
            return given.transport == "raptor"
        with contextlib.suppress(ConfigError):
            return self.config.transport == "raptor"
        return False

    def new_call(self) -> Call:
        return Call(self._source)

    def put(self, call: Call, params: dict[str, Any], context: dict[str, Any], emitter: Any) -> response.EventResponse | None:
        """The answer to a request as botocore has it at before-call; None: HTTPS is to send it, with its body put back."""
        record = call.record
        try:
            fast_path = self.fast_path
        except ConfigError as error:
            return self._without_settings(record, error, params["url"])
        request = read_request(params, context, emitter)
        result: Result
        if isinstance(request, str):
            result = Declined(request, params["body"])
        else:
            record.bucket, record.key = request.bucket, request.key
            self._remember(request)
            known = self.declined.pop(threading.get_ident(), None) if self.declined else None
            if known is not None and (known[1].record.bucket, known[1].record.key) == (request.bucket, request.key):
                declined, begun = known
                result = declined._replace(body=request.body)
                call.began, record.at, record.size_bytes = begun.began, begun.record.at, begun.record.size_bytes
            else:
                result = fast_path.put(request, record)
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
        return _refuse(str(error), 400, url) if self.is_strict else None

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

    def carried(self, call: Call, result: Carried) -> dict[str, Any]:
        """`answer` and `finish` of a put that the fast path has carried, without what only handlers of events get to see."""
        call.record.route = "raptor"
        parsed = response.parsed_success(result.fields)
        self.finish(call, 200, parsed)
        return parsed

    def _remember(self, request: PutRequest) -> None:
        if request.bucket not in self.destinations:
            if len(self.destinations) >= _REMEMBERED:
                self.destinations.clear()
            self.destinations[request.bucket] = Destination(request.base_url, request.auth_type, request.signing_name)

    def settle(self, call: Call, http: Any, parsed: dict[str, Any], client: Callable[[], Any]) -> None:
        """Look again at what S3 has answered HTTPS, with the client that asked, or one that its events know."""
        if call.unconfirmed is None:
            return
        from raptor_s3.routing import unconfirmed  # needed for lost confirmations only
        from raptor_s3.routing.listeners import client_of

        refusal = parsed.get("Error", {}).get("Code", "")
        if unconfirmed.settle(lambda: client() or client_of(call.emitter), call.unconfirmed, http, parsed):
            call.record.route = "raptor"
            call.record.reason = f"confirmation lost, found in S3 after {refusal} over HTTPS ({call.record.reason})"

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

    def fail(self, call: Call, exception: BaseException) -> None:
        """The same for a call that ended without a response."""
        call.record.error = type(exception).__name__
        if call.record.route == "https":
            exception.add_note(f"raptor_s3: not on the fast path: {call.record.reason}")
        self._write(call)
        self._tell(call)

    def refuse_multipart(self, url: str) -> response.EventResponse:
        return _refuse("a multipart upload (see multipart_threshold) can't take the fast path", 400, url)

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


def _refuse(reason: str, status: int, url: str) -> response.EventResponse:
    return response.failure("RaptorUnavailable", reason, status, url)


def _real_fast_path(config: RaptorConfig) -> FastPath:
    from raptor_s3.routing.endpoint import fast_path_for

    return fast_path_for(config)


def _real_journal(config: RaptorConfig) -> Journal | None:
    from raptor_s3.routing.endpoint import journal_for

    return journal_for(config) if config.is_configured else None


_making = threading.RLock()


@in_forked_child
def _after_fork() -> None:
    global _making
    _making = threading.RLock()
