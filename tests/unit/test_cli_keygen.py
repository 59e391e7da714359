"""`raptor keygen`: real files, real keys."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import nacl.bindings
import pytest

from raptor_s3.cli.main import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_new_key_is_private_and_its_public_key_is_printed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen"]) == 0
    path = home / ".aws" / "raptor.key"
    private = base64.b64decode(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    out, err = capsys.readouterr()
    assert base64.b64decode(out) == nacl.bindings.crypto_scalarmult_base(private)
    assert path.read_text().strip() not in out + err


def test_the_mode_does_not_depend_on_the_umask(home: Path) -> None:
    script = "import os; os.umask(0); from raptor_s3.cli.main import main; main(['keygen', 'k'])"
    subprocess.run([sys.executable, "-c", script], cwd=home, check=True, capture_output=True)
    assert stat.S_IMODE((home / "k").stat().st_mode) == 0o600


def test_an_existing_file_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "precious"
    path.write_text("precious")
    assert main(["keygen", str(path)]) == 2
    assert path.read_text() == "precious"
    assert "keygen" in capsys.readouterr().err


def test_a_dangling_link_is_not_followed(home: Path) -> None:
    (home / "key").symlink_to(home / "elsewhere")
    assert main(["keygen", str(home / "key")]) == 2
    assert not (home / "elsewhere").exists()


def test_the_public_key_of_an_existing_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["keygen", str(home / "key")])
    public = capsys.readouterr().out.strip()
    assert main(["keygen", str(home / "key"), "--public", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(home / "key"), "public_key": public}


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_key_file_that_others_can_read_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["keygen", str(home / "key")])
    (home / "key").chmod(0o640)
    assert main(["keygen", str(home / "key"), "--public"]) == 2
    assert "chmod 600" in capsys.readouterr().err


def test_a_file_without_a_key_is_no_crash_and_not_quoted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "key").write_text("hunter2")
    (home / "key").chmod(0o600)
    assert main(["keygen", str(home / "key"), "--public"]) == 2
    out, err = capsys.readouterr()
    assert "hunter2" not in out + err


def test_a_folder_that_can_not_be_written_is_a_clear_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "file").write_text("")
    assert main(["keygen", str(home / "file" / "key")]) == 2
    assert "can't write" in capsys.readouterr().err
