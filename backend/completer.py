"""Lambda: blocks and objects with enough symbols, from the completion queue.

Invariant: within a group, a message that failed keeps the later ones of that group waiting; what is no message is dropped
alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import SqsFifoPartialProcessor, process_partial_response

from backend.completion import parse_completion
from backend.runtime import count, lease_until, logger, metrics, runtime
from raptor_s3.errors import MalformedPacket

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse

_processor = SqsFifoPartialProcessor(skip_group_on_error=True)


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event: Any, context: Any) -> PartialItemFailureResponse | dict[str, Any]:
    received = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(received, list):
        received = [None]
    records = [record for record in received if _is_record(record)]
    if refused := len(received) - len(records):
        logger.warning("dropped %d events that are none of the completion queue's", refused)
        count("EventsRefused", refused)
    count("Completions", len(records))
    if not records:
        return {"batchItemFailures": []}
    lease = lease_until(context)

    def complete(record: dict[str, Any]) -> None:
        try:
            message = parse_completion(record.get("body"))
        except MalformedPacket as error:
            logger.warning("dropped a message: %s", error)
            count("MessagesRefused")
            return
        answers = runtime().completion.complete(message, lease)
        for answer in answers:
            count(f"States{answer.state.type.name.title().replace('_', '')}")
        runtime().replies.publish(answers)

    return process_partial_response({"Records": records}, complete, _processor, context)


def _is_record(record: object) -> bool:
    """Whether the batch processor can tell the record's name and group."""
    if not isinstance(record, dict) or not isinstance(record.get("messageId"), str):
        return False
    attributes = record.get("attributes", {})
    return isinstance(attributes, dict) and isinstance(attributes.get("MessageGroupId", ""), str)
