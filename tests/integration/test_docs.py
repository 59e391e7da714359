"""What the documentation tells people to type, typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from gateway_rig import free_port

DOCS = Path(__file__).parents[2] / "docs"


def test_two_minutes_on_one_machine(tmp_path):
    recipe = re.search(r"## Two minutes on one machine.*?```sh\n(.*?)```", (DOCS / "gateway.md").read_text(), re.DOTALL)[1]
    recipe = recipe.replace("51820", str(free_port()))  # another gateway may be here
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAPTOR_", "BOTOCORE_"))}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        ["bash", "-ec", recipe], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "sent reading.txt to s3://try-me/reading.txt" in done.stdout
    assert "{'Route': 'raptor'," in done.stdout
    assert "last puts (3 by raptor; 1 failed)" in done.stdout
    assert "peer me may not write s3://elsewhere/reading.txt" in done.stderr
    assert not (tmp_path / ".aws").exists()
