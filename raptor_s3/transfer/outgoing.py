"""One put at the sender (docs/transport.md): first flight, repair on silence, deadline.

    WAITING --take()--> FLYING --everything sent--> ASKING --silence--> FLYING (fresh repair symbols)
    any of them --final state--> ended      --deadline--> CANCELLING --acknowledged, or timeout--> ended

- The first flight is the source symbols and the repair for the expected loss. Encoding symbol ids are never used twice.
- On a report, and on silence, the plan is extended by what is then missing, plus the expected loss.
- Timers are the round trip's, doubled on each silence in a row (RFC 6298 5.5); any state from the receiver ends the row.

Invariant: no symbol leaves after `outcome` is set, after the cancel, or, before the receiver has been heard in the present
session, after the blind part of the deadline (`deadline.py`).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.codec import DegreeTable, ObjectEncoder
from raptor_s3.transfer.block_flight import BlockFlight, tally
from raptor_s3.transfer.deadline import plan_deadline
from raptor_s3.transfer.feedback import Feedback
from raptor_s3.transfer.loss import flight_size
from raptor_s3.transfer.outcome import Confirm, Ending, TransferStats
from raptor_s3.transfer.plan import Run, cut_object
from raptor_s3.wire.datagram import FLAG_CANCEL, FLAG_PUT_HEADER, FLAG_RFC6330_REPAIR, datagram_prefix
from raptor_s3.wire.put_header import TIME_TO_LIVE, build_put_header
from raptor_s3.wire.transfer_state import StateType, TransferState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer

    from raptor_s3.transfer.deadline import Deadline
    from raptor_s3.transfer.path import PathEstimates
    from raptor_s3.transfer.plan import PutRequest

FIRST_BURST: Final = 10
MAX_BACKOFF: Final = 6
MAX_INQUIRY: Final = 4
"""Datagrams in one question about a write whose confirmation does not come."""
MAX_INQUIRY_BACKOFF: Final = 3
UNKNOWN_SETTLE_SHARE: Final = 0.2
"""A path of which nothing is known, or not lately, is taken for one that fits the timeout; or no put would ever find out."""
MAX_WAIT_US: Final = 60_000_000
WRITE_S: Final = 0.05
"""The least time that a receiver is left alone with its write."""
REPORT_DELAY_S: Final = 0.03
"""In the middle of a flight a receiver may wait this long before it reports (max_ack_delay of RFC 9002)."""
LONG_SILENCE: Final = 4
"""So many unanswered questions in a row are too many for chance, where others are answered."""
MAX_DOUBTS: Final = 6
INSIST_S: Final = 0.3
"""A gateway that has restarted is not heard under the old keys for so long, and then the put is given up."""
_CANCEL_PAYLOAD_ID: Final = bytes(4)
_RFC6330: Final = DegreeTable.RFC6330
_NEVER: Final = float("inf")
_PACKETS: Final = StateType.PACKETS
_COMPLETE: Final = StateType.COMPLETE
_SUCCESSES: Final = (StateType.COMPLETE, StateType.BLOCK_COMPLETE, StateType.ENOUGH_PACKETS)
_CONFIRMED: Final = Ending.CONFIRMED


class _Phase(enum.Enum):
    WAITING = enum.auto()
    SENDING = enum.auto()
    CANCELLING = enum.auto()
    ENDED = enum.auto()


# Plain names: until Python 3.12 an attribute of an Enum takes ten times as long to look up.
_WAITING, _SENDING, _CANCELLING, _ENDED = _Phase


class OutgoingTransfer:
    """One put. Times are on the caller's clock; `now` never goes back.

    The caller asks `backlog`, takes runs of symbols with `take`, has them written with `write`, and passes on states with
    `receive_state` and time with `handle_timer`. `outcome` is None until the end.
    """

    outcome: Ending | None = None
    answer: Mapping[str, Any] | None = None
    wants_cancel = False
    may_write = True
    is_heard = False  # in the present session
    # The Sender's own notes.
    is_queued = False
    timer_due = _NEVER
    flight_bytes = 0

    _phase = _WAITING
    _silences = 0
    _inquiries = 0
    _doubts = 0
    _insists_until = 0.0
    _asked_at = 0.0
    _questioned_at = 0.0  # Karn: a state that speaks of an earlier datagram may be the answer's repetition
    _last_sent_at = 0.0
    _completed_at: float | None = None
    _current = 0
    _cancels_sent = 0
    _is_guess = False
    _deadline: Deadline | None = None

    def __init__(self, request: PutRequest, now: float, path: PathEstimates, coded: bytes | None = None) -> None:
        """Builds the coded object for a start at about `now`, or takes the one that was built then.

        Raises ValueError for what can't be sent.
        """
        self.request = request
        self.object_id = request.object_id
        self.is_unconfirmed = request.confirm is Confirm.NONE
        self.stats = TransferStats()
        self.ends_at = self._cancel_at = now + request.timeout_s
        self._path = path
        flags = FLAG_RFC6330_REPAIR if request.degree_table is _RFC6330 else 0
        self._flags = flags if request.fields is None else flags | FLAG_PUT_HEADER
        self._build(now, coded)

    def _build(self, now: float, coded: bytes | None = None) -> None:
        request, path = self.request, self._path
        _, fields, data, _, _, overhead, max_datagram, degree_table = request
        self._blind_until = self.ends_at
        if fields is not None:
            timeout_s, rtt = self.ends_at - now, path.rtt
            self._is_guess = rtt.smoothed_s is None
            rto_s = rtt.timeout_s
            if rto_s > UNKNOWN_SETTLE_SHARE * timeout_s and (self._is_guess or rtt.is_stale(now)):
                rto_s = UNKNOWN_SETTLE_SHARE * timeout_s
            deadline = self._deadline = plan_deadline(timeout_s, rto_s)
            ttl_ms = 1
            if deadline is not None:
                self._blind_until = now + deadline.blind_s
                ttl_ms = int(deadline.ttl_s * 1000 + 0.5)
            data = coded or b"".join((build_put_header({**fields, TIME_TO_LIVE: ttl_ms}), data))
        encoded_id = self.object_id.encode()
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        self.oti, block_symbols, self.datagram_size, tail = cut_object(size, len(encoded_id), self._flags, max_datagram)
        self.prefix = b"".join((bytes((len(encoded_id),)), encoded_id, tail))
        self._encoder = ObjectEncoder(data, self.oti, degree_table)
        loss = path.loss.rate
        blocks: list[BlockFlight] = []
        self._blocks = blocks
        self._current = self.backlog = 0
        for symbols in block_symbols:
            target = flight_size(symbols, loss, overhead)
            blocks.append(BlockFlight(symbols, target))
            self.backlog += target

    # Sending

    def start(self, now: float) -> bool:
        """To be called before the first `take`. False, with an outcome, when it is too late to send anything."""
        if self._phase is not _WAITING:
            return self.outcome is None
        remaining_s = self.ends_at - now
        timer_s = self._path.rtt.timeout_s
        if remaining_s < 2 * timer_s and remaining_s < self.request.timeout_s / 2:
            self._finish(Ending.NOTHING_SENT)
            return False
        if now + 2 * timer_s > self._blind_until or (self._is_guess and self._path.rtt.smoothed_s is not None):
            # The put waited so long (for a handshake, for the pacer) that the time to live in its header would be too long;
            # or the handshake has measured the path.
            self._build(now)
        if self.request.fields is not None:
            if self._deadline is None:
                self._finish(Ending.NOTHING_SENT)
                return False
            self._cancel_at = now + self._deadline.ttl_s
        if self.backlog == 1 and self._path.initial_repair and self.request.overhead is None:
            self._path.initial_repair -= 1
            block = self._blocks[0]
            block.flight = block.target = self.backlog = 2
        self._phase = _SENDING
        return True

    def take(self, limit: int, now: float) -> Run | None:
        """The next symbols to send, at most `limit` and all of one block; None when there are none."""
        if not self.may_send(now):
            return None
        blocks, sbn = self._blocks, self._current
        while sbn < len(blocks):
            block = blocks[sbn]
            first = block.next_esi
            count = block.target - first
            if count <= 0:
                self._current = sbn = sbn + 1
                continue
            if count > limit:
                count = limit
            block.next_esi = first + count
            block.firsts.append(first)
            block.times.append(now)
            self.backlog -= count
            self._last_sent_at = now
            return Run(sbn, first, count)
        return None

    def put_back(self, run: Run) -> None:
        """The symbols that `take` gave last have not left, and were not sealed."""
        block = self._blocks[run.sbn]
        block.next_esi = run.first_esi
        block.firsts.pop()
        block.times.pop()
        self.backlog += run.length
        self._current = min(self._current, run.sbn)

    def all_left(self) -> None:
        """What was taken has left. Where nothing is to be confirmed, that is all."""
        if self._phase is _SENDING and not self.backlog and self.is_unconfirmed:
            self._finish(_CONFIRMED)

    def may_send(self, now: float) -> bool:
        """Whether symbols may leave, or those that were taken before."""
        return self._phase is _SENDING and (self.is_heard or now < self._blind_until)

    def write(self, run: Run, arena: Buffer, offset: int, stride: int) -> int:
        """Write the datagrams of `run` into `arena`, `stride` apart; the offset after the last."""
        return self._encoder.packets_into(arena, offset, stride, self.prefix, run.sbn, run.first_esi, run.length)

    def take_cancel(self, now: float) -> bytes:
        """The cancel datagram (flag bit 2), when `wants_cancel`."""
        self.wants_cancel = False
        self._asked_at = now
        self._cancels_sent += 1
        return datagram_prefix(self.object_id, self.oti, self._flags | FLAG_CANCEL) + _CANCEL_PAYLOAD_ID

    # Receiving

    def receive_state(self, state: TransferState, now: float) -> Feedback | None:
        """Take a state whose object id is this transfer's. None where it says nothing of the path, or something impossible."""
        phase, blocks, type_ = self._phase, self._blocks, state.type
        if phase is _ENDED or phase is _WAITING or state.sbn >= len(blocks):
            return None
        block = blocks[state.sbn]
        self.is_heard = True
        self._silences = 0
        if type_ is _PACKETS:
            return self._receive_report(block, state, now)
        self._asked_at = now
        feedback = self._receive_completion(block, state, now)
        if type_ is _COMPLETE:
            self.answer = state.fields or {}
            self.stats.rtt_s = feedback.confirmed_s
            self._finish(_CONFIRMED)
        elif type_ is StateType.FAILED:
            self.answer = state.fields
            self._finish(Ending.REJECTED)
        elif type_ is StateType.CANCELLED:
            self._finish(Ending.CANCELLED)
        else:
            self._complete_block(block)
            confirm = self.request.confirm
            enough = confirm is Confirm.PACKETS or (confirm is Confirm.BLOCK and type_ is StateType.BLOCK_COMPLETE)
            if enough and self._is_complete:
                self._finish(_CONFIRMED)
        return feedback

    def _receive_report(self, block: BlockFlight, state: TransferState, now: float) -> Feedback | None:
        fields = state.fields or {}
        esi, wait_us = fields.get("Esi"), fields.get("Wait", 0)
        if state.received > block.next_esi or block.done:
            return None
        rtt_s = None
        if type(esi) is int and 0 <= esi < block.next_esi and type(wait_us) is int and 0 <= wait_us <= MAX_WAIT_US:
            rtt_s = now - block.sent_at(esi) - wait_us * 1e-6
            self._path.count_displacement(max(block.highest - esi, 0))
            block.highest = max(block.highest, esi)
            index = esi + 1
        else:
            # A receiver that does not say which datagram it speaks of: one that left a round trip ago.
            index = max(block.sent_before(now - (self._path.rtt.smoothed_s or 0.0)), block.index, state.received)
        if state.received < block.received:
            return None  # overtaken by a later report
        delivered, lost, since = block.account(state.received, index)
        self.stats.lost_estimate += lost
        self._top_up(block, tolerance=0.0 if wait_us else self._path.reordering)
        return Feedback(delivered, lost, rtt_s, None, since)

    def _receive_completion(self, block: BlockFlight, state: TransferState, now: float) -> Feedback:
        """Types 1, 2 and the final ones: `received` is 1 + the ESI that completed the block, or 0 where nobody says."""
        type_, index, sent = state.type, state.received, block.next_esi
        delivered = lost = surplus = 0
        since, surplus_s = _NEVER, 0.0
        sent_at = rtt_s = confirmed_s = None
        if type_ in _SUCCESSES and not block.done:
            delivered = (block.symbols if block.symbols < sent else sent) - block.received
            if delivered < 0:
                delivered = 0
            if 0 < index <= sent:
                sent_at = block.sent_at(index - 1)
                lost = index - block.index - delivered
                if lost:
                    self.stats.lost_estimate += lost
                    if lost > 0:
                        since = block.sent_at(block.index)
                surplus = sent - index
                if surplus:
                    surplus_s = block.times[-1] - sent_at
            elif not self.stats.timeouts and sent >= block.symbols:
                sent_at = block.sent_at(block.symbols - 1)  # or later: a round trip too short would pass for the path's least
            if sent_at is not None:
                self._completed_at = sent_at
                if sent_at >= self._questioned_at:
                    rtt_s = now - sent_at
                else:
                    self._path.rtt.back_off(sent_at, now)
        if type_ is _COMPLETE and self._completed_at is not None:
            if self._completed_at >= self._questioned_at:
                confirmed_s = now - self._completed_at
            else:
                self._path.confirmation.back_off(self._completed_at, now)
        return Feedback(delivered, lost, rtt_s, confirmed_s, since, surplus, surplus_s)

    def _top_up(self, block: BlockFlight, tolerance: float) -> None:
        """Extend the plan so that, after the datagrams that the report knows of, enough are sent for what is missing.

        Where order is not kept, a count is off by some datagrams either way (`tolerance`), as long as there are any on their way.
        """
        target = block.index + flight_size(block.symbols - block.received, self._path.loss.rate, self.request.overhead)
        if target > block.target + tolerance:
            self._extend(block, target)

    def _complete_block(self, block: BlockFlight) -> None:
        block.done = True
        self.backlog -= block.target - block.next_esi
        block.target = block.next_esi

    def _extend(self, block: BlockFlight, target: int) -> None:
        if self._phase is _CANCELLING:
            return
        self.backlog += target - block.target
        block.target = target
        self._current = min(self._current, self._blocks.index(block))

    # Time

    def change_session(self, now: float) -> None:
        """Go on under new keys: the receiver behind them may be another one, that knows nothing of this transfer.

        What it has not answered is asked again at once, with as many symbols as make a small object whole.
        """
        self.is_heard = False
        self._asked_at = now
        if self._phase is _CANCELLING:
            self.wants_cancel = self.request.fields is not None
        elif self._phase is _SENDING and self._silences:
            self._silences = 0
            for block in self._blocks:
                block.done = False
                block.received = 0
                block.settled = block.next_esi
                self._extend(block, block.next_esi + min(flight_size(block.symbols, self._path.loss.rate), FIRST_BURST))

    def insist(self, now: float) -> bool:
        """There are new keys, but past the blind part this may go on only under its own: ask there for a while, they may be good.

        False: `change_session`, there is nothing to lose.
        """
        if not self.is_heard or self._phase is not _SENDING or now < self._blind_until:
            return False
        if self._insists_until:
            return now < self._insists_until
        self._insists_until = now + max(INSIST_S, 2 * self._path.rtt.timeout_s)
        self._silences = 1
        self._asked_at = self._questioned_at = now
        self._ask()
        return True

    def doubt(self, now: float) -> None:
        """A receiver refuses that was not there from the beginning: whether the one that was lives is asked some more times."""
        self._silences = 0
        self._doubts += 1
        self._asked_at = now

    def cancel(self, now: float) -> None:
        """Give up: no symbol leaves any more, and the receiver is told, if it knows what a cancel is (not of a bare object)."""
        if self._phase is _WAITING:
            self._finish(Ending.NOTHING_SENT)
        elif self._phase is _SENDING:
            self.backlog = 0
            for block in self._blocks:
                block.target = block.next_esi
            self._phase = _CANCELLING
            self.wants_cancel = self.request.fields is not None
            self._silences = 0
            self._asked_at = now

    def get_timer(self) -> float:
        """When `handle_timer` is due; infinity after the end."""
        due = self.ends_at
        if self._phase is _SENDING:
            if self._cancel_at < due:
                due = self._cancel_at
            if not self.is_heard and self._blind_until < due:
                due = self._blind_until
            if self.backlog and not self.in_flight:
                return due
        elif self._phase is not _CANCELLING:
            return due if self._phase is _WAITING else _NEVER
        elif self.request.fields is None or self._doubts > MAX_DOUBTS:
            return due
        asked_at = self._last_sent_at if self._last_sent_at > self._asked_at else self._asked_at
        timeout_s, row = self._path.rtt.timeout_s, self._silences + self._doubts
        if self.backlog:
            timeout_s += REPORT_DELAY_S
        elif self.is_heard and self._is_complete:
            timeout_s = max(self._path.confirmation.timeout_s, WRITE_S)
            row = min(max(row, self._inquiries), MAX_INQUIRY_BACKOFF)
        asked_at += timeout_s * (1 << (row if row < MAX_BACKOFF else MAX_BACKOFF))
        return asked_at if asked_at < due else due

    def handle_timer(self, now: float) -> bool:
        """Act on the time. True when this was one more silence: a question that nobody answered."""
        if now < self.get_timer():
            return False
        if now >= self.ends_at:
            self._finish(Ending.NOTHING_SENT if self._phase is _WAITING else Ending.TIMED_OUT)
            return False
        if self._phase is _CANCELLING:
            self._silences += 1
            self._asked_at = now
            self.wants_cancel = True
            return True
        if now >= self._cancel_at or (not self.is_heard and now >= self._blind_until):
            self.cancel(now)
            return False
        self._silences += 1
        if self._silences == 1:
            self._insists_until = 0.0
        self._asked_at = self._questioned_at = now
        self.stats.timeouts += 1
        self._ask()
        return True

    def _ask(self) -> None:
        """Fresh symbols, as many as seem to be missing; where nothing was heard, a few that make the receiver answer."""
        waiting = [block for block in self._blocks if not block.done]
        if self.backlog:  # the rate, or the window, holds the rest of the flight back
            for block in waiting:
                block.settled = block.next_esi
            return
        if not waiting:  # the write takes its time: ask less and less often
            self._inquiries += 1
            last = self._blocks[-1]
            # An unanswered question may have been lost, and so may its answer: say it again in more datagrams.
            self._extend(last, last.next_esi + min(1 << (self._silences - 1), MAX_INQUIRY))
            return
        for block in waiting:
            block.settled = block.next_esi
            self._extend(block, block.next_esi + block.question(self._silences, self._path.loss.rate))

    @property
    def _is_complete(self) -> bool:
        return all(block.done for block in self._blocks)

    @property
    def in_flight(self) -> int:
        """Datagrams of which the receiver has not spoken."""
        count = 0
        if self._phase is _SENDING:
            for block in self._blocks:
                if not block.done:
                    count += block.next_esi - (block.index if block.index > block.settled else block.settled)
        return count

    @property
    def may_have_vanished(self) -> bool:
        """Whether it looks as if no datagram of it arrives, or none any more."""
        is_unheard = not self.is_heard or self._silences >= LONG_SILENCE
        return self._phase is _SENDING and is_unheard and not self._is_complete

    @property
    def silences(self) -> int:
        """Questions in a row that nobody answered."""
        return self._silences

    @property
    def has_started(self) -> bool:
        return self._phase is not _WAITING

    def count_sent(self) -> TransferStats:
        """`stats`, brought up to date with what has left so far."""
        stats = self.stats
        sent, stats.source_symbols, stats.resent = tally(self._blocks)
        stats.repair_symbols = sent - stats.source_symbols
        stats.datagrams_sent = sent + self._cancels_sent
        return stats

    def _finish(self, ending: Ending) -> None:
        self._phase = _ENDED
        self.outcome = ending
        self.backlog = 0
        self.wants_cancel = False
        self.count_sent()
        if self.stats.lost_estimate < 0:  # what was taken for lost was late, or the receiver reads in another order
            self.stats.lost_estimate = 0
