"""What `raptor status` tells, as values and as words: one `Status`, and the lines that the panel and the plain text share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raptor_s3.cli.output import age, count, percent, seconds, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptor_s3.routing.journal import PutRecord

BARS = "▁▂▃▄▅▆▇█"
SCOPE = "of all profiles and endpoints"
"""What the journal covers."""


@dataclass(frozen=True, slots=True)
class Status:
    """All times in seconds; None where nothing is known yet."""

    profile: str
    runtime_dir: str | None  # None: there can't be one
    endpoint: str
    transport: str
    buckets: tuple[str, ...]
    handshake_age_s: float | None
    handshake_valid_s: float | None
    rtt_s: float | None
    loss: float | None  # a share, measured
    datagrams: int  # sent by the puts in the journal, which is that of all endpoints
    rate_mbps: float | None
    breaker_failures: int
    breaker_open_s: float  # 0: closed
    breaker_is_probing: bool  # open only because a put is trying again
    breaker_reason: str
    breaker_failed_at: float | None  # unix time
    routes: dict[str, int]
    failed: int  # of the puts in `routes`
    https_reasons: dict[str, int]
    puts: list[PutRecord]  # the latest last

    @property
    def is_switched_off(self) -> bool:
        """For boto3 and the AWS CLI."""
        return self.transport == "https"


def lines(status: Status, *, now: float) -> list[str]:
    """The status as plain text."""
    text = [f"{label + ':':<12} {value}" for label, value in facts(status, now=now)]
    if not status.puts:
        return [*text, "", "no puts yet"]
    text += ["", f"last puts ({mix(status)}), {SCOPE}:"]
    for put in status.puts:
        text.append(f"  {' | '.join(row(put, now)).rstrip(' |')}")
    return text


def facts(status: Status, *, now: float) -> list[tuple[str, str]]:
    """Label and value of everything but the puts."""
    if status.runtime_dir is None:
        session = "none kept, nor anything else: no runtime directory can be made (set RAPTOR_RUNTIME_DIR)"
    elif status.handshake_age_s is None:
        session = "none: the next put shakes hands first"
    else:
        session = f"handshake {age(status.handshake_age_s)} ago, good for {age(status.handshake_valid_s or 0)} more"
    if status.loss is not None:
        loss = percent(status.loss)
    else:
        sent = f"none seen in {count(status.datagrams, 'datagram')} of the last puts"
        loss = sent if status.datagrams else "not measured yet"
    return [
        ("endpoint", f"{status.endpoint} (profile {status.profile})"),
        *(
            [("transport", "https: puts of boto3 and the AWS CLI don't take the fast path, and are not listed")]
            if status.is_switched_off
            else []
        ),
        ("buckets", ", ".join(status.buckets) or "none: set raptor.buckets, or boto3 and the AWS CLI stay with HTTPS"),
        ("session", session),
        ("round trip", "not measured yet" if status.rtt_s is None else seconds(status.rtt_s)),
        ("loss", loss),
        ("rate", "not measured yet" if status.rate_mbps is None else f"{status.rate_mbps:.1f} Mbit/s"),
        ("breaker", _breaker(status, now)),
    ]


def row(put: PutRecord, now: float) -> tuple[str, str, str, str, str, str]:
    """A put as a line of a table: when, what, size, way, time, why."""
    shown_size = "" if put.size_bytes is None else size(put.size_bytes)
    what = f"s3://{put.bucket}/{put.key}" if put.bucket else put.key
    return f"{age(now - put.at)} ago", what, shown_size, put.route, seconds(put.elapsed_s) if put.elapsed_s else "", _why(put)


def _breaker(status: Status, now: float) -> str:
    if not status.breaker_failures:
        return "closed" if status.is_switched_off else "closed: puts take the fast path"
    when = f" {age(now - status.breaker_failed_at)} ago" if status.breaker_failed_at else ""
    failed = f"Failed{when}: {status.breaker_reason}"
    if status.is_switched_off:
        return failed
    if status.breaker_is_probing:
        return f"one put is trying again, the others use HTTPS; before that: {status.breaker_reason}"
    if status.breaker_open_s:
        return f"open, HTTPS for {age(status.breaker_open_s)} more. {failed}"
    return f"the next put tries the fast path again. {failed}"


def has_failed(put: PutRecord) -> bool:
    return put.status >= 300 or bool(put.error)


def _why(put: PutRecord) -> str:
    why = put.reason
    if not (why or has_failed(put)) and put.route == "raptor":
        lost = f"{put.lost} of {count(put.datagrams, 'datagram')} lost" if put.lost else ""
        return ", ".join(part for part in ("after a handshake" if put.handshake else "", lost) if part)
    error = put.error or str(put.status)
    if has_failed(put) and error not in why:
        why = f"{error}: {why}" if why else error
    return why


def mix(status: Status) -> str:
    ways = ", ".join(f"{number:,} by {route}" for route, number in sorted(status.routes.items(), reverse=True))
    return f"{ways}; {status.failed:,} failed" if status.failed else ways


def sparkline(values: Sequence[float]) -> str:
    """
    >>> sparkline([1.0, 2.0, 8.0])
    '▁▂█'
    """
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)
