"""What a sandbox makes once and keeps: settings, AWS clients, logger, metrics, and the parts wired together.

Clients are made without retries where a deadline matters (S3), with short ones elsewhere, and without raptor-s3's own plugin.

Invariant: importing a handler opens no connection; the first invocation does. Inside Lambda, importing it makes the clients too:
there the init phase has more CPU than an invocation.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from backend.authorize import PolicyCache
from backend.completion import Completion
from backend.delivery import Delivery
from backend.inflight import InFlight
from backend.ingestion import CompletionQueue, Ingestion
from backend.objects import Objects
from backend.replies import ReplyTopic
from backend.settings import SMALL_OBJECT_BYTES, Settings
from raptor_s3.receiver.s3_client import guard

if TYPE_CHECKING:
    from collections.abc import Callable

warnings.filterwarnings("ignore", message="No application metrics to publish")
logger = Logger(service="raptor")
metrics = Metrics(namespace="Raptor", service="raptor")

THREADS: Final = 16
"""Transfers of one event that are worked on at a time."""

_LEASE_MARGIN_S: Final = 1.0
_metrics_lock = threading.Lock()


def count(name: str, number: int = 1) -> None:
    with _metrics_lock:
        metrics.add_metric(name, MetricUnit.Count, number)


def report(message: str) -> None:
    logger.error(message)
    count("Errors")


def lease_until(context: Any) -> float:
    """When this invocation must have ended: then a claim of its own may be taken over."""
    return float(time.time() + context.get_remaining_time_in_millis() / 1000 + _LEASE_MARGIN_S)


@dataclass(frozen=True, slots=True)
class Runtime:
    ingestion: Ingestion
    completion: Completion
    replies: ReplyTopic


def assemble(
    settings: Settings,
    make_client: Callable[[str], Any],
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Runtime:
    """Wire the parts; `make_client` makes a boto3 client of the service it is given."""
    ssm = make_client("ssm")
    policy = PolicyCache(lambda: ssm.get_parameter(Name=settings.policy_parameter)["Parameter"]["Value"], clock, report).get
    objects = Objects(make_client("s3"), settings.staging_bucket, clock, sleep)
    inflight = InFlight(make_client("dynamodb"), settings.table, objects, clock, settings.max_peer_bytes, SMALL_OBJECT_BYTES)
    delivery = Delivery(
        inflight,
        objects,
        policy,
        objects_bucket=settings.objects_bucket,
        published_prefix=settings.published_prefix,
        guard=settings.guard_direct_writes,
    )
    completions = CompletionQueue(make_client("sqs"), settings.completion_queue_url)
    return Runtime(
        Ingestion(inflight, delivery, completions, policy, clock, count),
        Completion(inflight, delivery, objects, count),
        ReplyTopic(make_client("sns"), settings.reply_topic_arn, report),
    )


@functools.cache
def make_client(service: str) -> Any:
    os.environ.pop("BOTOCORE_EXPERIMENTAL__PLUGINS", None)
    import boto3
    from botocore.config import Config

    attempts = 1 if service == "s3" else 3
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=2,
        read_timeout=5 if service == "s3" else 10,  # how long an attempt that was begun in time may go on past it
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        tcp_keepalive=True,
        max_pool_connections=THREADS,
    )
    client = boto3.client(service, config=config)
    if service == "s3":
        guard(client)
    return client


@functools.cache
def runtime() -> Runtime:
    """Raises ConfigError when the environment is incomplete."""
    return assemble(Settings.from_environment(), make_client)


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    runtime()
