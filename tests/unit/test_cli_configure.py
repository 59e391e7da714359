"""`raptor configure` without a gateway: what it asks, checks and writes. The real handshake is in tests/integration."""

from __future__ import annotations

import base64
import os
import pty
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raptor_s3.cli import aws_cli
from raptor_s3.cli.aws_cli import plugin_lines
from raptor_s3.cli.main import main
from raptor_s3.routing.config import RaptorConfig
from raptor_s3.routing.profile import read_profile

SERVER_KEY = base64.b64encode(bytes(range(32))).decode()
BEFORE = "# mine\n[profile edge]\nregion = us-west-2\nraptor =\n    # why 1MB\n    threshold = 1MB\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("AWS_", "RAPTOR_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path


def configured(profile: str) -> RaptorConfig:
    found = read_profile(name=profile)
    return RaptorConfig.load(found.scoped_config, source=found.source)


def test_options_alone_write_a_valid_profile_and_make_the_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".aws/config").write_text(BEFORE)
    arguments = [
        "wg://gw.example.com:51820",
        "--server-key",
        SERVER_KEY,
        "--buckets",
        "a-*,b",
        "--skip-test",
        "--profile",
        "edge",
    ]
    assert main(["configure", *arguments]) == 0
    config = configured("edge")
    assert config.endpoint == "wg://gw.example.com:51820"
    assert config.server_key == bytes(range(32))
    assert config.buckets == ("a-*", "b")
    assert config.threshold_bytes == 1 << 20
    assert config.client_key is not None
    text = (home / ".aws/config").read_text()
    assert [line for line in BEFORE.splitlines() if line not in text.splitlines()] == []
    assert stat.S_IMODE((home / ".aws/config").stat().st_mode) == 0o600
    assert base64.b64encode(config.client_key).decode() not in text + "".join(capsys.readouterr())


