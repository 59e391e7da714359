"""What is left of finished transfers: the final state, for whoever asks again, so that late symbols revive nothing.

Each peer has first-in-first-out rows of its own, one for each of a few keep times. A peer may have as many tombstones and
transfers as there are free places: one alone gets half of all, and whatever others do, some places are left for the next.

Invariant: a tombstone goes early only for another one of its own peer, and only when the put's own time to live has passed:
its sender sends no more by then.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.wire.transfer_state import build_transfer_state, parse_transfer_state

if TYPE_CHECKING:
    from raptor_s3.codec import ObjectTransmissionInformation
    from raptor_s3.transfer.events import TransferKey
    from raptor_s3.wire.transfer_state import TransferState

SWEEP_S: Final = 1.0
"""At least so long between two looks for tombstones that have had their time."""
_NEVER: Final = float("inf")


class Tombstone:
    """One final state. `state` is None where the sender would take it for something else; `oti` is a path's."""

    __slots__ = ("answered_at", "answers", "due", "key", "oti", "payload", "repeat_to", "spent_at")

    def __init__(
        self,
        key: TransferKey,
        state: TransferState | None,
        oti: ObjectTransmissionInformation | None,
        now: float,
        due: float,
        spent_at: float,
    ) -> None:
        self.key = key
        self.payload = b"" if state is None else build_transfer_state(state)  # a fraction of the state's own memory
        self.oti = oti
        self.answered_at = now
        self.answers = 0
        self.repeat_to: Any = None  # the origin that gets the answer once more, shortly
        self.due = due
        self.spent_at = spent_at

    @property
    def state(self) -> TransferState | None:
        return parse_transfer_state(self.payload) if self.payload else None


class Graves:
    """One peer's tombstones, by keep time, the oldest first. Some may have been replaced."""

    __slots__ = ("count", "rows")

    def __init__(self) -> None:
        self.rows: dict[float, deque[Tombstone]] = {}
        self.count = 0


class Tombstones:
    """All tombstones of a Collector. `base_keep_s` is the usual keep time: longer ones are rounded up to a few."""

    def __init__(self, base_keep_s: float) -> None:
        self._base_keep_s = base_keep_s
        self._by_key: dict[TransferKey, Tombstone] = {}
        self._graves: dict[bytes, Graves] = {}
        self.count = 0
        self._sweep_at = _NEVER
        self.get = self._by_key.get

    def of(self, peer_key: bytes) -> int:
        """How many a peer has."""
        graves = self._graves.get(peer_key)
        return graves.count if graves else 0

    def add(
        self,
        key: TransferKey,
        state: TransferState | None,
        oti: ObjectTransmissionInformation | None,
        now: float,
        keep_s: float,
        spent_at: float,
    ) -> Tombstone:
        """`spent_at`: when the transfer's time to live has passed, so that this one may be given up for another."""
        row_s = keep_s
        if keep_s > self._base_keep_s:
            row_s = self._base_keep_s
            while row_s < keep_s:
                row_s *= 2
        tombstone = self._by_key[key] = Tombstone(key, state, oti, now, now + row_s, spent_at)
        graves = self._graves.get(key.peer_key)
        if graves is None:
            graves = self._graves[key.peer_key] = Graves()
        row = graves.rows.get(row_s)
        if row is None:
            row = graves.rows[row_s] = deque()
        row.append(tombstone)
        graves.count += 1
        self.count += 1
        if tombstone.due < self._sweep_at:
            self._sweep_at = tombstone.due
        return tombstone

    def make_place(self, peer_key: bytes, now: float) -> bool:
        """Give up a tombstone of this peer that has served its purpose. False if there is none."""
        graves = self._graves.get(peer_key)
        if graves is None:
            return False
        for row in graves.rows.values():
            if row and row[0].spent_at <= now:
                self._drop(graves, row)
                return True
        return False

    def get_timer(self) -> float:
        return self._sweep_at

    def sweep(self, now: float) -> None:
        """Forget the tombstones that have had their time."""
        if now < self._sweep_at:
            return
        next_due = _NEVER
        for peer_key, graves in list(self._graves.items()):
            for row in graves.rows.values():
                while row and row[0].due <= now:
                    self._drop(graves, row)
                if row and row[0].due < next_due:
                    next_due = row[0].due
            if not graves.count:
                del self._graves[peer_key]
        self._sweep_at = max(next_due, now + SWEEP_S) if next_due < _NEVER else _NEVER

    def _drop(self, graves: Graves, row: deque[Tombstone]) -> None:
        tombstone = row.popleft()
        graves.count -= 1
        self.count -= 1
        if self._by_key.get(tombstone.key) is tombstone:
            del self._by_key[tombstone.key]
