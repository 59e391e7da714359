"""The one place where raptor-s3 touches botocore: handlers on a client's events.

`attach` registers them on a client, or on a session's event emitter before clients copy it. botocore itself is never
imported, because inside the AWS CLI it is a vendored copy: all that is needed hangs on the arguments of the events.

    before-call  registered last at the root of the event tree, so that it runs after everybody else's handler and after
                 Stubber: takes the put, or lets the very same request go on to HTTPS
    after-call   first of all the put is settled, last of all finished (`puts`)

Invariant: until a PutObject comes, nothing of what carries it is imported.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.net.forking import in_forked_child
from raptor_s3.routing import last_resort

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.fast_path import FastPath
    from raptor_s3.routing.journal import Journal, PutRecord
    from raptor_s3.routing.puts import Puts
    from raptor_s3.routing.response import EventResponse

_ID: Final = "raptor-s3"
_CONTEXT_KEY: Final = "raptor_s3"
_PUT: Final = ".s3.PutObject"
_BEFORE_CALL: Final = f"before-call{_PUT}"
_AFTER_PUT: Final = f"after-call{_PUT}"
_MULTIPART: Final = frozenset({"before-call.s3.CreateMultipartUpload", "before-call.s3.UploadPart"})


class Attachment:
    """The fast path on one client or emitter. Thread-safe; survives fork."""

    def __init__(self, target: Any, make_puts: Callable[[], Puts], *, has_shortcuts: bool) -> None:
        self.is_active = True
        is_client = hasattr(target, "meta")
        self._emitter = target.meta.events if is_client else target
        self._client = weakref.ref(target) if is_client else lambda: None
        self._make_puts = make_puts
        self._puts: Puts | None = None
        self._has_shortcuts = has_shortcuts
        self._uninstall: Callable[[], None] | None = None

    @property
    def puts(self) -> Puts:
        """Made at the first put, and with it the shortcuts for those that follow."""
        if self._puts is None:
            with _registration:
                if self._puts is None:
                    self._puts = self._make_puts()
                    client = self._client()
                    if client is not None and self._has_shortcuts and self.is_active:
                        from raptor_s3.routing import shortcuts

                        self._uninstall = shortcuts.install(client, self)
        return self._puts

    def detach(self) -> None:
        """Take the fast path off again, also from clients that have copied the emitter since."""
        self.is_active = False
        with _registration:
            for event, handler in self._handlers():
                self._emitter.unregister(event, handler, unique_id=f"{_ID}.{event}")
            if self._uninstall is not None:
                self._uninstall()

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

    def _before_call(self, event_name: str, **event: Any) -> EventResponse | None:
        if event_name == _BEFORE_CALL and self.is_active:
            params, context = event["params"], event["context"]
            context[_CONTEXT_KEY] = call = self.puts.new_call()
            return self.puts.put(call, params, context, getattr(event.get("request_signer"), "_event_emitter", None))
        if event_name in _MULTIPART and self.is_active and self.puts.is_strict:
            return self.puts.refuse_multipart(event["params"]["url"])
        return None

    def _settle(self, context: dict[str, Any], parsed: dict[str, Any], http_response: Any, **_: Any) -> None:
        call = context.get(_CONTEXT_KEY)
        if call is not None:
            self.puts.settle(call, http_response, parsed, self._client)

    def _after_call(self, event_name: str, context: dict[str, Any], parsed: dict[str, Any], http_response: Any, **_: Any) -> None:
        call = context.pop(_CONTEXT_KEY, None) if event_name.endswith(_PUT) else None
        if call is not None:
            self.puts.finish(call, getattr(http_response, "status_code", 0), parsed)

    def _after_call_error(self, event_name: str, context: dict[str, Any], exception: BaseException, **_: Any) -> None:
        call = context.pop(_CONTEXT_KEY, None) if event_name.endswith(_PUT) else None
        if call is not None:
            self.puts.fail(call, exception)


def attach(
    target: Any,
    config: RaptorConfig | Callable[[], RaptorConfig],
    *,
    source: str = "boto3",
    has_shortcuts: bool = False,
    make_fast_path: Callable[[RaptorConfig], FastPath] | None = None,
    make_journal: Callable[[RaptorConfig], Journal | None] | None = None,
    on_https_error: Callable[[PutRecord], None] | None = None,
) -> Attachment:
    """Put the fast path on an S3 client, or on the event emitter of a session for the clients it will make.

    `config` may be a function, asked at the first put. Attaching again replaces what was attached before. `source`
    names the face in the journal. `has_shortcuts` is for a client that nobody but its own program looks into (`shortcuts`).
    `on_https_error` hears of puts that HTTPS could not do after the fast path had failed, or for want of credentials. The
    other two stand in for the real ones in tests.
    """
    last_resort.install()

    def make_puts() -> Puts:
        from raptor_s3.routing.puts import Puts

        return Puts(config, source, make_fast_path, make_journal, on_https_error)

    attachment = Attachment(target, make_puts, has_shortcuts=has_shortcuts)
    attachment._register()
    return attachment


_registration = threading.RLock()


@in_forked_child
def _after_fork() -> None:
    global _registration
    _registration = threading.RLock()
