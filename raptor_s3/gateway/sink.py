"""What a sink is: it takes whole objects, writes them somewhere, and says how that went.

    null    answers at once          raptor_s3.gateway.null
    s3      PutObject by boto3       raptor_s3.gateway.s3

Invariant: for every write that `submit` took, `done` is called exactly once, in the loop's thread, with what is then true for
ever: COMPLETE (in S3), FAILED, or CANCELLED (nothing was and nothing will be written).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.receiver.outcome import Outcome


@dataclass(slots=True, eq=False)
class ObjectWrite:
    """One object on its way to S3. `parameters` are PutObject's, without Body; No attempt begins at or after
    `deadline`, on the loop's clock."""

    parameters: dict[str, Any]
    body: memoryview
    deadline: float


class Sink(Protocol):
    """Where whole objects go."""

    def submit(self, write: ObjectWrite, done: Callable[[Outcome], None]) -> bool:
        """Take `write`; False, and nothing happens, when the sink is full. `done` may be called before this returns."""

    def cancel(self, write: ObjectWrite) -> None:
        """Do not begin to write what has not begun; `done` tells what came of it."""

    @property
    def load(self) -> int:
        """Writes taken and not yet done."""

    def close(self, timeout_s: float) -> None:
        """Finish what is at hand, at most this long."""
