"""`raptor status`: how the endpoint does, and why the last puts went where they went. Looks at files only: nothing is sent.

    settings            RaptorConfig
    handshake           the stored session
    RTT, loss, rate     the endpoint's learned record
    breaker             shared by the user's processes
    the last puts       the journal: boto3's, the AWS CLI's and this command's

Invariant: what is gathered is one plain `Status`; the panel, the lines and the JSON say the same.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from raptor_s3.cli.options import EXIT_FAILED, EXIT_OK, JSON, PROFILE, Option, Verb, positive_int
from raptor_s3.cli.output import age, count, percent, seconds, size
from raptor_s3.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from raptor_s3.cli.output import Output
    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.journal import PutRecord

JOURNAL_DEPTH = 1000
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


def run(args: argparse.Namespace, output: Output) -> int:
    config, profile = load_profile(args.profile)
    status = gather(config, profile, last=args.last, now=time.time())
    if output.is_json:
        output.result(asdict(status))
    elif output.is_terminal:
        from raptor_s3.cli.status_panel import draw

        draw(status, output.rich(), now=time.time())
    else:
        output.result({}, "\n".join(lines(status, now=time.time())))
    return EXIT_FAILED if status.breaker_open_s else EXIT_OK


def load_profile(name: str | None) -> tuple[RaptorConfig, str]:
    """The settings of a profile that has an endpoint, and its name. Raises ConfigError."""
    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.profile import read_profile

    profile = read_profile(name=name)
    config = RaptorConfig.load(profile.scoped_config, source=profile.source, services=profile.services)
    if config.endpoint is None:
        raise ConfigError("no endpoint is set: run raptor configure", source=profile.source, key="endpoint")
    return config, profile.name


def gather(config: RaptorConfig, profile: str, *, last: int, now: float) -> Status:
    """Read the runtime directory. Raises ConfigError when others can read it."""
    from raptor_s3.routing import endpoint

    directory = endpoint.directory_for(config)
    learned = endpoint.LearnedRecord(config, directory)
    path = learned.learned().get("path")
    path = path if isinstance(path, dict) else {}
    breaker = endpoint.breaker_for(config).state
    journal = endpoint.journal_for(config)
    puts = journal.read(JOURNAL_DEPTH) if journal is not None else []
    age_s, valid_s = _handshake(learned.endpoint, learned.directory)
    rate = _number(path, "rate")  # octets per second
    return Status(
        profile=profile,
        endpoint=config.endpoint or "",
        buckets=config.buckets,
        handshake_age_s=age_s,
        handshake_valid_s=valid_s,
        rtt_s=_number(path, "srtt_s"),
        loss=_number(path, "loss"),
        rate_mbps=None if rate is None else rate * 8 / 1e6,
        breaker_failures=breaker.failures,
        breaker_open_s=breaker.open_until - now if breaker.is_open(now) else 0.0,
        breaker_reason=breaker.reason,
        routes=dict(Counter(put.route for put in puts if put.route)),
        https_reasons=dict(Counter(_kind(put.reason) for put in puts if put.route == "https").most_common()),
        puts=puts[-last:],
    )


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


def _handshake(endpoint: str, directory: str | None) -> tuple[float | None, float | None]:
    from raptor_s3.net import clock
    from raptor_s3.net.session_store import SessionStore
    from raptor_s3.wireguard.constants import REJECT_AFTER_TIME

    now = clock.now()
    session = SessionStore(directory).load(endpoint, now)
    if session is None:
        return None, None
    age_s = now - session.created_at
    return age_s, max(REJECT_AFTER_TIME - age_s, 0.0)


def _number(record: Any, name: str) -> float | None:
    value = record.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _kind(reason: str) -> str:
    """Reasons without their numbers, so that they can be counted.

    >>> _kind("body 2.1 MB > threshold 256 KB")
    'body ... > threshold ...'
    """
    import re

    return re.sub(r"\d[\d.,]*( (?:B|KB|MB|GB|s|ms)\b)?", "...", reason)


VERB = Verb(
    name="status",
    summary="how the endpoint does, and where the last puts went and why",
    opening=(
        "Shows the endpoint, the age of its WireGuard session, round trip, loss and rate as measured, the circuit breaker, and "
        "the last puts of boto3, the AWS CLI and raptor itself: which way each went, and why. Sends nothing; to measure: "
        "raptor ping. Exit code: 0, or 1 while the breaker keeps puts off the fast path."
    ),
    options=(
        Option("last", "How many puts to show (default: 10).", "N", 10, parse=positive_int),
        PROFILE,
        JSON,
    ),
    run=run,
    examples=(("status", "a look"), ("status --json --last 100", "for a program")),
)
