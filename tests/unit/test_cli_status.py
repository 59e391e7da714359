"""`raptor status`: what it says of the endpoint, and of each put."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest

from raptor_s3.cli.main import main
from raptor_s3.cli.profile import load_profile
from raptor_s3.cli.status import gather
from raptor_s3.cli.status_text import lines, row
from raptor_s3.routing.breaker import Breaker
from raptor_s3.routing.endpoint import LearnedRecord, breaker_for, directory_for, journal_for
from raptor_s3.routing.journal import PutRecord
from raptor_s3.transfer.loss import PRIOR_LOSS

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("AWS_", "RAPTOR_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAPTOR_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def configure(home: Path) -> None:
    assert main(["keygen"]) == 0
    (home / ".aws" / "config").write_text(
        f"[default]\nraptor =\n    endpoint = wg://127.0.0.1:9\n    server_key = {KEY}\n    client_key_file = ~/.aws/raptor.key\n"
    )


def record_puts(home: Path) -> None:
    config, _ = load_profile(None)
    journal = journal_for(config)
    assert journal is not None
    for number in range(3):
        journal.record(
            PutRecord(
                time.time(),
                "b",
                f"k{number}",
                size_bytes=1024,
                route="raptor",
                status=200,
                etag='"e"',
                elapsed_s=0.04,
                rtt_s=0.04,
            )
        )
    journal.record(
        PutRecord(
            time.time(), "b", "big\x1b[2J", size_bytes=3 << 20, route="https", reason="body 3 MB > threshold 256 KB", status=200
        )
    )
    journal.flush()


def test_status_says_where_the_puts_went_and_why(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(home)
    record_puts(home)
    capsys.readouterr()
    assert main(["status", "--last", "2"]) == 0
    text = capsys.readouterr().out
    assert "last puts (3 by raptor, 1 by https), of all profiles and endpoints:" in text
    assert "s3://b/k2" in text
    assert "s3://b/k1" not in text
    assert "body 3 MB > threshold 256 KB" in text
    assert "\x1b" not in text


def test_status_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(home)
    record_puts(home)
    capsys.readouterr()
    assert main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["routes"] == {"raptor": 3, "https": 1}
    assert status["https_reasons"] == {"body ... > threshold ...": 1}
    assert [put["key"] for put in status["puts"]] == ["k0", "k1", "k2", "big\x1b[2J"]


def test_an_open_breaker_is_shown_and_is_exit_code_1(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(home)
    config, _ = load_profile(None)
    breaker_for(config).failed("no handshake: nobody answered", time.time())
    assert main(["status"]) == 1
    assert "no handshake: nobody answered" in capsys.readouterr().out


def test_the_panel_shows_the_same_and_no_control_characters(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from raptor_s3.cli.status_panel import draw

    configure(home)
    record_puts(home)
    config, profile = load_profile(None)
    console = Console(file=io.StringIO(), width=120, record=True, force_terminal=False)
    draw(gather(config, profile, last=10, now=time.time()), console, now=time.time())
    text = console.export_text()
    assert "wg://127.0.0.1:9" in text
    assert "last puts: 3 by raptor, 1 by https, of all profiles and endpoints" in text
    assert "1 x HTTPS: body ... > threshold ..." in text
    assert "\\x1b" in text
    assert "\x1b" not in text


def test_the_setting_https_is_said_and_hides_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from raptor_s3.cli.status_panel import draw

    configure(home)
    record_puts(home)
    capsys.readouterr()
    monkeypatch.setenv("RAPTOR_TRANSPORT", "https")
    assert main(["status"]) == 0
    text = capsys.readouterr().out
    assert "transport:   https: puts of boto3 and the AWS CLI don't take the fast path, and are not listed\n" in text
    assert "session:     none: the next put shakes hands first\n" in text
    assert "breaker:     closed\n" in text
    assert "s3://b/k2" in text
    config, profile = load_profile(None)
    breaker_for(config).failed("nobody answered", time.time())
    assert fact("breaker", now=time.time() + 3600) == "Failed 60 min ago: nobody answered"
    console = Console(file=io.StringIO(), width=120, record=True, force_terminal=False)
    draw(gather(config, profile, last=10, now=time.time()), console, now=time.time())
    assert "raptor: switched off" in console.export_text()


def test_a_runtime_directory_that_others_can_read_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(home)
    (home / "run").mkdir(mode=0o755)
    (home / "run").chmod(0o755)
    assert main(["status"]) == 2
    assert "0700" in capsys.readouterr().err


def fact(label: str, *, now: float | None = None) -> str:
    config, profile = load_profile(None)
    moment = time.time() if now is None else now
    text = lines(gather(config, profile, last=10, now=moment), now=moment)
    return next(line for line in text if line.startswith(label)).partition(":")[2].strip()


@pytest.mark.parametrize(
    ("loss", "sent", "lost", "expected"),
    [
        (None, 0, 0, "not measured yet"),
        (PRIOR_LOSS, 0, 0, "not measured yet"),
        (PRIOR_LOSS, 7, 0, "none seen in 7 datagrams of the last puts"),
        (PRIOR_LOSS * 0.8, 25, 0, "none seen in 25 datagrams of the last puts"),
        (0.0098, 7, 2, "1.0%"),
        (0.0098, 2000, 0, "1.0%"),
        (0.05, 0, 0, "5.0%"),
        (0.0005, 0, 0, "0.1%"),
    ],
)
def test_loss_is_shown_where_it_was_measured(home: Path, loss: float | None, sent: int, lost: int, expected: str) -> None:
    configure(home)
    config, _ = load_profile(None)
    if loss is not None:
        record = LearnedRecord(config, directory_for(config))
        record._store.update_learned(record.endpoint, {"path": {"srtt_s": 0.1, "loss": loss}})
    journal = journal_for(config)
    assert journal is not None
    journal.record(PutRecord(time.time(), "b", "k", route="raptor", status=200, datagrams=sent, lost=lost))
    assert fact("loss") == expected


def test_the_breaker_from_failure_to_success(home: Path) -> None:
    configure(home)
    config, _ = load_profile(None)
    now = time.time()
    breaker = Breaker(LearnedRecord(config, directory_for(config)), clock=lambda: now)
    assert fact("breaker", now=now) == "closed: puts take the fast path"
    breaker.failed("no handshake: nobody there", now)
    assert fact("breaker", now=now + 2) == "open, HTTPS for 8 s more. Failed 2 s ago: no handshake: nobody there"
    half_open = "the next put tries the fast path again. Failed"
    assert fact("breaker", now=now + 3600) == f"{half_open} 60 min ago: no handshake: nobody there"
    now += 11
    assert breaker.admit(5) == ""
    assert fact("breaker", now=now) == ("one put is trying again, the others use HTTPS; before that: no handshake: nobody there")
    assert fact("breaker", now=now + 60) == f"{half_open}: no handshake: nobody there"
    breaker.succeeded()
    assert fact("breaker", now=now) == "closed: puts take the fast path"


REFUSAL = "AccessDenied (403): gateway: peer me may not write s3://b/k"


@pytest.mark.parametrize(
    ("put", "time_and_why"),
    [
        ({"route": "raptor", "status": 200, "elapsed_s": 0.04}, ("40.0 ms", "")),
        ({"route": "raptor", "status": 200, "elapsed_s": 0.04, "handshake": True, "datagrams": 9, "lost": 1},
         ("40.0 ms", "after a handshake, 1 of 9 datagrams lost")),
        ({"route": "raptor", "error": "ConfirmationTimeout", "reason": "no final state within 5 s", "elapsed_s": 5.0},
         ("5.0 s", "ConfirmationTimeout: no final state within 5 s")),
        ({"route": "raptor", "error": "AccessDenied", "status": 403, "reason": REFUSAL, "elapsed_s": 0.04}, ("40.0 ms", REFUSAL)),
        ({"route": "https", "error": "NoCredentialsError", "reason": f"refused: {REFUSAL}", "elapsed_s": 0.04},
         ("40.0 ms", f"NoCredentialsError: refused: {REFUSAL}")),
        ({"route": "raptor", "error": "PreconditionFailed", "status": 412, "elapsed_s": 0.04}, ("40.0 ms", "PreconditionFailed")),
        ({"route": "https", "status": 200, "reason": "body 3 MB > threshold 256 KB"}, ("", "body 3 MB > threshold 256 KB")),
    ],
)  # fmt: skip
def test_a_line_for_each_put(put: dict[str, object], time_and_why: tuple[str, str]) -> None:
    assert row(PutRecord(1000.0, "b", "k", **put), 1001.0)[-2:] == time_and_why


def test_without_a_runtime_directory_it_is_said_that_nothing_is_known(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(home)
    monkeypatch.setenv("RAPTOR_RUNTIME_DIR", "/proc/nowhere")
    assert "no runtime directory can be made" in fact("session")


def test_failures_are_counted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(home)
    record_puts(home)
    config, _ = load_profile(None)
    journal = journal_for(config)
    assert journal is not None
    journal.record(PutRecord(time.time(), "b", "k", route="raptor", error="ConfirmationTimeout"))
    journal.flush()
    assert main(["status"]) == 0
    assert "last puts (4 by raptor, 1 by https; 1 failed), of all profiles and endpoints:" in capsys.readouterr().out
