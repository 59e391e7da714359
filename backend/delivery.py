"""One decoded object to one final state: header, policy, claim, time to live, write, outcome.

    header unreadable, not allowed      FAILED, nothing is written
    a final state is known already      that one again
    somebody else is writing            Busy is raised; who writes, answers
    at the end of the time to live      CANCELLED; FAILED RequestExpired where an earlier attempt may have written
    written                             COMPLETE with S3's response fields
    S3 refused                          FAILED with S3's Code, Message, StatusCode
    S3 gave no answer in time           Unfinished is raised; another delivery may try again

**Guarded** (the default): before the write comes a conditional claim in the table, after it the outcome. So an object is
written once, a cancel is answered at once and truthfully, and a question about a finished put never writes again.
**Unguarded**: an event that holds the whole of an unconditional put, with the first symbol that its sender sends, is written
without DynamoDB. Within its time to live, a second delivery or a superfluous flight of repair symbols then writes the same bytes
once more, which may fall after a newer put of the same key; and CANCELLED is never said, because nobody can know
(docs/backend.md). Conditional puts are always guarded: their second write would be a false 412. So are later flights: only the
table knows when the first datagram came.

Invariant: the time to live is checked after the claim, right before every attempt.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.inflight import PUBLISHED_TTL_S, Busy, Claim, InFlight, Record
from backend.objects import PART_BYTES, Objects, Unfinished
from raptor_s3.errors import MalformedPacket
from raptor_s3.receiver import admission
from raptor_s3.receiver.deadline import begin_by
from raptor_s3.receiver.outcome import Outcome, given_up
from raptor_s3.receiver.s3_answers import is_conditional, is_whole_only
from raptor_s3.wire.put_header import TIME_TO_LIVE, split_put_object
from raptor_s3.wire.transfer_state import StateType, TransferState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backend.transfers import Shape, TransferKey
    from raptor_s3.receiver.policy import Policy


@dataclass(frozen=True, slots=True)
class Put:
    """A decoded object on its way. `fields` are a put header's; `body` is empty where blocks are staged instead."""

    shape: Shape
    fields: dict[str, Any]
    body: memoryview

    def deadline(self, first_at: float) -> float:
        """No attempt begins at or after this."""
        ttl_s = self.fields[TIME_TO_LIVE] / 1000 if self.shape.has_put_header else PUBLISHED_TTL_S
        return begin_by(first_at, ttl_s)


