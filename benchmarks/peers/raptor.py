"""This project's own API (`net.engine.Engine`) against `raptor gateway`.

stored: a fresh process that finds the stored session of earlier ones. new: a fresh process that finds nothing, so that it needs a
handshake and knows neither loss nor rate: the first put on a new link. warm: one process that puts again and again.

A fresh process is a fork of a worker that has only imported the modules: no engine, no socket, no codec plan. What is timed is
all that a program would wait for after its imports: reading the session store, encoding, sending, the confirmation.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from benchmarks.peers import BUCKET, Target, body_of
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
        body = body_of(size_bytes)
        if self._target.mode == "warm":
            return self._timed(body, self._runtime_dir)
        if self._target.mode == "stored":
            return self._in_fork(body, self._runtime_dir)
        runtime_dir = Path(tempfile.mkdtemp(dir=self._directory))
        try:
            return self._in_fork(body, runtime_dir)
        finally:
            shutil.rmtree(runtime_dir)

    def close(self) -> None:
        """The engine goes with the process."""

    def _settings(self, runtime_dir: Path) -> EndpointSettings:
        return settings_for(self._target.url, self._directory, runtime_dir)

    def _timed(self, body: bytes, runtime_dir: Path) -> dict[str, float]:
        start, cpu_start = time.monotonic(), time.process_time()
        engine = Engine.for_endpoint(self._settings(runtime_dir))
        stats = engine.put(put_fields(f"object-{len(body)}", body), body, timeout_s=TIMEOUT_S).stats
        return {
            "seconds": time.monotonic() - start,
            "cpu_ms": (time.process_time() - cpu_start) * 1000,
            "datagrams": stats.datagrams_sent,
            "resent": stats.resent,
            "timeouts": stats.timeouts,
            "handshakes": float(stats.handshake),
        }

    def _in_fork(self, body: bytes, runtime_dir: Path) -> dict[str, float]:
        """A put in a forked process; its exceptions are raised here as RuntimeError."""
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                answer: dict[str, Any] = self._timed(body, runtime_dir)
            except BaseException as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            os.write(write_end, json.dumps(answer).encode())
            os.close(write_end)
            # The end of the process is not part of the put, but what it learned is saved then.
            Engine.for_endpoint(self._settings(runtime_dir)).close()
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            answer = json.loads(pipe.read() or b'{"error": "the forked process died"}')
        os.waitpid(pid, 0)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def create(target: Target) -> RaptorPeer:
    """Called by `benchmarks.peers.load`."""
    return RaptorPeer(target)
