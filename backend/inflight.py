"""All of DynamoDB: what is known of transfers that one event could not finish, and of those that are finished.

One table, PK + SK, pay per request, TTL on `expires`:

    T#<peer>#<object id>   TRANSFER                    shape, first_at, slot; claim; outcome (the tombstone)
                           <epoch>#B#<sbn>             esis: the distinct ESIs of a block, a number set; never a counter
                           <epoch>#S#<sbn>#<digest>    one event's symbols of a block: u24 ESI || symbol, repeated
    P#<peer>               OPEN                        slots: "<until>:<bytes>:<transfer>" of its unfinished transfers

    (none) --open--> collecting --claim--> writing --finish--> outcome
        \\--cancel, refusal, unless a write was ever begun--------^

`attempted_at` stays from the first claim on unless S3 is known not to have stored anything: a transfer that has it can't be
cancelled any more. A claim is a lease that ends after the function that holds it must have ended.
`epoch` tells apart uploads of one path by published clients, which have no transfer ids.

boto3 repeats a request whose answer was lost, and a condition then fails because of the first one: who is refused looks for
its own mark (slot, claim token) in the item.

Invariant: every operation may run twice, or be cut off anywhere; symbols are stored before their ESIs are counted, and the
first outcome is the only one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from backend.transfers import Shape, TransferKey
from raptor_s3.receiver.outcome import CANCELLED, Outcome
from raptor_s3.wire.transfer_state import StateType, TransferState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from backend.objects import Objects

TOMBSTONE_S: Final = 7_200
"""Longer than the ingestion queue keeps a message (900 s) plus the longest time to live (3,600 s)."""
PATH_TOMBSTONE_S: Final = 30
"""After this a published client's path may rightly come again."""
PUBLISHED_TTL_S: Final = 900
"""Time to live of transfers without a put header."""
MAX_SLOTS: Final = 256
SLOT_S: Final = 300
"""How long a transfer that nobody finishes or cancels counts as its peer's."""
SURPLUS: Final = 64
"""Symbols of a block that are kept beyond twice K, for sets that turn out singular; then no more."""
INLINE_BYTES: Final = 8 << 10
"""Symbols of large objects above this go to S3: 8 write units cost what one PUT costs."""
MAX_ITEM_BYTES: Final = 350_000
"""Under DynamoDB's 400 KB an item."""


class MismatchedShape(Exception):
    """The first symbol pinned another OTI or other flags."""


class Busy(Exception):
    """Another invocation holds the claim and is writing."""


@dataclass(frozen=True, slots=True)
class Record:
    """The TRANSFER item. Times in Unix seconds."""

    key: TransferKey
    shape: Shape
    epoch: str
    first_at: float
    outcome: TransferState | None = None
    outcome_at: float = 0.0
    attempted_at: float | None = None
    lease_until: float = 0.0
    slot: str = ""
    done: frozenset[int] = frozenset()
    is_new: bool = False
    """Made just now: the table can't have any of its blocks."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write. `attempted_at` is set when an earlier attempt may have written already."""

    record: Record
    token: str
    attempted_at: float | None


