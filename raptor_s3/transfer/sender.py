"""All puts of one endpoint: whose turn it is, how fast, and what the answers teach (docs/transport.md).

    add(transfer) -> next_run(now) ... -> receive_state(state) / handle_timer(now) -> `ended`

Small transfers go first, then the others in the order of their calls: dividing the rate among many large ones would make all of
them late. Pacing, round trip, loss and rate belong to the endpoint and are shared.

Invariant: every transfer that was added appears in `ended` exactly once.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Final

from raptor_s3.transfer.congestion import RateController
from raptor_s3.transfer.pacing import CAPPED_OVERHEAD, QUANTUM_S, WIRE_OVERHEAD
from raptor_s3.transfer.path import Learned, PathEstimates

if TYPE_CHECKING:
    from raptor_s3.transfer.outgoing import OutgoingTransfer
    from raptor_s3.transfer.plan import Run
    from raptor_s3.wire.transfer_state import TransferState

MAX_RUN: Final = 64
"""Datagrams of one run, and their octets: what one UDP GSO send takes (UDP_MAX_SEGMENTS; an IPv4 packet's 65,535)."""
MAX_RUN_BYTES: Final = 65_000
SMALL: Final = 16
"""Backlog, in datagrams, up to which a transfer goes before larger ones."""
_NEVER: Final = float("inf")


class Sender:
    """Shared by all transfers to one endpoint. One thread at a time."""

    def __init__(self, now: float, *, cap: float | None = None, learned: Learned | None = None) -> None:
        """`cap` is in octets per second, as they are on the wire: a hard limit. None follows the path."""
        known = learned or Learned()
        self.path = PathEstimates(known)
        self.overhead = WIRE_OVERHEAD if cap is None else CAPPED_OVERHEAD
        """Octets that count for each datagram beside itself."""
        self.controller = RateController(now, self.path, cap=cap, rate=known.rate, floor=known.floor)
        self.ended: list[OutgoingTransfer] = []
        self._transfers: dict[str, OutgoingTransfer] = {}
        self._small: deque[OutgoingTransfer] = deque()
        self._large: deque[OutgoingTransfer] = deque()
        self._cancels: list[OutgoingTransfer] = []
        self._timers: list[tuple[float, str]] = []
        self._new: list[OutgoingTransfer] = []  # those that may not have a timer yet
        self._flight_bytes = 0

    def __len__(self) -> int:
        return len(self._transfers)

    def add(self, transfer: OutgoingTransfer) -> None:
        """Take a new transfer. Interrupted, this can be done again. Raises ValueError when its object id is in use."""
        if self._transfers.setdefault(transfer.object_id, transfer) is not transfer:
            raise ValueError("object id is in use")
        self._new.append(transfer)
        if not transfer.is_queued:
            self._enqueue(transfer)

    @property
    def has_queue(self) -> bool:
        """Some transfer has symbols to send, when the rate allows it."""
        return bool(self._small or self._large)

    @property
    def has_cancels(self) -> bool:
        return bool(self._cancels)

    @property
    def has_work(self) -> bool:
        return bool(self._small or self._large or self._cancels)

    def has_room(self, size_bytes: int, now: float) -> bool:
        """Nothing else is under way, and so many octets may leave now."""
        controller = self.controller
        return not self._transfers and controller.window_bytes >= size_bytes <= controller.pacer.available(now) + 1e-3

    def next_run(self, now: float) -> tuple[OutgoingTransfer, Run] | None:
        """The next datagrams to send now; None when there are none, or the rate does not allow any (`next_send_at`)."""
        if not (self._small or self._large):
            return None
        controller = self.controller
        while queue := self._small or self._large:
            transfer = queue[0]
            run = None
            if transfer.backlog and transfer.start(now):
                size = transfer.datagram_size + self.overhead
                limit = self._allowance(transfer.backlog, size, now)
                if not limit:
                    return None
                run = transfer.take(limit, now)
            if run is None or not transfer.backlog:
                queue.popleft()
                transfer.is_queued = False
            if run is not None:
                sent_bytes = run.length * size
                in_flight = self._flight_bytes
                controller.on_sent(sent_bytes, in_flight, now)
                if not (self._small or self._large):
                    controller.idle_at = now
                transfer.flight_bytes += sent_bytes
                self._flight_bytes = in_flight + sent_bytes
                self._set_timer(transfer, transfer.get_timer())
                return transfer, run
            if transfer.outcome is not None:
                self._settle(transfer)
        controller.idle_at = now
        return None

    def _allowance(self, backlog: int, size: int, now: float) -> int:
        """How many of `backlog` datagrams of `size` octets may leave now: none until a quantum is at hand."""
        controller = self.controller
        window = controller.window_bytes - self._flight_bytes
        if window < size:
            return 0
        count = backlog if backlog <= SMALL else min(backlog, MAX_RUN, MAX_RUN_BYTES // size)
        available = controller.pacer.available(now) + 1e-3
        if available < count * size:
            longest, count = count, int(available / size)
            if count < self._quantum(longest, size):
                return 0
        return count if count * size <= window else int(window / size)

    def _quantum(self, longest: int, size: int) -> int:
        return min(longest, max(2, int(self.controller.pacer.rate * QUANTUM_S / size)))

    def next_send_at(self, now: float) -> float:
        """When `next_run` may have something, infinity when nothing waits, or only a state can open the window."""
        queue = self._small or self._large
        if not queue:
            return _NEVER
        transfer = queue[0]
        size = transfer.datagram_size + self.overhead
        if transfer.backlog and self.controller.window_bytes - self._flight_bytes < size:
            return _NEVER
        longest = min(transfer.backlog, MAX_RUN, MAX_RUN_BYTES // size)
        return self.controller.pacer.ready_at(self._quantum(longest, size) * size, now)

    def take_cancels(self) -> list[OutgoingTransfer]:
        """Transfers whose cancel is to be sent now (`take_cancel`). Not paced: a few octets each, one at a time per transfer."""
        if not self._cancels:
            return []
        cancels, self._cancels = self._cancels, []
        return [transfer for transfer in cancels if transfer.wants_cancel]

    def receive_state(self, state: TransferState, now: float, *, is_late: bool = False) -> None:
        """Take one parsed state. Those of transfers that are not ours (any more) are ignored.

        `is_late`: it may have come long before `now`.
        """
        transfer = self._transfers.get(state.object_id)
        if transfer is None:
            return
        feedback = transfer.receive_state(state, now)
        if feedback is not None:
            if is_late:
                feedback = feedback._replace(rtt_s=None, confirmed_s=None)
            if feedback.rtt_s is not None:
                self.path.rtt.sample(feedback.rtt_s, now)
            if feedback.confirmed_s is not None:
                self.path.confirmation.sample(feedback.confirmed_s, now)
            if feedback.since <= self.controller.congested_at:  # a queue has overflowed: not what the path loses by itself
                feedback = feedback._replace(lost=0)
            if feedback.delivered or feedback.lost:
                self.path.loss.count(feedback.delivered + feedback.lost, feedback.delivered)
            size = transfer.datagram_size + self.overhead
            self.controller.on_feedback(feedback, size, self._flight_bytes, now)
        self._settle(transfer)
        if not self._flight_bytes and feedback is not None and feedback.delivered:
            self.controller.on_all_delivered()

    def is_due(self, now: float) -> bool:
        """Whether `handle_timer` has something to do; of transfers that `get_timer` has not seen yet nothing is known."""
        timers = self._timers
        return bool(timers) and timers[0][0] <= now

    def get_timer(self) -> float:
        """When `handle_timer` is due; infinity for never."""
        if self._new:
            new, self._new = self._new, []
            for transfer in new:  # most have been sent meanwhile
                if transfer.timer_due == _NEVER and self._transfers.get(transfer.object_id) is transfer:
                    self._set_timer(transfer, transfer.get_timer())
        return self._timers[0][0] if self._timers else _NEVER

    def handle_timer(self, now: float) -> int:
        """Act on the time. Returns the longest row of unanswered questions among the transfers that asked again."""
        worst = 0
        while self.get_timer() <= now:
            due, object_id = heapq.heappop(self._timers)
            transfer = self._transfers.get(object_id)
            if transfer is None or transfer.timer_due != due:
                continue
            transfer.timer_due = _NEVER
            in_flight = transfer.flight_bytes
            if transfer.handle_timer(now):
                worst = max(worst, transfer.silences)
                if transfer.silences > 1:
                    self.controller.on_silence(in_flight, now)
            if transfer.wants_cancel:
                self._cancels.append(transfer)
            self._settle(transfer)
        return worst

    def put_back(self, transfer: OutgoingTransfer, run: Run) -> None:
        """The last run of `next_run` has not left."""
        transfer.put_back(run)
        self._settle(transfer)

    def all_left(self, transfer: OutgoingTransfer) -> None:
        """All that `next_run` gave of a transfer without confirmation has left."""
        transfer.all_left()
        self._settle(transfer)

    def cancel(self, transfer: OutgoingTransfer, now: float) -> None:
        """The caller gives up."""
        transfer.cancel(now)
        if transfer.wants_cancel:
            self._cancels.append(transfer)
        self._settle(transfer)

    def drop(self, transfer: OutgoingTransfer) -> None:
        """Forget a transfer at once: it sends nothing any more, and does not appear in `ended`."""
        if self._transfers.get(transfer.object_id) is transfer:
            del self._transfers[transfer.object_id]
            transfer.backlog = 0
            self._flight_bytes -= transfer.flight_bytes
            if not self._transfers:
                self._timers.clear()
                self._new.clear()

    def change_session(self, transfer: OutgoingTransfer, now: float) -> None:
        """`transfer` goes on under new keys: see OutgoingTransfer.change_session."""
        transfer.change_session(now)
        if transfer.wants_cancel:
            self._cancels.append(transfer)
        self._settle(transfer)

    def doubt(self, object_id: str, now: float) -> None:
        """A receiver refuses that can't know. See OutgoingTransfer.doubt."""
        transfer = self._transfers.get(object_id)
        if transfer is not None:
            transfer.doubt(now)
            self._settle(transfer)

    def insist(self, transfer: OutgoingTransfer, now: float) -> bool:
        """There are new keys: whether `transfer` stays with its own for one more question. See OutgoingTransfer.insist."""
        insists = transfer.insist(now)
        self._settle(transfer)
        return insists

    @property
    def learned(self) -> Learned:
        rtt, controller = self.path.rtt, self.controller
        return Learned(rtt.smoothed_s, rtt.variation_s, self.path.loss.rate, controller.learned_rate, controller.learned_floor)

    def _settle(self, transfer: OutgoingTransfer) -> None:
        """Bring queue, timers, flight and `ended` up to date after something happened to `transfer`."""
        if transfer.outcome is not None:
            if self._transfers.get(transfer.object_id) is transfer:  # a bare object's id may have been taken again
                self.ended.append(transfer)
                self.drop(transfer)
            return
        if transfer.backlog and not transfer.is_queued:
            self._enqueue(transfer)
        in_flight = transfer.in_flight * (transfer.datagram_size + self.overhead)
        self._flight_bytes += in_flight - transfer.flight_bytes
        transfer.flight_bytes = in_flight
        self._set_timer(transfer, transfer.get_timer())

    def _enqueue(self, transfer: OutgoingTransfer) -> None:
        (self._small if transfer.backlog <= SMALL else self._large).append(transfer)
        transfer.is_queued = True

    def _set_timer(self, transfer: OutgoingTransfer, due: float) -> None:
        """One live entry per transfer, never later than its timer; `handle_timer` puts off what comes too early."""
        if due < transfer.timer_due:
            transfer.timer_due = due
            heapq.heappush(self._timers, (due, transfer.object_id))
