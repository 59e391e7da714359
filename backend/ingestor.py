"""Lambda: datagrams from the UDP gateway, straight from it or through the ingestion queue (DESIGN 3.4).

    {"Messages": [...]}   answered with {"Replies": [...]}
    {"Records": [...]}    answered with {"batchItemFailures": [...]}; replies go through the topic
    anything else         logged, counted, dropped

Invariant: whatever the event is, the function returns; only what may succeed later is asked for again.
"""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from backend import replies
from backend.arrivals import read_event
from backend.runtime import count, lease_until, logger, metrics, runtime

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
    lease = lease_until(context)
    count("Datagrams", sum(len(esis) for arrivals in arrived.arrivals for esis in arrivals.symbols.values()))
    for arrivals in arrived.arrivals:
        try:
            answers += runtime().ingestion.ingest(arrivals, lease)
        except Exception as error:
            logger.exception("transfer is left for another delivery", extra={"object_id": arrivals.key.object_id})
            count("TransfersDeferred")
            failures.update(dict.fromkeys(arrivals.record_ids, error))
    for answer in answers:
        count(f"States{answer.state.type.name.title().replace('_', '')}")
    if not arrived.is_queue:
        return replies.inline(answers)
    runtime().replies.publish(answers)
    return dict(_answer_queue(event, failures, context))


def _answer_queue(event: dict[str, Any], failures: dict[str, Exception], context: Any) -> Any:
    """Transfers span records, so the work is done by transfer first; here each record only learns how it went."""
    records = [record for record in event["Records"] if isinstance(record, dict) and "messageId" in record]
    if not records:
        return {"batchItemFailures": []}

    def outcome(record: dict[str, Any]) -> None:
        if error := failures.get(record["messageId"]):
            raise error

    return process_partial_response({"Records": records}, outcome, _processor, context)
