"""A PutObject request as botocore has it at before-call: plain dicts, read without importing botocore.

Invariant: what is read here is what HTTPS would send; anything that does not fit together is not understood, with a reason.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from raptor_s3.routing.listeners import foreign_handler

if TYPE_CHECKING:
    from collections.abc import Mapping


class Destination(NamedTuple):
    """What botocore has made of a bucket, the client's region and its settings."""

    base_url: str  # without the key
    auth_type: str
    signing_name: str


class PutRequest(NamedTuple):
    """A PutObject request as it is about to be sent over HTTPS."""

    bucket: str
    key: str
    body: Any
    base_url: str  # without the key
    auth_type: str
    signing_name: str
    headers: Mapping[str, Any] = MappingProxyType({})
    checksum_algorithm: str | None = None
    foreign_handler: str = ""


def read_request(params: dict[str, Any], context: dict[str, Any], emitter: Any) -> PutRequest | str:
    """The request as botocore has it at before-call, or why it can't be understood."""
    try:
        return _read_request(params, context, emitter)
    except (AttributeError, KeyError, TypeError) as error:
        return f"this botocore describes requests in another way: {type(error).__name__} {error}"


def _read_request(params: dict[str, Any], context: dict[str, Any], emitter: Any) -> PutRequest | str:
    path: str = params["url_path"]
    url: str = params["url"]
    named = context.get("input_params") or (context.get("s3_redirect") or {}).get("params") or {}
    bucket, key = named.get("Bucket"), named.get("Key")
    if not isinstance(bucket, str) or not isinstance(key, str):
        return "this botocore does not say which bucket and key are meant"
    if not url.endswith(path) or unquote(path[1:]) != key or params.get("query_string") or params["method"] != "PUT":
        return "a handler has changed the request's URL"
    signing = context.get("signing") or {}
    algorithm = (context.get("checksum") or {}).get("request_algorithm") or {}
    return PutRequest(
        bucket=bucket,
        key=key,
        base_url=url[: len(url) - len(path)],
        headers=params["headers"],
        auth_type=str(context.get("auth_type")),
        signing_name=str(signing.get("signing_name", "s3")),
        checksum_algorithm=algorithm.get("algorithm") if isinstance(algorithm, dict) else str(algorithm),
        foreign_handler=foreign_handler(emitter),
        body=params["body"],
    )
