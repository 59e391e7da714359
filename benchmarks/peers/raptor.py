"""This project's own API (`net.engine.Engine`) against `raptor gateway`.

stored: a fresh process that finds the stored session of earlier ones. new: a fresh process that finds nothing, so that it needs a
handshake and knows neither loss nor rate: the first put on a new link. warm: one process that puts again and again.

A fresh process is a new interpreter that has imported the engine and made up a body, and nothing else: no engine, no socket, no
codec plan. What is timed is all that a program would wait for after its imports: reading the session store, a handshake's own
imports, encoding, sending, the confirmation.

    python -m benchmarks.peers.raptor URL DIRECTORY RUNTIME_DIR SIZE      one such process: a line in, a JSON line out
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from benchmarks.peers import BUCKET, Target, become_realtime, body_of
from benchmarks.peers.gateway import CLIENT_KEY_FILE, SERVER_PUBLIC_KEY_FILE
from raptor_s3.net.engine import Engine
from raptor_s3.net.settings import EndpointSettings
from raptor_s3.wireguard.keys import key_from_base64

TIMEOUT_S = 30.0


def settings_for(url: str, directory: Path, runtime_dir: Path) -> EndpointSettings:
    """The endpoint of the gateway that keeps its keys in `directory`."""
    return EndpointSettings(
        url=url,
        server_key=key_from_base64((directory / SERVER_PUBLIC_KEY_FILE).read_text()),
        client_key=key_from_base64((directory / CLIENT_KEY_FILE).read_text()),
        runtime_dir=runtime_dir,
    )


def put_fields(key: str, body: bytes) -> dict[str, Any]:
    """The put header of a plain `PutObject`; the engine adds the time to live."""
    checksum = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    return {"Bucket": BUCKET, "Key": key, "ChecksumCRC32": checksum}


class RaptorPeer:
    """One endpoint, three kinds of process."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._directory = Path(target.directory)
        self._runtime_dir = self._directory / "runtime"
        self._runtime_dir.mkdir(mode=0o700, exist_ok=True)

    def setup(self) -> None:
        """Nothing: a stored session comes from earlier puts."""

    def put(self, size_bytes: int) -> dict[str, float]:
        """One confirmed put."""
        if self._target.mode == "warm":
            return timed_put(settings_for(self._target.url, self._directory, self._runtime_dir), body_of(size_bytes))
        if self._target.mode == "stored":
            return self._in_new_process(size_bytes, self._runtime_dir)
        runtime_dir = Path(tempfile.mkdtemp(dir=self._directory))
        try:
            return self._in_new_process(size_bytes, runtime_dir)
        finally:
            shutil.rmtree(runtime_dir)

    def close(self) -> None:
        """The engine goes with the process."""

    def _in_new_process(self, size_bytes: int, runtime_dir: Path) -> dict[str, float]:
        """A put in a new process; its exceptions are raised here as RuntimeError."""
        command = [sys.executable, "-m", __name__, self._target.url, self._target.directory, str(runtime_dir), str(size_bytes)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            process.stdin.write(b"go\n")
            process.stdin.close()
            answer: dict[str, Any] = json.loads(process.stdout.readline() or b'{"error": "the process died"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def timed_put(settings: EndpointSettings, body: bytes) -> dict[str, float]:
    """Make the endpoint's engine if there is none yet, and put."""
    start, cpu_start = time.monotonic(), time.process_time()
    stats = Engine.for_endpoint(settings).put(put_fields(f"object-{len(body)}", body), body, timeout_s=TIMEOUT_S).stats
    return {
        "seconds": time.monotonic() - start,
        "cpu_ms": (time.process_time() - cpu_start) * 1000,
        "datagrams": stats.datagrams_sent,
        "resent": stats.resent,
        "timeouts": stats.timeouts,
        "handshakes": float(stats.handshake),
    }


def main() -> None:
    """The fresh process."""
    url, directory, runtime_dir, size = sys.argv[1:]
    body = body_of(int(size))
    settings = settings_for(url, Path(directory), Path(runtime_dir))
    print("ready", flush=True)
    sys.stdin.readline()
    become_realtime()
    try:
        answer: dict[str, Any] = timed_put(settings, body)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)


def create(target: Target) -> RaptorPeer:
    """Called by `benchmarks.peers.load`."""
    return RaptorPeer(target)


if __name__ == "__main__":
    main()