class InFlight:
    def __init__(
        self, dynamodb: Any, table: str, objects: Objects, clock: Callable[[], float], max_peer_bytes: int, staged_from_bytes: int
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._objects = objects
        self._clock = clock
        self._max_peer_bytes = max_peer_bytes
        self._staged_from_bytes = staged_from_bytes

    # Reading

    def get(self, key: TransferKey) -> Record | None:
        """None also for a published client's path that may begin anew."""
        item = self._dynamodb.get_item(TableName=self._table, Key=_key(key, "TRANSFER"), ConsistentRead=True).get("Item")
        if item is None:
            return None
        record = _record(key, item)
        return None if self._retire(record) else record

    def symbols(self, record: Record, sbn: int) -> Iterator[tuple[int, bytes]]:
        """(ESI, symbol) of one block, in no order, with duplicates where events overlapped."""
        size = 3 + record.shape.oti.symbol_size
        for item in self._query(record, f"{record.epoch}#S#{sbn:03}#"):
            packed = item["packed"]["B"] if "packed" in item else self._objects.staged(item["staged"]["S"])
            if packed is None:
                continue
            for offset in range(0, len(packed) - size + 1, size):
                yield int.from_bytes(packed[offset : offset + 3], "big"), packed[offset + 3 : offset + size]

    def _query(self, record: Record, prefix: str) -> Iterator[Mapping[str, Any]]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="PK = :p AND begins_with(SK, :s)",
            ExpressionAttributeValues={":p": _key(record.key, "")["PK"], ":s": {"S": prefix}},
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]

    # Collecting

    def open(self, key: TransferKey, shape: Shape, first_at: float) -> Record:
        """The transfer's record; the first call makes it, and pins the shape.

        A peer that has too much open gets a record whose outcome is a refusal. Raises MismatchedShape, Busy.
        """
        record = self.get(key)
        if record is None:
            record = self._create(key, shape, first_at)
        if record.shape != shape:
            raise MismatchedShape
        return record

    def _create(self, key: TransferKey, shape: Shape, first_at: float) -> Record:
        epoch = f"{int(first_at * 1000):x}-{secrets.token_hex(4)}"
        slot = f"{int(self._clock()) + SLOT_S}:{shape.oti.transfer_length}:{key.digest}"
        if not self._reserve(key.peer_key, slot):
            refusal = Outcome.refused("backend", "SlowDown", "too many unfinished transfers of this peer", 503)
            record = Record(key, shape, epoch, first_at)
            outcome = self.settle(key, shape, first_at, refusal.state(key.object_id), record)
            if outcome is None:
                raise Busy
            return replace(record, outcome=outcome, outcome_at=self._clock())
        try:
            self._update(
                _key(key, "TRANSFER"),
                "SET shape = :shape, epoch = :epoch, first_at = :first, slot = :slot, expires = :expires",
                "attribute_not_exists(PK)",
                {**_pins(shape, epoch, first_at), ":slot": {"S": slot}, ":expires": self._expiry()},
            )
        except _Refused as refused:
            winner = _record(key, refused.item)
            if winner.slot != slot:
                self._free(key.peer_key, slot)
            return winner
        return Record(key, shape, epoch, first_at, slot=slot, is_new=True)

    def add_symbols(self, record: Record, sbn: int, symbols: Mapping[int, bytes]) -> set[int]:
        """Store symbols of one block; returns the distinct ESIs that the block now has."""
        size = 3 + record.shape.oti.symbol_size
        key = _key(record.key, f"{record.epoch}#B#{sbn:03}")
        item: dict[str, Any] = {}
        if not record.is_new:
            item = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item", {})
        known = {int(esi) for esi in item.get("esis", {}).get("NS", ())}
        esis = sorted(symbols.keys() - known)
        if not esis or len(known) >= 2 * record.shape.oti.block_symbols(sbn) + SURPLUS:
            return known
        for start in range(0, len(esis), MAX_ITEM_BYTES // size):
            self._store(record, sbn, {esi: symbols[esi] for esi in esis[start : start + MAX_ITEM_BYTES // size]})
        after = self._update(
            key,
            "SET expires = :expires ADD esis :esis",
            None,
            {":expires": self._expiry(), ":esis": {"NS": [str(esi) for esi in esis]}},
            "ALL_NEW",
        )
        return {int(esi) for esi in after["esis"]["NS"]}

    def _store(self, record: Record, sbn: int, symbols: Mapping[int, bytes]) -> None:
        packed = b"".join(esi.to_bytes(3, "big") + symbol for esi, symbol in symbols.items())
        digest = hashlib.sha256(packed).hexdigest()[:32]
        item = _key(record.key, f"{record.epoch}#S#{sbn:03}#{digest}")
        if len(packed) > INLINE_BYTES and record.shape.oti.transfer_length >= self._staged_from_bytes:
            name = f"{record.key.digest}/{record.epoch}/symbols/{sbn:03}/{digest}"
            self._objects.stage(name, packed)
            item["staged"] = {"S": name}
        else:
            item["packed"] = {"B": packed}
        self._dynamodb.put_item(TableName=self._table, Item=item | {"expires": self._expiry()})

    def mark(self, record: Record, attribute: str, sbn: int) -> int:
        """Add a block to the set `enough` (has K symbols) or `done` (is decoded and staged).

        Returns the set's size, 0 when the transfer is finished or forgotten.
        """
        values = {":sbn": {"NS": [str(sbn)]}, ":epoch": {"S": record.epoch}}
        condition = "epoch = :epoch AND attribute_not_exists(outcome)"
        try:
            after = self._update(_key(record.key, "TRANSFER"), f"ADD {attribute} :sbn", condition, values, "ALL_NEW")
        except _Refused:
            return 0
        return len(after[attribute]["NS"])

    # Writing

    def claim(self, key: TransferKey, shape: Shape, first_at: float, lease_until: float) -> Claim | TransferState:
        """The right to write, or the outcome if there is one. Raises Busy, MismatchedShape."""
        now = self._clock()
        token = secrets.token_hex(8)
        values = {
            **_pins(shape, f"{int(first_at * 1000):x}-{token}", first_at),
            ":token": {"S": token},
            ":lease": _milliseconds(lease_until),
            ":now": _milliseconds(now),
            ":expires": self._expiry(),
        }
        for _ in range(2):
            try:
                before = self._update(
                    _key(key, "TRANSFER"),
                    "SET writer = :token, lease_until = :lease, shape = :shape, expires = :expires,"
                    " epoch = if_not_exists(epoch, :epoch), first_at = if_not_exists(first_at, :first),"
                    " attempted_at = if_not_exists(attempted_at, :now)",
                    "attribute_not_exists(outcome) AND (attribute_not_exists(shape) OR shape = :shape)"
                    " AND (attribute_not_exists(lease_until) OR lease_until < :now)",
                    values,
                    "ALL_OLD",
                )
            except _Refused as refused:
                record = _record(key, refused.item)
                if refused.item.get("writer") == {"S": token}:
                    is_first = refused.item["attempted_at"] == values[":now"]
                    return Claim(record, token, None if is_first else record.attempted_at)
                if self._retire(record):
                    continue
                if record.outcome is not None:
                    return record.outcome
                if record.shape != shape:
                    raise MismatchedShape from None
                raise Busy from None
            record = _record(key, before) if before else Record(key, shape, values[":epoch"]["S"], first_at)
            return Claim(record, token, record.attempted_at)
        raise Busy

    def release(self, claim: Claim, *, may_have_written: bool) -> None:
        """Give the claim back without an outcome."""
        forget = not may_have_written and claim.attempted_at is None
        expression = "REMOVE writer, lease_until" + (", attempted_at" if forget else "")
        with contextlib.suppress(_Refused):  # the lease had run out, and somebody else goes on
            self._update(_key(claim.record.key, "TRANSFER"), expression, "writer = :token", {":token": {"S": claim.token}})

    def finish(self, record: Record, outcome: TransferState) -> Record:
        """Set the outcome, unless there is one. The record that is returned holds the one that counts."""
        now = self._clock()
        text = json.dumps({"Type": int(outcome.type), "Fields": outcome.fields}, separators=(",", ":"))
        try:
            self._update(
                _key(record.key, "TRANSFER"),
                "SET outcome = :outcome, outcome_at = :now, expires = :expires, shape = if_not_exists(shape, :shape),"
                " epoch = if_not_exists(epoch, :epoch), first_at = if_not_exists(first_at, :first)"
                " REMOVE writer, lease_until, slot",
                "attribute_not_exists(outcome)",
                {
                    **_pins(record.shape, record.epoch, record.first_at),
                    ":outcome": {"S": text},
                    ":now": _milliseconds(now),
                    ":expires": self._expiry(),
                },
            )
        except _Refused as refused:
            settled = _record(record.key, refused.item)
        else:
            settled = Record(record.key, record.shape, record.epoch, record.first_at, outcome, now)
        if record.slot:
            self._free(record.key.peer_key, record.slot)
        return settled

    def cancel(self, key: TransferKey, shape: Shape, received_at: float) -> TransferState | None:
        """The outcome after a cancel: CANCELLED unless there was one. None where a write may have begun: nobody knows yet."""
        return self.settle(key, shape, received_at, CANCELLED.state(key.object_id))

    def settle(
        self, key: TransferKey, shape: Shape, received_at: float, outcome: TransferState, record: Record | None = None
    ) -> TransferState | None:
        """End a transfer without a write: the outcome that counts from now on. None where a write may have begun.

        What the sender turns to HTTPS upon must be settled before it is said: another sandbox may know a newer policy.
        """
        record = record or self.get(key)
        if record is not None and record.outcome is not None:
            return record.outcome
        record = record or Record(key, shape, f"{int(received_at * 1000):x}-{secrets.token_hex(4)}", received_at)
        text = json.dumps({"Type": int(outcome.type), "Fields": outcome.fields}, separators=(",", ":"))
        try:
            self._update(
                _key(key, "TRANSFER"),
                "SET outcome = :outcome, outcome_at = :now, expires = :expires, shape = if_not_exists(shape, :shape),"
                " epoch = if_not_exists(epoch, :epoch), first_at = if_not_exists(first_at, :first) REMOVE slot",
                "attribute_not_exists(outcome) AND attribute_not_exists(attempted_at)",
                {
                    **_pins(record.shape, record.epoch, record.first_at),
                    ":outcome": {"S": text},
                    ":now": _milliseconds(self._clock()),
                    ":expires": self._expiry(),
                },
            )
        except _Refused as refused:
            settled = _record(key, refused.item).outcome
        else:
            settled = outcome
        if record.slot and settled is not None:
            self._free(key.peer_key, record.slot)
        return settled

    def _retire(self, record: Record) -> bool:
        """Forget a finished, or long abandoned, upload of a path, so that the path can come again. True if that was done."""
        if record.shape.has_put_header:
            return False
        now = self._clock()
        finished = record.outcome is not None and now >= record.outcome_at + PATH_TOMBSTONE_S
        abandoned = record.outcome is None and now >= record.first_at + PUBLISHED_TTL_S and now >= record.lease_until
        if not (finished or abandoned):
            return False
        try:
            self._dynamodb.delete_item(
                TableName=self._table,
                Key=_key(record.key, "TRANSFER"),
                ConditionExpression="epoch = :epoch",
                ExpressionAttributeValues={":epoch": {"S": record.epoch}},
            )
        except ClientError as error:
            if not _is_condition(error):
                raise
        return True

    # A peer's unfinished transfers

    def _reserve(self, peer_key: str, slot: str) -> bool:
        now = self._clock()
        values = self._slot_values([slot])
        after = self._update(_slots(peer_key), "SET expires = :expires ADD slots :slot", None, values, "ALL_NEW")
        live: list[str] = []
        stale: list[str] = []
        for other in after["slots"]["SS"]:
            (live if int(other.partition(":")[0]) > now else stale).append(other)
        if stale:
            self._free(peer_key, *stale)
        if len(live) <= MAX_SLOTS and sum(int(other.split(":")[1]) for other in live) <= self._max_peer_bytes:
            return True
        self._free(peer_key, slot)
        return False

    def _free(self, peer_key: str, *slots: str) -> None:
        self._update(_slots(peer_key), "SET expires = :expires DELETE slots :slot", None, self._slot_values(list(slots)))

    def _slot_values(self, slots: list[str]) -> dict[str, Any]:
        return {":slot": {"SS": slots}, ":expires": self._expiry()}

    # Plumbing

    def _expiry(self) -> dict[str, str]:
        return {"N": str(int(self._clock()) + TOMBSTONE_S)}

    def _update(
        self, key: Mapping[str, Any], expression: str, condition: str | None, values: Mapping[str, Any], returned: str = "NONE"
    ) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "TableName": self._table,
            "Key": key,
            "UpdateExpression": expression,
            "ExpressionAttributeValues": values,
            "ReturnValues": returned,
        }
        if condition is not None:
            parameters |= {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        try:
            attributes: dict[str, Any] = self._dynamodb.update_item(**parameters).get("Attributes", {})
        except ClientError as error:
            if _is_condition(error):
                raise _Refused(error.response.get("Item", {})) from None
            raise
        return attributes


class _Refused(Exception):
    """A condition did not hold; `item` is what stands there."""

    def __init__(self, item: Mapping[str, Any]) -> None:
        super().__init__()
        self.item = item


def _is_condition(error: ClientError) -> bool:
    return bool(error.response["Error"]["Code"] == "ConditionalCheckFailedException")


def _key(key: TransferKey, sort_key: str) -> dict[str, Any]:
    return {"PK": {"S": f"T#{key.peer_key}#{key.object_id}"}, "SK": {"S": sort_key}}


def _slots(peer_key: str) -> dict[str, Any]:
    return {"PK": {"S": f"P#{peer_key}"}, "SK": {"S": "OPEN"}}


def _pins(shape: Shape, epoch: str, first_at: float) -> dict[str, Any]:
    return {":shape": {"S": str(shape)}, ":epoch": {"S": epoch}, ":first": _milliseconds(first_at)}


def _milliseconds(seconds: float) -> dict[str, str]:
    return {"N": str(int(seconds * 1000))}


def _record(key: TransferKey, item: Mapping[str, Any]) -> Record:
    def seconds(name: str) -> float | None:
        return int(item[name]["N"]) / 1000 if name in item else None

    outcome = None
    if "outcome" in item:
        stored = json.loads(item["outcome"]["S"])
        outcome = TransferState(StateType(stored["Type"]), key.object_id, fields=stored["Fields"])
    return Record(
        key,
        Shape.parse(item["shape"]["S"]),
        item["epoch"]["S"],
        seconds("first_at") or 0.0,
        outcome,
        seconds("outcome_at") or 0.0,
        seconds("attempted_at"),
        seconds("lease_until") or 0.0,
        item.get("slot", {}).get("S", ""),
        frozenset(int(sbn) for sbn in item.get("done", {}).get("NS", ())),
    )
