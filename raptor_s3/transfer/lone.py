"""A put of one symbol that has the path to itself: what most puts are, without what the others need.

    lone_datagram(sender, request, started_at, now)                to be sent at once
    confirm(sender, size_bytes, sent_at, now)                      when state 3 comes in answer to it
    go_on(sender, transfer_of(...), sent_at)                       when anything else happens: a timer, another put, another state

The last has an OutgoingTransfer take over, the one that it would have been: of the object in the datagram, and by the same
decisions, taken once more as of the time when the datagram left. So nothing but the usual ending is written twice.

Invariant: estimates, pacing and statistics are afterwards what they would have been (tests/property/test_lone_put.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raptor_s3.codec import DegreeTable
from raptor_s3.transfer.deadline import plan_deadline
from raptor_s3.transfer.loss import SINGLE_BELOW
from raptor_s3.transfer.outcome import Confirm
from raptor_s3.transfer.outgoing import UNKNOWN_SETTLE_SHARE, OutgoingTransfer
from raptor_s3.transfer.plan import cut_object
from raptor_s3.wire.datagram import FLAG_PUT_HEADER, FLAG_RFC6330_REPAIR, PREFIX_TAIL
from raptor_s3.wire.put_header import TIME_TO_LIVE, build_put_header

if TYPE_CHECKING:
    from raptor_s3.transfer.plan import PutRequest
    from raptor_s3.transfer.sender import Sender

SLOW_WRITE_S: Final = 0.008
"""A receiver that needs longer for the write reports before it is done: not the usual ending."""
_FIRST_SYMBOL: Final = bytes(4)
_ONE_SYMBOL: Final = (1,)
_LENGTHS: Final = [bytes((length,)) for length in range(256)]
_FILE: Final = Confirm.FILE
_RFC6330: Final = DegreeTable.RFC6330
_FLAGS: Final = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR


def lone_datagram(sender: Sender, request: PutRequest, started_at: float, now: float) -> bytes | None:
    """All of a put that was called for at `started_at`, to leave at `now`; None where it takes more, or has to wait.

    If no answer comes, its sender has to `go_on` after `sender.path.rtt.timeout_s`. Raises ValueError for what can't be sent.
    """
    object_id, fields, body, timeout_s, confirm, overhead, max_datagram, degree_table = request
    path = sender.path
    timer_s = path.rtt.timeout_s
    timeout_s = started_at + timeout_s - started_at  # to the last bit what the transfer reckons with
    if (
        fields is None
        or type(body) is not bytes
        or confirm is not _FILE
        or overhead is not None
        or path.initial_repair
        or path.rtt.smoothed_s is None
        or path.loss.rate >= SINGLE_BELOW
        or path.confirmation.smoothed_s is None
        or path.confirmation.smoothed_s > path.rtt.smoothed_s + SLOW_WRITE_S
        or timer_s > UNKNOWN_SETTLE_SHARE * timeout_s
        or (deadline := plan_deadline(timeout_s, timer_s)) is None
        or now + 2 * timer_s > started_at + deadline.blind_s
    ):
        return None
    header = build_put_header({**fields, TIME_TO_LIVE: int(deadline.ttl_s * 1000 + 0.5)})
    encoded_id = object_id.encode()
    flags = _FLAGS if degree_table is _RFC6330 else FLAG_PUT_HEADER
    cut = cut_object(len(header) + len(body), len(encoded_id), flags, max_datagram)
    if cut.block_symbols != _ONE_SYMBOL or not sender.has_room(cut.datagram_size + sender.overhead, now):
        return None
    return b"".join((_LENGTHS[len(encoded_id)], encoded_id, cut.tail, _FIRST_SYMBOL, header, body))


def confirm(sender: Sender, size_bytes: int, sent_at: float, now: float) -> None:
    """State 3 has come, set off by the datagram of so many octets: the estimates learn what a transfer would have taught them."""
    path, rtt_s = sender.path, now - sent_at
    path.rtt.sample(rtt_s, now)
    path.confirmation.sample(rtt_s, now)
    path.loss.count(1, 1)
    sender.controller.on_lone_datagram(size_bytes + sender.overhead, sent_at, now)


def transfer_of(sender: Sender, request: PutRequest, started_at: float, datagram: bytes) -> OutgoingTransfer:
    """What this put would have been. Of `request`, which is the caller's, nothing is read that `datagram` holds."""
    object_at = 1 + datagram[0] + PREFIX_TAIL + len(_FIRST_SYMBOL)
    return OutgoingTransfer(request, started_at, sender.path, datagram[object_at:])


def go_on(sender: Sender, transfer: OutgoingTransfer, sent_at: float) -> None:
    """`transfer` takes over: its first datagram left at `sent_at`. Interrupted, this can be done again."""
    sender.add(transfer)
    if not transfer.has_started:
        sender.next_run(sent_at)
