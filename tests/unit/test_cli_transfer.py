"""`raptor send` over an engine of the tests' own: what is under way at once, and how long files may take."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from raptor_s3.cli import transfer, window
from raptor_s3.cli.aftermath import Aftermath
from raptor_s3.cli.destination import Bucket, Upload
from raptor_s3.cli.output import Output
from raptor_s3.cli.report import Report
from raptor_s3.cli.send import Sender
from raptor_s3.cli.transfer import Transfer
from raptor_s3.cli.window import Window
from raptor_s3.errors import ConfirmationTimeout, HandshakeTimeout, TransferCancelled
from raptor_s3.transfer.outcome import PutOutcome, TransferStats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MB = 1 << 20


class FakeEngine:
    """Ends puts as `answer(key, attempt)` says: None confirms them, an exception is their end."""

    def __init__(self, answer: Callable[[str, int], Exception | None] = lambda key, attempt: None) -> None:
        self.answer = answer
        self.puts: list[tuple[str, float]] = []
        self.is_deaf = False
        self.octets = self.most_octets = 0
        self._queue: list[tuple[Future[PutOutcome], Exception | None, int]] = []
        self._lock = threading.Lock()

    def submit(self, fields: dict[str, Any], body: bytes, *, timeout_s: float, confirm: str) -> Future[PutOutcome]:
        key = fields["Key"]
        attempt = sum(key == other for other, _ in self.puts)
        self.puts.append((key, timeout_s))
        if self.is_deaf:
            raise HandshakeTimeout("no such name")
        future: Future[PutOutcome] = Future()
        with self._lock:
            self._queue.append((future, self.answer(key, attempt), len(body)))
            self.octets += len(body)
            self.most_octets = max(self.most_octets, self.octets)
        threading.Timer(0.01, self._end_one).start()
        return future

    def _end_one(self) -> None:
        with self._lock:
            future, error, size = self._queue.pop(0)
            self.octets -= size
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(PutOutcome({}, TransferStats()))

    def timeouts(self) -> dict[str, float]:
        return dict(self.puts)


def send(engine: Any, folder: Path, sizes: Sequence[int], timeout_s: float = 5.0) -> list[dict[str, Any]]:
    """The lines of `--json`; the files are called 0000, 0001, ..."""
    uploads = []
    for number, size in enumerate(sizes):
        path = folder / f"{number:04}"
        path.write_bytes(bytes(size))
        uploads.append(Upload(path, path.name))
    stdout = io.StringIO()
    destination = Bucket("b", "")
    config: Any = SimpleNamespace(timeout_s=timeout_s, confirm="file")
    args: Any = SimpleNamespace(timeout=None, block_timeout=None, confirm=None, content_type=None, metadata=None)
    breaker: Any = SimpleNamespace(succeeded=lambda: None, ended=lambda reason, at: None)
    with Report(Output(stdout, stdout, is_json=True), destination, uploads) as report:
        aftermath = Aftermath(engine, destination, report, None, breaker)
        Transfer(Sender(engine, destination, config, args), report, aftermath).run(uploads)
    return [json.loads(line) for line in stdout.getvalue().splitlines()]


# How much is under way, and for how long


def test_a_file_alone_has_the_timeout_and_its_own_8_s_per_mb(tmp_path: Path) -> None:
    engine = FakeEngine()
    send(engine, tmp_path, [1_000_000])
    assert engine.puts == [("0000", 13.0)]


def test_a_file_may_wait_for_all_that_is_under_way_before_it(tmp_path: Path) -> None:
    engine = FakeEngine()
    send(engine, tmp_path, [200_000] * 3)
    assert engine.timeouts() == pytest.approx({"0000": 6.6, "0001": 8.2, "0002": 9.8})


def test_a_larger_file_may_also_wait_for_small_ones_that_come_later(tmp_path: Path) -> None:
    engine = FakeEngine()
    send(engine, tmp_path, [100_000, *[20_000] * 10, 100_000])
    assert engine.timeouts()["0000"] == pytest.approx(5.8 + 200_000 * 8 / 1e6)


def test_many_small_files_are_in_flight() -> None:
    many = Window(1 << 30)
    while many.has_room(1000):
        many.enter(len(many), 1000)
    assert len(many) == 256


def test_no_more_is_under_way_than_a_window_and_a_file(tmp_path: Path) -> None:
    engine = FakeEngine()
    lines = send(engine, tmp_path, [MB] * 30)
    assert engine.most_octets <= window.WINDOW_BYTES + MB
    assert lines[-1]["summary"]["sent"] == 30
    assert max(timeout_s for _, timeout_s in engine.puts) < 5 + (window.WINDOW_BYTES + MB) * 8e-6 + 0.1


def test_the_window_opens_when_something_has_come_of_a_file() -> None:
    full = Window(0)
    assert full.enter(0, window.FIRST_WINDOW_BYTES) == 0
    assert not full.has_room(MB)
    full.open()
    assert full.has_room(MB)


def test_small_files_overtake_a_larger_one_only_as_far_as_it_was_given_time_for() -> None:
    busy = Window(1 << 30)
    busy.open()
    seconds = busy.enter(0, 100_000)
    overtaking = number = 0
    while busy.has_room(20_000):
        number += 1
        busy.enter(number, 20_000)
        busy.leave(number)  # each is sent before the first
        overtaking += 20_000
    assert overtaking * 8 / window.SLOW_LINK_BPS <= seconds
    assert overtaking > window.WINDOW_BYTES - 20_000
    assert busy.has_room(100_000)  # it comes after the first
    busy.leave(0)
    assert busy.has_room(20_000)


def test_a_file_of_any_size_has_room_when_it_is_the_only_one() -> None:
    assert Window(0).has_room(64 * MB)


# Where nobody shakes hands


@pytest.fixture
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(transfer, "LONGEST_PAUSE_S", 0.04)


@pytest.mark.usefixtures("_short_pauses")
def test_a_file_that_met_nobody_is_submitted_again(tmp_path: Path) -> None:
    def blip(key: str, attempt: int) -> Exception | None:
        return HandshakeTimeout("refused") if key != "0000" and attempt < 3 else None

    engine = FakeEngine(blip)
    lines = send(engine, tmp_path, [1000] * 20)
    assert lines[-1]["summary"]["sent"] == 20
    assert sorted(key for key, _ in engine.puts) == sorted(["0000", *[f"{number:04}" for number in range(1, 20)] * 4])


@pytest.mark.usefixtures("_short_pauses")
def test_what_may_have_been_sent_is_not_submitted_again(tmp_path: Path) -> None:
    engine = FakeEngine(lambda key, attempt: ConfirmationTimeout("silence") if key == "0001" else None)
    lines = send(engine, tmp_path, [1000] * 3)
    assert (lines[-1]["summary"]["sent"], lines[-1]["summary"]["failed"]) == (2, 1)
    assert len(engine.puts) == 3


@pytest.mark.usefixtures("_short_pauses")
def test_what_was_given_up_with_nothing_written_is_submitted_once_more(tmp_path: Path) -> None:
    def outage(key: str, attempt: int) -> Exception | None:
        return TransferCancelled("nothing was written") if key == "0002" or (key, attempt) == ("0001", 0) else None

    engine = FakeEngine(outage)
    lines = send(engine, tmp_path, [1000] * 3)
    assert {line["file"][-4:]: line["ok"] for line in lines[:-1]} == {"0000": True, "0001": True, "0002": False}
    assert len(engine.puts) == 5


@pytest.mark.usefixtures("_short_pauses")
def test_patience_with_an_outage_ends(tmp_path: Path) -> None:
    engine = FakeEngine(lambda key, attempt: HandshakeTimeout("refused") if key > "0001" else None)
    lines = send(engine, tmp_path, [1000] * 4, timeout_s=0.5)
    assert [line["ok"] for line in sorted(lines[:-1], key=lambda line: line["file"])] == [True, True, False, False]
    assert all("refused. Is UDP to the endpoint open" in line["error"] for line in lines[:-1] if not line["ok"])
    assert sum(key == "0003" for key, _ in engine.puts) > 2


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("is_deaf", [False, True], ids=["no handshake", "no address"])
def test_where_nobody_was_ever_heard_the_rest_is_not_tried(tmp_path: Path, is_deaf: bool) -> None:
    engine = FakeEngine(lambda key, attempt: HandshakeTimeout("refused"))
    engine.is_deaf = is_deaf
    lines = send(engine, tmp_path, [100_000] * 100, timeout_s=0.3)
    assert lines[-1]["summary"]["failed"] == 100
    assert len({line["file"] for line in lines[:-1]}) == 100
    assert len({key for key, _ in engine.puts}) < 10
    assert len(engine.puts) > 10