class Delivery:
    def __init__(
        self,
        inflight: InFlight,
        objects: Objects,
        policy: Callable[[], Policy],
        *,
        objects_bucket: str,
        published_prefix: str,
        guard: bool,
    ) -> None:
        self._inflight = inflight
        self._objects = objects
        self._policy = policy
        self._objects_bucket = objects_bucket
        self._published_prefix = published_prefix
        self.guard = guard

    def deliver(
        self,
        key: TransferKey,
        shape: Shape,
        first_at: float,
        data: bytes,
        lease_until: float,
        *,
        record: Record | None = None,
        is_first_flight: bool = False,
    ) -> TransferState:
        """Write one whole object; `record` is the table's, None when the table was not asked.

        `is_first_flight`: `first_at` is known to be when the transfer's first datagram came.

        Returns the final state. Raises backend.inflight.Busy, MismatchedShape, Unfinished.
        """
        put = self._plan(key, shape, memoryview(data))
        if isinstance(put, Outcome):
            return self._refuse(put, key, shape, first_at, record)
        if is_first_flight and not self.guard and not is_conditional(put.fields):
            return self._known(self._objects.put(put.fields, put.body, put.deadline(first_at), None)).state(key.object_id)
        claim = self._inflight.claim(key, shape, first_at, lease_until)
        if isinstance(claim, TransferState):
            return claim
        deadline = put.deadline(min(first_at, claim.record.first_at))
        return self._write(claim, lambda: self._objects.put(put.fields, put.body, deadline, claim.attempted_at))

    def join(self, record: Record, lease_until: float) -> TransferState:
        """Write one large object from its staged blocks. Raises as `deliver`."""
        key, shape = record.key, record.shape
        blocks = _StagedBlocks(self._objects, record)
        put = self._plan(key, shape, blocks.head(), is_staged=True)
        if isinstance(put, Outcome):
            return self._refuse(put, key, shape, record.first_at, record)
        if is_whole_only(put.fields):
            refusal = Outcome.refused("backend", "NotImplemented", "over 5 MiB only CRC32 can be carried out", 501)
            return self._refuse(refusal, key, shape, record.first_at, record)
        body_length = shape.oti.transfer_length - (len(blocks.head()) - len(put.body))
        if body_length < 0:
            return self._refuse(_no_header("put header is longer than the object"), key, shape, record.first_at, record)
        claim = self._inflight.claim(key, shape, record.first_at, lease_until)
        if isinstance(claim, TransferState):
            return claim
        check = _WholeBody(put.fields)
        state = self._write(
            claim,
            lambda: self._objects.put_parts(
                put.fields,
                check.passing(blocks.parts(skip=shape.oti.transfer_length - body_length)),
                put.deadline(record.first_at),
                claim.attempted_at,
                check.objection,
            ),
        )
        self._objects.unstage(blocks.names)
        return state

    def _write(self, claim: Claim, write: Callable[[], Outcome]) -> TransferState:
        try:
            outcome = write()
        except Unfinished as error:
            self._inflight.release(claim, may_have_written=error.may_have_written)
            raise
        state = self._known(outcome).state(claim.record.key.object_id)
        return self._inflight.finish(claim.record, state).outcome or state

    def _known(self, outcome: Outcome) -> Outcome:
        """Unguarded, an earlier delivery may have written without a trace: that nothing was written, nobody knows."""
        if self.guard or outcome.type is not StateType.CANCELLED:
            return outcome
        return given_up("backend", may_have_written=True)

    def _plan(self, key: TransferKey, shape: Shape, data: memoryview, *, is_staged: bool = False) -> Put | Outcome:
        """The write that this object asks for, or the refusal."""
        if not shape.has_put_header:
            return self._plan_published(key, shape, data)
        try:
            fields, body = split_put_object(data)
        except MalformedPacket as error:
            return _no_header(str(error))
        refusal = admission.refusal("backend", self._policy(), key.peer_key, fields, None if is_staged else body)
        return refusal or Put(shape, fields, body)

    def _plan_published(self, key: TransferKey, shape: Shape, data: memoryview) -> Put | Outcome:
        """Objects without a put header: the object id is a relative path, stored under the backend's prefix."""
        name = admission.published_key("backend", self._policy(), key.peer_key, self._published_prefix, key.object_id)
        if isinstance(name, Outcome):
            return name
        return Put(shape, {"Bucket": self._objects_bucket, "Key": name}, data)

    def _refuse(self, refusal: Outcome, key: TransferKey, shape: Shape, first_at: float, record: Record | None) -> TransferState:
        """The refusal, once the table knows it. Raises Busy where a write may have begun."""
        outcome = self._inflight.settle(key, shape, first_at, refusal.state(key.object_id), record)
        if outcome is None:
            raise Busy
        return outcome


def _no_header(reason: str) -> Outcome:
    return Outcome.refused("backend", "InvalidRequest", reason, 400)


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


class _WholeBody:
    """Digests of a body that passes by in parts, and whether they are the put header's."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._crc32 = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    def passing(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        for part in parts:
            self._crc32 = zlib.crc32(part, self._crc32)
            if "ContentMD5" in self._fields:
                self._md5.update(part)
            yield part

    def objection(self) -> str:
        found = {"ChecksumCRC32": _base64(self._crc32.to_bytes(4, "big")), "ContentMD5": _base64(self._md5.digest())}
        wrong = [name for name, value in found.items() if self._fields.get(name, value) != value]
        return f"the body does not match its {', '.join(wrong)}" if wrong else ""


class _StagedBlocks:
    """The decoded source blocks of one transfer in the staging bucket, as one stream."""

    def __init__(self, objects: Objects, record: Record) -> None:
        self._objects = objects
        self.names = [block_name(record, sbn) for sbn in range(record.shape.oti.source_blocks)]
        self._head = b""

    def head(self) -> memoryview:
        """The beginning of the object, at least as far as a put header reaches."""
        if not self._head:
            head = b""
            for name in self.names:
                head += self._read(name)
                if len(head) >= 2 and len(head) >= 2 + int.from_bytes(head[:2], "big"):
                    break
            self._head = head
        return memoryview(self._head)

    def parts(self, skip: int) -> Iterator[bytes]:
        """All octets after the first `skip`, in parts of `PART_BYTES`; the last may be shorter."""
        held = bytearray()
        for name in self.names:
            block = self._read(name)
            held += block[skip:]
            skip = max(0, skip - len(block))
            while len(held) >= PART_BYTES:
                yield bytes(held[:PART_BYTES])
                del held[:PART_BYTES]
        if held:
            yield bytes(held)

    def _read(self, name: str) -> bytes:
        block = self._objects.staged(name)
        if block is None:
            raise Unfinished(f"block {name} is not staged any more", may_have_written=False)
        return block


def block_name(record: Record, sbn: int) -> str:
    return f"{record.key.digest}/{record.epoch}/blocks/{sbn:03}"
