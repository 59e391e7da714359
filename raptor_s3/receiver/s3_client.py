"""What a receiver's S3 client must not do: send after its time, run in circles, or fail a put that S3 has stored.

    guard(client)                              once
    with only_while(may_leave):                TooLate instead of sending, where `may_leave()` is false by then
        client.put_object(...)

Before a request leaves, boto3 may look for credentials, resolve a name, connect: that takes seconds at times, or minutes, and no
timeout bounds it. So there is one more question when all that has been done.

Invariant: within `only_while`, no request leaves once `may_leave` is false.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_thread = threading.local()


class TooLate(Exception):
    """Nothing has left."""


@contextlib.contextmanager
def only_while(may_leave: Callable[[], bool]) -> Iterator[None]:
    """For the calls of guarded clients in this thread. Raises TooLate."""
    _thread.may_leave = may_leave
    try:
        yield
    except Exception as error:
        if getattr(_thread, "is_too_late", False):  # botocore has wrapped it
            raise TooLate from error
        raise
    finally:
        _thread.may_leave = None
        _thread.is_too_late = False


def guard(client: Any) -> None:
    """Have this boto3 client ask before it sends, and read with indulgence."""
    events = client.meta.events
    events.register("before-send.s3", _ask)
    events.register("before-call.s3.HeadBucket", _follow_no_redirect)
    events.register("before-parse.s3.PutObject", _drop_unreadable)
    with contextlib.suppress(AttributeError):  # another botocore: asked a moment earlier, before a new connection is made
        client._endpoint.http_session._pool_classes_by_scheme.update(_connection_pools())


def _ask(**_: Any) -> None:
    may_leave = getattr(_thread, "may_leave", None)
    if may_leave is not None and not may_leave():
        _thread.is_too_late = True
        raise TooLate


def _follow_no_redirect(context: dict[str, Any], **_: Any) -> None:
    """botocore asks HeadBucket where a redirect leads, and would ask again where that one leads, without end."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _drop_unreadable(operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
    """A number in S3's answer that is none: botocore raises ValueError then, as for parameters that can't be encoded."""
    headers = response_dict["headers"]
    for member in operation_model.output_shape.members.values():
        name = member.serialization.get("name")
        if member.type_name in ("integer", "long") and name in headers:
            try:
                int(headers[name])
            except ValueError:
                del headers[name]


@functools.cache
def _connection_pools() -> dict[str, type]:
    """botocore's, with connections that ask as soon as they stand."""
    from botocore import awsrequest  # with urllib3, which `raptor gateway --help` need not load

    class Connection(awsrequest.AWSHTTPConnection):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            _ask()

    class ConnectionWithTLS(awsrequest.AWSHTTPSConnection):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            _ask()

    class Pool(awsrequest.AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = Connection

    class PoolWithTLS(awsrequest.AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = ConnectionWithTLS

    return {"http": Pool, "https": PoolWithTLS}
