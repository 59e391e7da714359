"""`raptor ping`: is the endpoint there, how far away, and how much does the way lose?

A ping asks the receiver about a transfer that does not exist; nothing is written, and no credentials are needed. What it finds
counts for the circuit breaker: after an answer, boto3 and the AWS CLI need not wait any longer until they try again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from raptor_s3.cli.options import EXIT_FAILED, EXIT_OK, JSON, PROFILE, Option, Verb, positive_int
from raptor_s3.cli.output import count, percent, seconds
from raptor_s3.cli.profile import load_profile
from raptor_s3.errors import ConfirmationTimeout, HandshakeTimeout
from raptor_s3.routing.parsers import parse_duration, parse_pause

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from raptor_s3.cli.output import Output
    from raptor_s3.net.engine import Engine
    from raptor_s3.routing.breaker import Breaker
    from raptor_s3.routing.config import RaptorConfig


@dataclass(frozen=True, slots=True)
class Reply:
    """One ping. `rtt_s` is None when no answer came."""

    sequence: int
    rtt_s: float | None
    handshake: bool = False


@dataclass(slots=True)
class Summary:
    sent: int = 0
    rtts_s: list[float] = field(default_factory=list)

    def add(self, reply: Reply) -> None:
        self.sent += 1
        if reply.rtt_s is not None:
            self.rtts_s.append(reply.rtt_s)

    @property
    def received(self) -> int:
        return len(self.rtts_s)

    @property
    def loss(self) -> float:
        return 1 - self.received / self.sent if self.sent else 0.0

    @property
    def median_s(self) -> float:
        return median(self.rtts_s)


def run(args: argparse.Namespace, output: Output) -> int:
    from raptor_s3.routing.endpoint import breaker_for

    config, _ = load_profile(args.profile)
    output.note(f"PING {config.endpoint}")
    summary = Summary()
    breaker, started_at = breaker_for(config), time.time()
    try:
        for reply in pings(config, number=args.count, interval_s=args.interval, timeout_s=args.timeout):
            summary.add(reply)
            remark = ", after a handshake" if reply.handshake else ""
            answer = "no answer" if reply.rtt_s is None else f"round trip {seconds(reply.rtt_s)}{remark}"
            output.result(
                {"sequence": reply.sequence, "rtt_s": reply.rtt_s, "handshake": reply.handshake}, f"{reply.sequence}: {answer}"
            )
    except KeyboardInterrupt:
        pass
    except HandshakeTimeout as error:
        note_silence(breaker, f"no handshake: {error}", started_at)
        raise
    if summary.received:
        breaker.succeeded()
    elif summary.sent:
        note_silence(breaker, f"no answer to {count(summary.sent, 'ping')}", started_at)
    rtts = sorted(summary.rtts_s)
    line = f"{summary.received} of {summary.sent} answered, {percent(summary.loss)} lost"
    values = {"sent": summary.sent, "received": summary.received, "loss": summary.loss}
    if rtts:
        values |= {"rtt_min_s": rtts[0], "rtt_median_s": summary.median_s, "rtt_max_s": rtts[-1]}
        line += f"; round trip min {seconds(rtts[0])}, median {seconds(summary.median_s)}, max {seconds(rtts[-1])}"
    output.result({"summary": values}, line)
    return EXIT_OK if summary.received else EXIT_FAILED


def note_silence(breaker: Breaker, reason: str, started_at: float) -> None:
    """Open the breaker. One that is open already is not kept open for longer by somebody who is looking for the fault."""
    if not breaker.is_open():
        breaker.failed(reason, started_at)


def pings(config: RaptorConfig, *, number: int, interval_s: float, timeout_s: float) -> Iterator[Reply]:
    """Ping the endpoint `number` times, `interval_s` between starts. Raises HandshakeTimeout when it can't be reached at all."""
    from raptor_s3.net.engine import Engine

    engine = Engine.for_endpoint(config.endpoint_settings())
    for sequence in range(1, number + 1):
        began = time.monotonic()
        yield _ping(engine, sequence, timeout_s)
        rest_s = began + interval_s - time.monotonic()
        if sequence < number and rest_s > 0:
            time.sleep(rest_s)


def _ping(engine: Engine, sequence: int, timeout_s: float) -> Reply:
    try:
        outcome = engine.ping(timeout_s=timeout_s)
    except ConfirmationTimeout:
        return Reply(sequence, None)
    return Reply(sequence, outcome.stats.rtt_s, outcome.stats.handshake)


VERB = Verb(
    name="ping",
    summary="measure round trips and loss",
    opening=(
        "Shakes hands with the endpoint if need be and measures round trips: proof that UDP gets through, that both keys "
        "are right, and how far away the gateway is. Writes nothing. Exit code: 0, or 1 when nothing was answered."
    ),
    options=(
        Option("count", "How many (default: 5).", "N", 5, parse=positive_int),
        Option("interval", "Time from one to the next, in seconds or as 50ms (default: 0.2).", "TIME", 0.2, parse=parse_pause),
        Option("timeout", "How long to wait for each answer, such as 3s (the default).", "TIME", 3.0, parse=parse_duration),
        PROFILE,
        JSON,
    ),
    run=run,
    examples=(("ping", "five round trips"), ("ping --count 100 --interval 0.05", "a closer look at loss")),
)
