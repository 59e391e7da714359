"""Attacks on the command: what a daemon, cron or a closed terminal does to it."""

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell's redirection")
def test_configure_without_a_standard_input_ends_with_a_sentence(tmp_path):
    command = f"exec {sys.executable} -m raptor_s3.cli.main configure <&-"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "AWS_CONFIG_FILE": str(tmp_path / "config")}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1, 2)
