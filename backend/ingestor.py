"""Lambda: datagrams from the UDP gateway, straight from it or through the ingestion queue (docs/wire.md).

    {"Messages": [...]}   answered with {"Replies": [...]}
    {"Records": [...]}    answered with {"batchItemFailures": [...]}; replies go through the topic
    anything else         logged, counted, dropped

Invariant: whatever the event is, the function returns; only what may succeed later is asked for again.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from backend import replies
from backend.arrivals import read_event
from backend.runtime import THREADS, count, lease_until, logger, metrics, runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backend.arrivals import Arrivals

_processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event: Any, context: Any) -> dict[str, Any]:
    arrived = read_event(event)
    for name, number in arrived.refused.items():
        count(name, number)
        logger.warning("dropped", extra={"reason": name, "number": number})
    answers: list[replies.Answer] = []
    failures: dict[str, Exception] = {}
    count("Datagrams", sum(len(esis) for arrivals in arrived.arrivals for esis in arrivals.symbols.values()))
    ingest = functools.partial(_ingest, lease=lease_until(context))
    for arrivals, outcome in zip(arrived.arrivals, _in_parallel(ingest, arrived.arrivals), strict=True):
        if isinstance(outcome, Exception):
            failures.update(dict.fromkeys(arrivals.record_ids, outcome))
        else:
            answers += outcome
    for answer in answers:
        count(f"States{answer.state.type.name.title().replace('_', '')}")
    if not arrived.is_queue:
        return replies.inline(answers)
    runtime().replies.publish(answers)
    return dict(_answer_queue(event, failures, context))


def _ingest(arrivals: Arrivals, lease: float) -> list[replies.Answer] | Exception:
    """The answers, or why this transfer is left for another delivery."""
    try:
        return runtime().ingestion.ingest(arrivals, lease)
    except Exception as error:
        logger.exception("transfer is left for another delivery", extra={"object_id": arrivals.key.object_id})
        count("TransfersDeferred")
        return error


def _in_parallel(
    work: Callable[[Arrivals], list[replies.Answer] | Exception], items: list[Arrivals]
) -> Iterable[list[replies.Answer] | Exception]:
    """Transfers wait for S3 and DynamoDB, not for each other: a batch may hold hundreds."""
    if len(items) < 2:
        return map(work, items)
    with ThreadPoolExecutor(min(THREADS, len(items))) as pool:
        return list(pool.map(work, items))


def _answer_queue(event: dict[str, Any], failures: dict[str, Exception], context: Any) -> Any:
    """Transfers span records, so the work is done by transfer first; here each record only learns how it went."""
    records = [record for record in event["Records"] if isinstance(record, dict) and isinstance(record.get("messageId"), str)]
    if not records:
        return {"batchItemFailures": []}

    def outcome(record: dict[str, Any]) -> None:
        if error := failures.get(record["messageId"]):
            raise error

    return process_partial_response({"Records": records}, outcome, _processor, context)
