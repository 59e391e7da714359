"""The null sink: answers every object at once, as S3 would, and keeps nothing. For benchmarks and tests of the path to it.

Invariant: the answer is the real ETag (MD5) and CRC-32 of the bytes that arrived, so a sender can still tell right from wrong.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from raptor_s3.receiver.outcome import Outcome
from raptor_s3.wire.transfer_state import StateType

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.gateway.sink import ObjectWrite


class NullSink:
    """A sink that has always just finished."""

    load = 0

    def submit(self, write: ObjectWrite, done: Callable[[Outcome], None]) -> bool:
        etag = hashlib.md5(write.body, usedforsecurity=False).hexdigest()
        fields = {"ETag": f'"{etag}"'}
        if checksum := write.parameters.get("ChecksumCRC32"):
            fields["ChecksumCRC32"] = checksum
            fields["ChecksumType"] = "FULL_OBJECT"
        done(Outcome(StateType.COMPLETE, fields))
        return True

    def cancel(self, write: ObjectWrite) -> None:
        """Nothing waits here."""

    def close(self, timeout_s: float) -> None:
        """Nothing to finish."""
