"""What `raptor status` tells, as values and as words: one `Status`, and the lines that the panel and the plain text share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raptor_s3.cli.output import age, count, percent, seconds, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptor_s3.routing.journal import PutRecord

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Status:
    """All times in seconds; None where nothing is known yet."""

    profile: str
    endpoint: str
    buckets: tuple[str, ...]
    handshake_age_s: float | None
    handshake_valid_s: float | None
    rtt_s: float | None
    loss: float | None
    rate_mbps: float | None
    breaker_failures: int
    breaker_open_s: float  # 0: closed
    breaker_reason: str
    routes: dict[str, int]
    https_reasons: dict[str, int]
    puts: list[PutRecord]  # the latest last


def lines(status: Status, *, now: float) -> list[str]:
    """The status as plain text."""
    text = [f"{label + ':':<12} {value}" for label, value in facts(status)]
    if not status.puts:
        return [*text, "", "no puts yet"]
    text += ["", f"last puts ({mix(status)}):"]
    for put in status.puts:
        text.append(f"  {' | '.join(row(put, now))}")
    return text


def facts(status: Status) -> list[tuple[str, str]]:
    """Label and value of everything but the puts."""
    if status.handshake_age_s is None:
        session = "none: the next put shakes hands first"
    else:
        session = f"handshake {age(status.handshake_age_s)} ago, good for {age(status.handshake_valid_s or 0)} more"
    breaker = "closed: puts take the fast path"
    if status.breaker_open_s:
        breaker = f"open for {age(status.breaker_open_s)} more: {status.breaker_reason}"
    elif status.breaker_failures:
        breaker = f"half open: the next put tries again after: {status.breaker_reason}"
    return [
        ("endpoint", f"{status.endpoint} (profile {status.profile})"),
        ("buckets", ", ".join(status.buckets) or "none: set raptor.buckets, or boto3 and the AWS CLI stay with HTTPS"),
        ("session", session),
        ("round trip", "not measured yet" if status.rtt_s is None else seconds(status.rtt_s)),
        ("loss", "not measured yet" if status.loss is None else percent(status.loss)),
        ("rate", "not measured yet" if status.rate_mbps is None else f"{status.rate_mbps:.1f} Mbit/s"),
        ("breaker", breaker),
    ]


def row(put: PutRecord, now: float) -> tuple[str, str, str, str, str, str]:
    """A put as a line of a table: when, what, size, way, time, why."""
    why = put.reason or put.error
    if put.route == "raptor" and not why:
        why = "after a handshake" if put.handshake else ""
        if put.lost:
            why = ", ".join(part for part in (why, f"{put.lost} of {count(put.datagrams, 'datagram')} lost") if part)
    if put.status >= 300 or (put.error and put.status == 0):
        why = f"{put.error or put.status}: {why}" if why != put.error else why
    shown_size = "" if put.size_bytes is None else size(put.size_bytes)
    what = f"s3://{put.bucket}/{put.key}" if put.bucket else put.key
    return f"{age(now - put.at)} ago", what, shown_size, put.route, seconds(put.elapsed_s), why


def mix(status: Status) -> str:
    return ", ".join(f"{number:,} by {route}" for route, number in sorted(status.routes.items(), reverse=True))


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
