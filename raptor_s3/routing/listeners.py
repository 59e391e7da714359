"""Who listens on a client's events: whether the fast path may pass by what HTTPS would call.

botocore's emitter is asked through its own trie and lookup cache (private, so missing ones count as somebody listening).

Invariant: a handler of anybody but botocore, boto3, s3transfer, the AWS CLI or us is never passed by.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Any, Final

_PUT: Final = ".s3.PutObject"
# What happens to an HTTPS request after before-call. Whoever listens there must get to see it.
_WATCHED: Final = tuple(
    event + _PUT
    for event in (
        "request-created",
        "choose-signer",
        "before-sign",
        "before-send",
        "response-received",
        "needs-retry",
        "before-parse",
    )
)
_HOME: Final = frozenset({"awscli", "boto3", "botocore", "raptor_s3", "s3transfer"})
# They see the HTTPS request only to add to its User-Agent.
_HARMLESS: Final = frozenset({"aws_lambda_powertools.shared.user_agent"})
_VERDICT: Final = "raptor-s3.foreign-handler"
_QUIET: Final = "raptor-s3.quiet"
_OURS: Final = "Attachment._before_call"

# botocore's own handlers before a PutObject is sent: what they do, `shortcuts` does by itself or leaves to botocore.
_KNOWN: Final = {
    "provide-client-params": frozenset[str](),
    "before-parameter-build": frozenset(
        {
            "validate_ascii_metadata",
            "sse_md5",
            "convert_body_to_file_like_object",
            "validate_bucket_name",
            "remove_bucket_from_url_paths_from_model",
            "S3RegionRedirectorv2.annotate_request_context",
            "ClientCreator._inject_s3_input_parameters",
            "generate_idempotent_uuid",
            "_handle_request_validation_mode_member",
        }
    ),
    "before-call": frozenset(
        {
            "add_expect_header",
            "S3ExpressIdentityResolver.apply_signing_cache_key",
            "add_recursion_detection_header",
            "inject_api_version_header_if_needed",
            _OURS,
        }
    ),
    # The standard retry mode counts HTTPS requests that needed no second try.
    "after-call": frozenset({"Attachment._settle", "Attachment._after_call", "RetryQuotaChecker.release_retry_quota"}),
}


def foreign_handler(emitter: Any) -> str:
    """Somebody's own handler that wants to see the HTTPS request; empty when there is none.

    The answer is kept in the emitter's own lookup cache, which botocore replaces whenever a handler comes or goes.
    """
    if moto_is_on():
        return "moto"
    tree = getattr(emitter, "_emitter", emitter)
    cache = getattr(tree, "_lookup_cache", None)
    handlers = getattr(tree, "_handlers", None)
    if cache is None or handlers is None:
        return "an event system unknown here"
    verdict: str | None = cache.get(_VERDICT)
    if verdict is None:
        verdict = cache[_VERDICT] = _watching(handlers)
    return verdict


def is_quiet(emitter: Any) -> bool:
    """Whether nobody but botocore's well-known handlers and ours would hear anything of a PutObject, from call to return."""
    tree = getattr(emitter, "_emitter", emitter)
    cache = tree._lookup_cache
    verdict: bool | None = cache.get(_QUIET)
    if verdict is None:
        handlers = tree._handlers
        strangers = [
            handler
            for event, known in _KNOWN.items()
            for handler in handlers.prefix_search(event + _PUT)
            if _foreign_name(handler) or getattr(handler, "__qualname__", "") not in known
        ]
        verdict = cache[_QUIET] = not strangers and not _watching(handlers)
    return verdict and not moto_is_on()


def client_of(emitter: Any) -> Any:
    """The S3 client whose events these are, as one of botocore's own handlers (S3RegionRedirectorv2's) knows it, or None."""
    tree = getattr(emitter, "_emitter", emitter)
    handlers = getattr(tree, "_handlers", None)
    for handler in handlers.prefix_search(f"before-parameter-build{_PUT}") if handlers is not None else ():
        client: Any = getattr(getattr(handler, "__self__", None), "_client", None)  # a weak proxy
        with contextlib.suppress(AttributeError, ReferenceError):
            if client.meta.events._emitter is tree:
                return client
    return None


def _watching(tree: Any) -> str:
    """The first of somebody's own handlers in the trie that HTTPS would call after our answer."""
    handlers = [handler for event in _WATCHED for handler in tree.prefix_search(event)]
    names = map(_foreign_name, handlers + _after_ours(list(tree.prefix_search(f"before-call{_PUT}"))))
    return next((name for name in names if name), "")


def _after_ours(handlers: list[Any]) -> list[Any]:
    """Of the handlers of before-call, those that our answer would keep from hearing of the put: registered last, after us."""
    names = [getattr(handler, "__qualname__", "") for handler in handlers]
    return handlers[names.index(_OURS) + 1 :] if _OURS in names else []


def moto_is_on() -> bool:
    """Whether moto, in this process, answers for AWS just now."""
    moto = sys.modules.get("moto.core.models")
    return moto is not None and bool(getattr(getattr(moto, "botocore_stubber", None), "enabled", False))


def _foreign_name(handler: Any) -> str:
    while isinstance(handler, functools.partial):
        handler = handler.func
    function = getattr(handler, "__func__", handler)
    module = getattr(function, "__module__", None) or type(handler).__module__
    # moto's is always there once moto is imported; `moto_is_on` tells whether it does anything.
    if module.partition(".")[0] in _HOME or module in _HARMLESS or type(handler).__module__.startswith("moto.core"):
        return ""
    return f"handler {module}.{getattr(function, '__qualname__', type(handler).__qualname__)}"
