"""A put that may take long, for a caller who may give up meanwhile: s3transfer's uploads, cancelled or interrupted.

Invariant: whoever leaves before the put has ended has it cancelled.
"""

from __future__ import annotations

from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptor_s3.routing.body import Body
    from raptor_s3.routing.fast_path import PutEngine, PutOutcome

_ASK_EVERY_S: Final = 0.5


def put(engine: PutEngine, fields: Mapping[str, Any], data: bytes, body: Body, *, timeout_s: float, confirm: str) -> PutOutcome:
    """`engine.put` of `data`, asking `body` now and then whether it is still wanted. Raises GivenUp once it isn't.

    The cancel has been sent then; that it is acknowledged, nobody waits for.
    """
    future = engine.submit(fields, data, timeout_s=timeout_s, confirm=confirm)
    try:
        while not wait((future,), _ASK_EVERY_S).done:
            body.ask()
        outcome: PutOutcome = future.result()
        return outcome
    finally:
        if not future.done():
            future.cancel()
        del future  # its error refers to this frame
