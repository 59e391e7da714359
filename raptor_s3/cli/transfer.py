"""The files of one `raptor send`, many at once: read, submitted, submitted again where nobody shook hands, settled.

Invariants: every upload is told once to the report; only one of which nothing can have been written is submitted again.
"""

from __future__ import annotations

import functools
import heapq
import queue
import sys
import time
from typing import TYPE_CHECKING, Final

from raptor_s3.cli.aftermath import Departure
from raptor_s3.cli.window import Window, small
from raptor_s3.errors import ConfigError, HandshakeTimeout, RaptorError, TransferCancelled, TransferRejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from raptor_s3.cli.aftermath import Aftermath
    from raptor_s3.cli.destination import Upload
    from raptor_s3.cli.report import Report
    from raptor_s3.cli.send import Sender
    from raptor_s3.net.engine import PutOutcome

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 2.0
"""Between a failed handshake and the next try: doubled each time."""


class _Flight:
    """A file between its first submission and its end. Times are time.perf_counter()'s."""

    def __init__(self, number: int, sent: Departure, body: bytes) -> None:
        self.number = number
        self.sent = sent
        self.body = body
        self.tried_at = sent.began
        self.pause_s = 0.0
        self.refused_from = self.refused_at = float("-inf")
        """The first and the last of its failed handshakes in a row."""
        self.was_cancelled = False


class Transfer:
    """Sends and settles. Files that can't be read or sent count as failed."""

    def __init__(self, sender: Sender, report: Report, aftermath: Aftermath) -> None:
        self._sender = sender
        self._report = report
        self._aftermath = aftermath
        self._done: queue.SimpleQueue[tuple[_Flight, Future[PutOutcome], float]] = queue.SimpleQueue()
        self._repeats: list[tuple[float, int, _Flight]] = []
        self._window = Window(0)
        self._heard_at = float("-inf")
        self._nobody: HandshakeTimeout | None = None
        """A file's patience ran out, and nobody has ever answered: the rest need not be tried."""

    def run(self, uploads: Sequence[Upload]) -> None:
        window = self._window = Window(sum(map(_small_bytes, uploads)))
        for number, upload in enumerate(uploads):
            try:
                body = b"" if self._nobody else _read(upload)
            except OSError as error:
                self._report.fail(upload, 0, f"can't be read: {error.strerror}")
                continue
            while self._nobody is None and not window.has_room(len(body)):
                self._turn()
            if self._nobody is not None:
                self._report.fail(upload, len(body), self._aftermath.explain(self._nobody))
                continue
            wait_s = window.enter(number, len(body))
            sent = Departure(upload, len(body), time.time(), time.perf_counter())
            self._submit(_Flight(number, sent, body), wait_s)
        while window:
            self._turn()

    def _turn(self) -> None:
        """Wait for the end of a put, or until one is to be tried again."""
        timeout_s = max(self._repeats[0][0] - time.perf_counter(), 0) if self._repeats else None
        try:
            flight, future, ended_at = self._done.get(timeout=timeout_s)
        except queue.Empty:
            flight = heapq.heappop(self._repeats)[2]
            flight.tried_at = time.perf_counter()
            self._submit(flight, self._window.wait_again(flight.number))
        else:
            self._settle(flight, future, ended_at)

    def _submit(self, flight: _Flight, wait_s: float) -> None:
        try:
            future = self._sender.submit(flight.sent.upload, flight.body, wait_s)
        except ConfigError:
            raise
        except HandshakeTimeout as error:
            self._refuse(flight, error, time.perf_counter())
        except (RaptorError, ValueError) as error:
            self._fail(flight, error, time.perf_counter())
        else:
            future.add_done_callback(functools.partial(_enqueue, self._done, flight))

    def _settle(self, flight: _Flight, future: Future[PutOutcome], ended_at: float) -> None:
        try:
            outcome = future.result()
        except HandshakeTimeout as error:
            self._refuse(flight, error, ended_at)
        except RaptorError as error:
            if isinstance(error, TransferRejected | TransferCancelled):
                self._hear(ended_at)
            self._window.open()
            if isinstance(error, TransferCancelled) and not flight.was_cancelled:  # nothing was written: an outage in the middle
                flight.was_cancelled = True
                heapq.heappush(self._repeats, (ended_at + FIRST_PAUSE_S, flight.number, flight))
                return
            self._fail(flight, error, ended_at)
        else:
            self._hear(ended_at)
            self._window.open()
            self._window.leave(flight.number)
            self._aftermath.succeed(flight.sent, outcome, is_confirmed=self._sender.confirm != "none")

    def _hear(self, now: float) -> None:
        self._heard_at = max(self._heard_at, now)
        self._nobody = None

    def _refuse(self, flight: _Flight, error: HandshakeTimeout, now: float) -> None:
        """There was no handshake, and nothing has been sent: try again later, while there is patience.

        A file's own from the first failure in a row on; where nobody has ever answered, `timeout` from the beginning on.
        """
        is_heard = self._heard_at > float("-inf")
        if self._heard_at >= flight.refused_at:
            flight.refused_from, flight.pause_s = now, 0.0
        flight.refused_at = now
        flight.pause_s = min(2 * flight.pause_s or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        again_at = now + flight.pause_s
        if is_heard:
            is_patient = again_at <= flight.refused_from + self._sender.patience_s(len(flight.body))
        else:
            ends_at = again_at + now - flight.tried_at  # if it goes as it went
            is_patient = self._nobody is None and ends_at <= flight.sent.began + self._sender.patience_s(0)
        if is_patient:
            heapq.heappush(self._repeats, (again_at, flight.number, flight))
            return
        self._fail(flight, error, now)
        if not is_heard:
            self._nobody = error
            repeats, self._repeats = self._repeats, []
            for _, _, other in repeats:
                self._fail(other, error, now)

    def _fail(self, flight: _Flight, error: RaptorError | ValueError, now: float) -> None:
        self._window.leave(flight.number)
        self._aftermath.fail(flight.sent, error, now - flight.sent.began)


def _enqueue(
    done: queue.SimpleQueue[tuple[_Flight, Future[PutOutcome], float]], flight: _Flight, future: Future[PutOutcome]
) -> None:
    done.put((flight, future, time.perf_counter()))


def _read(upload: Upload) -> bytes:
    return sys.stdin.buffer.read() if upload.path is None else upload.path.read_bytes()


def _small_bytes(upload: Upload) -> int:
    try:
        return small(upload.path.stat().st_size) if upload.path is not None else 0
    except OSError:
        return 0