def test_a_second_run_changes_only_what_it_is_told(home: Path) -> None:
    main(["configure", "wg://gw.example.com:51820", "--server-key", SERVER_KEY, "--buckets", "b", "--skip-test"])
    before = configured("default")
    assert main(["configure", "--threshold", "auto", "--skip-test"]) == 0
    after = configured("default")
    assert after.threshold_bytes is None
    assert (after.endpoint, after.client_key, after.buckets) == (before.endpoint, before.client_key, before.buckets)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "URL is missing"),
        (["http://gw:1", "--server-key", SERVER_KEY], "wg://host:port"),
        (["wg://gw:1"], "--server-key is missing"),
        (["wg://gw:1", "--server-key", "short"], "raptor: --server-key: expected a WireGuard key"),
        (["wg://gw:99999", "--server-key", SERVER_KEY], "raptor: URL: expected a port from 1 to 65535, got 'wg://gw:99999'"),
        (["wg://gw:1", "--server-key", SERVER_KEY, "--threshold", "lots"], "raptor: --threshold: expected a size"),
        (["wg://gw:1", "--server-key", SERVER_KEY, "--buckets", "a\nregion = x"], "one line"),
        (["udp://gw:1"], "--allow-plaintext"),
    ],
)
def test_bad_settings_are_named_and_nothing_is_written(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(["configure", *arguments, "--skip-test"]) == 2
    assert complaint in capsys.readouterr().err
    assert not (home / ".aws/config").exists()


def test_a_failed_test_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configure", "wg://127.0.0.1:1", "--server-key", SERVER_KEY]) == 1
    assert not (home / ".aws/config").exists()
    error = capsys.readouterr().err
    assert "is the port in the URL right?" in error
    assert "nothing was written. To write the settings before the gateway's operator has let this device in: --skip-test" in error
    assert "raptor ping" not in error  # which would find no settings


def test_a_key_file_is_found_from_every_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    arguments = ["configure", "wg://gw:1", "--server-key", SERVER_KEY, "--skip-test", "--client-key-file"]
    assert main([*arguments, "device.key"]) == 0
    monkeypatch.chdir("/")
    assert configured("default").client_key_file == home / "device.key"
    assert main([*arguments, "~/device.key"]) == 0
    assert "client_key_file = ~/device.key\n" in (home / ".aws/config").read_text()


def test_a_key_file_that_can_not_be_used_is_the_options_fault(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "open.key").write_text(f"{SERVER_KEY}\n")
    (home / "open.key").chmod(0o644)
    arguments = ["--server-key", SERVER_KEY, "--skip-test", "--client-key-file", str(home / "open.key")]
    assert main(["configure", "wg://gw:1", *arguments]) == 2
    assert f"raptor: --client-key-file: key file {home}/open.key can be read by others" in capsys.readouterr().err


def test_the_questions_on_a_terminal(home: Path) -> None:
    answers = ["gw:1", "wg://gw.example.com:51820", SERVER_KEY, "", "y", "", "telemetry-*", ""]
    transcript, code = on_a_terminal(["configure", "--skip-test"], answers, home)
    assert code == 0, transcript
    assert "expected wg://host:port" in transcript  # the first answer, asked again
    config = configured("default")
    assert config.endpoint == "wg://gw.example.com:51820"
    assert config.buckets == ("telemetry-*",)
    assert config.client_key_file == home / ".aws/raptor.key"


def test_a_wrong_answer_is_asked_for_again(home: Path) -> None:
    (home / "no.key").touch(0o600)
    answers = ["wg://gw.example.com:51820", SERVER_KEY, "~/no.key", "", "y", "", "a-*", "lots", "1MB"]
    transcript, code = on_a_terminal(["configure", "--skip-test"], answers, home)
    assert code == 0, transcript
    assert "no.key does not hold a WireGuard key" in transcript
    assert "expected a size such as 256KB, got 'lots'" in transcript
    assert configured("default").threshold_bytes == 1 << 20


def test_the_plugin_line_stands_before_the_path_of_v2() -> None:
    text = plugin_lines("[plugins]\ncli_legacy_plugin_path = /other\n[default]\nregion = x\n")
    lines = text.splitlines()
    assert lines[:2] == ["[plugins]", "raptor = raptor_s3.awscli_plugin"]
    assert lines[2].startswith(f"cli_legacy_plugin_path = /other{os.pathsep}")
    assert plugin_lines(text) == text


def program(home: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An `aws` on the PATH, and nothing else."""
    path = home / "bin" / "aws"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")


ANSWER = "echo 'aws raptor: name one of: configure' >&2"
CONFIGURE = ["configure", "wg://gw:1", "--server-key", SERVER_KEY, "--skip-test", "--aws-cli"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (ANSWER, ["raptor = raptor_s3.awscli_plugin"]),
        (f'grep -q legacy "$AWS_CONFIG_FILE" && {ANSWER}', ["raptor = raptor_s3.awscli_plugin", "cli_legacy_plugin_path = "]),
    ],
    ids=["v1", "v2"],
)
def test_the_aws_cli_gets_the_lines_that_it_needs(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: list[str]
) -> None:
    program(home, monkeypatch, script)
    assert main(CONFIGURE) == 0
    plugins = (home / ".aws/config").read_text().partition("[plugins]\n")[2].splitlines()
    assert len(plugins) == len(expected)
    assert all(line.startswith(start) for line, start in zip(plugins, expected, strict=True))


def test_an_aws_cli_that_can_not_load_us_stays_as_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(home, monkeypatch, "echo No module named raptor_s3 >&2; exit 255")
    assert main(CONFIGURE) == 1
    assert "can't import raptor_s3" in capsys.readouterr().err
    assert configured("default").endpoint == "wg://gw:1"
    assert "[plugins]" not in (home / ".aws/config").read_text()


def test_without_an_aws_cli_nothing_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aws_cli.shutil, "which", lambda name: None)
    assert main(CONFIGURE) == 2
    assert "no `aws` on the PATH" in capsys.readouterr().err
    assert not (home / ".aws/config").exists()


def on_a_terminal(arguments: list[str], answers: list[str], home: Path) -> tuple[str, int]:
    """Run `raptor` on a pseudo-terminal, an answer to each prompt."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "HOME": str(home), "PATH": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "raptor_s3.cli.main", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
    )
    os.close(terminal)
    transcript = b""
    rest = list(answers)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            chunk = os.read(controller, 4096)
        except OSError:  # EIO: the other end is closed
            break
        if not chunk:
            break
        transcript += chunk
        if rest and transcript.rstrip(b"\r\n").endswith((b": ", b"] ")):
            os.write(controller, rest.pop(0).encode() + b"\n")
    os.close(controller)
    return transcript.decode(errors="replace"), process.wait(timeout=30)
