"""Which way a put goes, and why (docs/drop-in.md): pure, from the facts of one request and the settings.

Invariant: same facts, same settings, same answer; nothing is read from the body, the network or a clock, and every
HTTPS answer has a reason that a person can act on.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from raptor_s3.routing.parsers import partition_of

if TYPE_CHECKING:
    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.request import PutRequest

MAX_BODY: Final = 64 << 20  # what `transport = raptor` may carry whatever the threshold; a put must fit in memory on both ends
MAX_KEY: Final = 1024  # octets of UTF-8
SLOW_LINK_BPS: Final = 1e6
AUTO_FLOOR: Final = 64 * 1024
AUTO_CEILING: Final = 8 << 20  # s3transfer's own multipart threshold
_TCP_SEGMENT: Final = 1460
_INITIAL_WINDOW: Final = 10 * _TCP_SEGMENT  # RFC 6928

# Compiled, and kept by re, at the first bucket rather than at import.
_AWS_HOST: Final = r"s3(?:[.-](?:dualstack\.)?([a-z]{2,}(?:-[a-z]+)+-\d+))?\.amazonaws\.com(?:\.cn)?"
_SPECIAL_BUCKETS: Final = ("-s3alias", "--ol-s3", "--x-s3", "--table-s3", ".mrap")


class Route(StrEnum):
    RAPTOR = "raptor"
    HTTPS = "https"


class Decision(NamedTuple):
    route: Route
    reason: str = ""


class LinkEstimate(NamedTuple):
    """What earlier puts taught about the way to an endpoint."""

    rtt_s: float
    loss: float  # fraction of datagrams
    rate_bps: float  # delivered bits per second


FAST: Final = Decision(Route.RAPTOR)


def decide(request: PutRequest, size_bytes: int | None, config: RaptorConfig, limit: int) -> Decision:
    """The route of one put to a bucket that is for the fast path (`bucket_reason`).

    `size_bytes` of the body from its current position on; None, where only reading would tell, passes: reading must stop at
    `limit`, which is `body_limit`.
    """
    reason = _request_reason(request, config)
    if not reason and size_bytes is not None and size_bytes > limit:
        reason = _size_reason(size_bytes, limit)
    return Decision(Route.HTTPS, reason) if reason else FAST


def endpoint_reason(config: RaptorConfig) -> str:
    if config.transport == "https":
        return "transport = https"
    return "" if config.endpoint else "no raptor endpoint is set"


def bucket_reason(bucket: str, base_url: str, config: RaptorConfig) -> str:
    """Why this bucket at this URL is not for the fast path; empty when it is. Callers may cache it."""
    if not any(fnmatchcase(bucket, pattern) for pattern in config.buckets):
        return f"bucket {bucket} is not listed in raptor.buckets"
    if bucket.endswith(_SPECIAL_BUCKETS) or ":" in bucket:
        return f"{bucket} is not a general purpose bucket"
    url = urlsplit(base_url)
    host = url.netloc.lower()
    if config.s3_endpoint is not None:
        own = urlsplit(config.s3_endpoint)
        if url.scheme == own.scheme and (
            (host == own.netloc.lower() and url.path == f"{own.path}/{bucket}")
            or (host == f"{bucket}.{own.netloc.lower()}" and url.path == own.path)
        ):
            return ""
        return f"the client's endpoint {host} is not {config.s3_endpoint}"
    virtual_host = host.removeprefix(f"{bucket}.") if not url.path else ""
    path_style = host if url.path == f"/{bucket}" else ""
    for name in (virtual_host, path_style):
        if name and (found := re.fullmatch(_AWS_HOST, name)):
            partition = partition_of(found[1] or "")
            return "" if partition == config.partition else f"{host} is in {partition}, the profile in {config.partition}"
    return f"{host} is not a plain S3 endpoint"


def body_limit(config: RaptorConfig, link: LinkEstimate | None = None) -> int:
    """Octets of body above which a put goes over HTTPS."""
    if config.transport == "raptor":
        return MAX_BODY
    if config.threshold_bytes is None:
        return automatic_threshold(link)
    return min(config.threshold_bytes, MAX_BODY)


def patience_s(config: RaptorConfig, size_bytes: int) -> float:
    """How long a put of this size may take. Where HTTPS would take over, `timeout`; where nothing would, also the time that the
    body needs on a slow link."""
    if config.transport != "raptor":
        return config.timeout_s
    return config.timeout_s + size_bytes * 8 / SLOW_LINK_BPS


def automatic_threshold(link: LinkEstimate | None) -> int:
    """The largest size, in powers of two, that the fast path is expected to deliver sooner than a warm HTTPS connection.

    TCP is taken to start with ten segments (RFC 6928) and double per round trip up to the link's rate, or to what loss
    leaves of it (Mathis et al. 1997: rate = 1.22 MSS / (RTT sqrt(p))); the fast path sends at the learned rate and pays
    for repair.
    """
    if link is None or link.rtt_s <= 0 or link.rate_bps <= 0:
        return 256 * 1024
    loss = min(max(link.loss, 0.0), 0.9)
    tcp_bps = link.rate_bps
    if loss > 0:
        tcp_bps = min(tcp_bps, 1.22 * _TCP_SEGMENT * 8 / (link.rtt_s * math.sqrt(loss)))
    best, size = AUTO_FLOOR, AUTO_FLOOR
    while size <= AUTO_CEILING:
        window, sent, rounds = _INITIAL_WINDOW, 0, 0
        while sent < size and window * 8 / link.rtt_s < tcp_bps:
            sent, window, rounds = sent + window, window * 2, rounds + 1
        tcp_s = (rounds + 1) * link.rtt_s + max(size - sent, 0) * 8 / tcp_bps
        fast_s = link.rtt_s + size * 8 / (link.rate_bps * (1 - loss))
        if fast_s < tcp_s:
            best = size
        size *= 2
    return best


def _request_reason(request: PutRequest, config: RaptorConfig) -> str:
    # Unsigned: the AWS CLI makes such clients for `--transport raptor`, which needs no credentials and never gets to HTTPS.
    is_unsigned = request.auth_type == "none" and config.transport == "raptor"
    if not is_unsigned and (request.auth_type != "v4" or request.signing_name != "s3"):
        return f"signing is {request.auth_type} for {request.signing_name}, not v4 for s3"
    if len(request.key.encode("utf-8", "surrogatepass")) > MAX_KEY:
        return f"the key is longer than {MAX_KEY} octets"
    if request.foreign_handler:
        return f"{request.foreign_handler} wants to see the HTTP request"
    return ""


def _size_reason(size_bytes: int, limit: int) -> str:
    body, threshold = show_size(size_bytes), show_size(limit)
    if body == threshold:  # a few octets too many
        body, threshold = f"{size_bytes:,} B", f"{limit:,} B"
    return f"body {body} > threshold {threshold}"


def show_size(size_bytes: int) -> str:
    """`2.1 MB`, as the AWS CLI counts (powers of 1024)."""
    for unit, scale in (("MB", 1 << 20), ("KB", 1 << 10)):
        if size_bytes >= scale:
            number = f"{size_bytes / scale:.1f}".removesuffix(".0")
            return f"{number} {unit}"
    return f"{size_bytes} B"
