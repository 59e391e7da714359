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
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raptor_s3.cli.options import EXIT_FAILED, EXIT_OK, JSON, PROFILE, Option, Verb, positive_int
from raptor_s3.cli.profile import load_profile
from raptor_s3.cli.status_text import Status, has_failed, lines

if TYPE_CHECKING:
    import argparse

    from raptor_s3.cli.output import Output
    from raptor_s3.routing.config import RaptorConfig

JOURNAL_DEPTH = 1000


def run(args: argparse.Namespace, output: Output) -> int:
    config, profile = load_profile(args.profile)
    status = gather(config, profile, last=args.last, now=time.time())
    if output.is_json:
        output.result({**asdict(status), "puts": [put.as_dict() for put in status.puts]})
    elif output.is_terminal:
        from raptor_s3.cli.status_panel import draw

        draw(status, output.rich(), now=time.time())
    else:
        output.result({}, "\n".join(lines(status, now=time.time())))
    return EXIT_FAILED if status.breaker_open_s else EXIT_OK


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
    loss = _number(path, "loss")
    datagrams, lost = sum(put.datagrams for put in puts), sum(put.lost for put in puts)
    return Status(
        profile=profile,
        runtime_dir=None if directory is None else str(directory),
        endpoint=config.endpoint or "",
        transport=config.transport,
        buckets=config.buckets,
        handshake_age_s=age_s,
        handshake_valid_s=valid_s,
        rtt_s=_number(path, "srtt_s"),
        loss=None if loss is None or _is_assumed(loss, datagrams, lost) else loss,
        datagrams=datagrams,
        rate_mbps=None if rate is None else rate * 8 / 1e6,
        breaker_failures=breaker.failures,
        breaker_open_s=breaker.open_until - now if breaker.is_open(now) else 0.0,
        breaker_is_probing=breaker.is_open(now) and breaker.is_probing,
        breaker_reason=breaker.cause,
        breaker_failed_at=breaker.failed_at,
        routes=dict(Counter(put.route for put in puts if put.route)),
        failed=sum(map(has_failed, puts)),
        https_reasons=dict(Counter(_kind(put.reason) for put in puts if put.route == "https").most_common()),
        puts=puts[-last:],
    )


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


def _is_assumed(loss: float, datagrams: int, lost: int) -> bool:
    """Whether the estimate still is little more than what it began with (raptor_s3.transfer.loss)."""
    from raptor_s3.transfer.loss import PRIOR_LOSS, PRIOR_WEIGHT

    return not lost and datagrams < PRIOR_WEIGHT and PRIOR_LOSS / 2 <= loss <= PRIOR_LOSS


def _number(record: Any, name: str) -> float | None:
    value = record.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _kind(reason: str) -> str:
    """Reasons without their numbers and keys, so that they can be counted.

    >>> _kind("body 2.1 MB > threshold 256 KB")
    'body ... > threshold ...'
    >>> _kind("refused: AccessDenied (403): gateway: peer a may not write s3://b/c/d.jpg")
    'refused: AccessDenied (...): gateway: peer a may not write s3://b/...'
    """
    import re

    return re.sub(r"\b\d[\d.,]*( (?:B|KB|MB|GB|s|ms)\b)?", "...", re.sub(r"(s3://[^/\s]+/)\S+", r"\1...", reason))


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
