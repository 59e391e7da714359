# ruff: noqa: N803  (boto3's argument names)
"""The same puts for a fifth of the CPU: past botocore's pipeline where nobody would notice (four fifths of a put are botocore).

    client._make_api_call    a plain PutObject to a bucket that botocore has resolved before goes to the fast path at once
    client.upload_file, client.upload_fileobj    small bodies skip s3transfer's threads

All three are instance attributes in front of the class's own methods, from the client's first put on. A call that is
unusual in any way (a parameter beyond plain text, a listener on any of its events, an instrumented or mocked botocore,
a history recorder) takes the ordinary way, where `hooks` decides; so does everything HTTPS is to carry. What a call leads to
is the same on both ways.

botocore's private parts are used behind `is_supported`; a botocore that has been rebuilt gets the plain hook.

Invariant: a shortcut changes how long a call takes, never what it does.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol

from raptor_s3.routing.body import Body
from raptor_s3.routing.fast_path import Carried, Declined
from raptor_s3.routing.listeners import is_quiet
from raptor_s3.routing.parameters import HEADERS, Unsupported, Verdict, check_fields
from raptor_s3.routing.request import PutRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.routing.puts import Call, Puts

# Parameters whose serialized header is the argument itself.
_PLAIN: Final = frozenset(
    parameter.name
    for parameter in HEADERS.values()
    if parameter.verdict is Verdict.CARRIED and parameter.name not in ("ChecksumAlgorithm", "ContentLength", "Expires")
)
# Of s3transfer's ALLOWED_UPLOAD_ARGS; any other leaves an upload to boto3.
_UPLOAD_ARGUMENTS: Final = frozenset(
    {
        "CacheControl",
        "ContentDisposition",
        "ContentEncoding",
        "ContentLanguage",
        "ContentType",
        "Metadata",
        "ServerSideEncryption",
        "StorageClass",
        "WebsiteRedirectLocation",
    }
)
_MULTIPART_THRESHOLD: Final = 8 << 20  # boto3's default
_UPLOADS: Final = ("upload_file", "upload_fileobj")


class Attached(Protocol):
    """What `hooks` has attached to the client, as far as it is used here."""

    @property
    def is_active(self) -> bool: ...

    @property
    def puts(self) -> Puts: ...


def is_supported(client: Any) -> bool:
    """Whether this botocore is built as the shortcuts expect."""
    call = getattr(type(client), "_make_api_call", None)
    tree = getattr(getattr(client.meta, "events", None), "_emitter", None)
    return (
        str(getattr(call, "__module__", "")).endswith("botocore.client")
        and _history_recorder(call) is not None
        and hasattr(tree, "_lookup_cache")
        and hasattr(getattr(tree, "_handlers", None), "prefix_search")
        and hasattr(type(client), "exceptions")
        and not _is_lambda()
    )


def install(client: Any, attachment: Attached) -> Callable[[], None]:
    """Put the shortcuts on `client`; call the result to take them off. Does nothing where they are not supported."""
    if not is_supported(client) or any(name in vars(client) for name in ("_make_api_call", *_UPLOADS)):
        return lambda: None
    shortcut = _Shortcut(client, attachment)
    vars(client)["_make_api_call"] = shortcut.make_api_call
    for name in _UPLOADS:
        method = getattr(type(client), name, None)
        if getattr(method, "__module__", "") == "boto3.s3.inject":
            vars(client)[name] = getattr(shortcut, name)
    remembered = weakref.ref(shortcut)  # lives as long as its client

    def uninstall() -> None:
        shortcut = remembered()
        if shortcut is not None:
            shortcut.remove()

    return uninstall


class _Shortcut:
    """Bound methods of this stand in the client's own attributes."""

    def __init__(self, client: Any, attachment: Attached) -> None:
        self._client = client
        self._class: Any = type(client)
        self._genuine = self._class._make_api_call
        self._history = _history_recorder(self._genuine)
        self._events = client.meta.events
        self._attachment = attachment
        self._puts = attachment.puts

    def remove(self) -> None:
        attributes = vars(self._client)
        for name in ("_make_api_call", *_UPLOADS):
            if getattr(attributes.get(name), "__self__", None) is self:  # not what somebody has put there since
                del attributes[name]

    def make_api_call(self, operation_name: str, api_params: dict[str, Any]) -> Any:
        """In place of BaseClient._make_api_call."""
        if operation_name == "PutObject" and self._is_unobserved():
            plain = self._plain_request(api_params)
            if plain is not None:
                return self._put(*plain, api_params)
        if self._class._make_api_call is self._genuine:
            return self._genuine(self._client, operation_name, api_params)
        return self._ordinary("_make_api_call")(operation_name, api_params)

    def upload_file(
        self, Filename: Any, Bucket: Any, Key: Any, ExtraArgs: Any = None, Callback: Any = None, Config: Any = None
    ) -> Any:
        """In place of boto3's, which wraps a ClientError in S3UploadFailedError."""
        data = self._read_small(Filename, Config) if self._takes(Bucket, ExtraArgs, Config) else None
        if data is None:
            return self._ordinary("upload_file")(Filename, Bucket, Key, ExtraArgs, Callback, Config)
        try:
            self._client.put_object(Bucket=Bucket, Key=Key, Body=data, **(ExtraArgs or {}))
        except self._client.exceptions.ClientError as error:
            boto3_exceptions: Any = sys.modules["boto3.exceptions"]
            message = f"Failed to upload {os.fspath(Filename)} to {Bucket}/{Key}: {error}"
            raise boto3_exceptions.S3UploadFailedError(message) from error
        if Callback is not None and data:
            Callback(len(data))
        return None

    def upload_fileobj(
        self, Fileobj: Any, Bucket: Any, Key: Any, ExtraArgs: Any = None, Callback: Any = None, Config: Any = None
    ) -> Any:
        """In place of boto3's, which leaves `Fileobj` closed."""
        size_bytes = _size_of(Fileobj) if self._takes(Bucket, ExtraArgs, Config) else None
        if size_bytes is None or not self._is_small(size_bytes, Config):
            return self._ordinary("upload_fileobj")(Fileobj, Bucket, Key, ExtraArgs, Callback, Config)
        with contextlib.closing(Fileobj):
            self._client.put_object(Bucket=Bucket, Key=Key, Body=Fileobj, **(ExtraArgs or {}))
        if Callback is not None and size_bytes:
            Callback(size_bytes)
        return None

    def _read_small(self, filename: Any, config: Any) -> bytes | None:
        """The content of a file that is small enough; boto3 says what is wrong with others."""
        if not isinstance(filename, str | os.PathLike):
            return None
        name = os.fspath(filename)
        try:
            status = os.stat(name)  # before it is opened: a pipe may be read once only
            if not isinstance(name, str) or not stat.S_ISREG(status.st_mode) or not self._is_small(status.st_size, config):
                return None
            with open(name, "rb", buffering=0) as file:
                data = file.read(status.st_size + 1)
        except (OSError, ValueError):
            return None
        return data if len(data) == status.st_size else None

    def _ordinary(self, name: str) -> Any:
        """The class's method, bound as Python would if nothing stood in front of it; it may have been replaced since."""
        for base in self._class.__mro__:
            if name in vars(base):
                method = vars(base)[name]
                return method.__get__(self._client, self._class) if hasattr(type(method), "__get__") else method
        raise AttributeError(name)

    def _takes(self, bucket: Any, extra_args: Any, config: Any) -> bool:
        """Whether an upload to there, but for its size, may skip s3transfer."""
        puts = self._puts
        destination = puts.destinations.get(bucket) if type(bucket) is str else None
        return (
            self._attachment.is_active
            and destination is not None
            and not puts.fast_path.bucket_reason(bucket, destination.base_url)
            and (extra_args is None or (type(extra_args) is dict and _UPLOAD_ARGUMENTS.issuperset(extra_args)))
            and (
                config is None or (config.max_bandwidth is None and getattr(config, "preferred_transfer_client", "auto") != "crt")
            )
        )

    def _is_small(self, size_bytes: int, config: Any) -> bool:
        multipart = _MULTIPART_THRESHOLD if config is None else config.multipart_threshold
        return size_bytes < multipart and size_bytes <= self._puts.fast_path.body_limit()

    def _is_unobserved(self) -> bool:
        """Nobody listens, records, instruments or mocks: the ordinary way would lead to the same, unseen."""
        return (
            self._attachment.is_active
            and self._class._make_api_call is self._genuine
            and not self._history._enabled
            and is_quiet(self._events)
        )

    def _plain_request(self, params: dict[str, Any]) -> tuple[PutRequest, dict[str, Any]] | None:
        """The request and its put header's fields, if its parameters mean what they look like; None: ask botocore."""
        bucket, key = params.get("Bucket"), params.get("Key")
        if type(bucket) is not str or type(key) is not str or not key or not (key.isascii() or _is_encodable(key)):
            return None
        destination = self._puts.destinations.get(bucket)
        if destination is None:
            return None
        fields: dict[str, Any] = {"Bucket": bucket, "Key": key}
        body: Any = b""
        for name, value in params.items():
            if name in ("Bucket", "Key"):
                continue
            if name == "Body":
                body = value.encode() if type(value) is str and _is_encodable(value) else value
            elif name in _PLAIN:
                if type(value) is not str or not value or not value.isascii() or not value.isprintable():
                    return None
                fields[name] = value
            elif name == "Metadata":
                if type(value) is not dict or not all(map(_is_plain_metadata, value.items())):
                    return None
                fields["Metadata"] = value
            else:
                return None
        if not (type(body) is bytes or isinstance(body, bytes | bytearray) or hasattr(body, "read")):
            return None
        if len(fields) > 2:
            try:
                check_fields(fields, self._puts.config.backend_allows)
            except Unsupported:
                return None
        base_url, auth_type, signing_name = destination
        return PutRequest(bucket, key, body, base_url, auth_type, signing_name), fields

    def _put(self, request: PutRequest, fields: dict[str, Any], params: dict[str, Any]) -> Any:
        puts = self._puts
        fast_path = puts.fast_path
        if fast_path.bucket_reason(request.bucket, request.base_url):
            return self._ordinary("_make_api_call")("PutObject", params)
        call = puts.new_call()
        record = call.record
        record.bucket, record.key = request.bucket, request.key
        result = fast_path.carry(request, fields, record)
        if type(result) is Carried:
            return puts.carried(call, result)
        answer = puts.answer(result, record, request.base_url)
        if isinstance(answer, Declined):
            return self._over_https(params, answer, call)
        parsed = answer.parsed
        puts.finish(call, answer.http.status_code, parsed)
        if answer.http.status_code >= 300:
            raise self._client.exceptions.from_code(parsed["Error"]["Code"])(parsed, "PutObject")
        return parsed

    def _over_https(self, params: dict[str, Any], declined: Declined, call: Call) -> Any:
        """botocore's whole way, whose hook is told what has been heard here."""
        told = self._puts.declined
        thread = threading.get_ident()
        told[thread] = declined, call
        if "Body" in params:
            params = {**params, "Body": declined.body}
        try:
            return self._ordinary("_make_api_call")("PutObject", params)
        finally:
            told.pop(thread, None)


def _history_recorder(call: Any) -> Any:
    """botocore's own, from where its client module has it; None if it is not there."""
    function = getattr(call, "__wrapped__", call)
    recorder = getattr(function, "__globals__", {}).get("history_recorder")
    return recorder if hasattr(recorder, "_enabled") else None


def _is_lambda() -> bool:
    # botocore adds a header there that stops recursion of functions, which the fast path doesn't carry.
    return "AWS_LAMBDA_FUNCTION_NAME" in os.environ


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain_metadata(item: tuple[Any, Any]) -> bool:
    return all(type(text) is str and text and text.isascii() and text.isprintable() for text in item) and ":" not in item[0]


def _size_of(file: Any) -> int | None:
    """Octets from the file's position to its end; None where that can't be told, or where boto3 should look at it first."""
    if not (hasattr(file, "read") and hasattr(file, "close")):
        return None
    try:
        return Body(file).size_bytes
    except (Unsupported, OSError, ValueError):
        return None
