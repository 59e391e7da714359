"""Help of the programs beside the package: asked for, it is all that happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("module", ["demo", "benchmarks.wireguard"])
@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--no-such-option", 2)])
def test_help_is_shown_and_nothing_run(module: str, option: str, code: int) -> None:
    pytest.importorskip("cryptography")
    command = [sys.executable, "-m", module, option]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code, result.stderr
    assert f"usage: python -m {module} [-h]" in result.stdout + result.stderr
    assert len((result.stdout + result.stderr).splitlines()) < 30
