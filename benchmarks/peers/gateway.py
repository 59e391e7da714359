"""`raptor gateway --sink null` in the server's namespace: answers a put as soon as it has decoded it, as nginx does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from benchmarks.link import ROOT
from raptor_s3.wireguard.keys import generate_private_key, key_to_base64, public_key

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from benchmarks.link import Namespace
    from benchmarks.peers.loopback import Loopback

PORT = 51820
CLIENT_KEY_FILE, SERVER_PUBLIC_KEY_FILE = "client.key", "server.pub"
START_LIMIT_S = 10.0


class Gateway:
    """A running gateway; a context manager. Leaves the client's private and the server's public key in `directory`."""

    def __init__(self, namespace: Namespace | Loopback, directory: Path) -> None:
        self.url = f"wg://{namespace.address}:{PORT}"
        server, client = (generate_private_key(os.urandom) for _ in range(2))
        _write_secret(directory / "server.key", server)
        _write_secret(directory / CLIENT_KEY_FILE, client)
        (directory / SERVER_PUBLIC_KEY_FILE).write_text(key_to_base64(public_key(server)))
        peer = {"name": "benchmark", "public_key": key_to_base64(public_key(client)), "allow": [{"bucket": "*"}]}
        (directory / "peers.json").write_text(json.dumps({"peers": [peer]}))
        ready = directory / "ready.json"
        self._log = (directory / "gateway.log").open("wb")
        files = ["--private-key-file", "server.key", "--peers-file", "peers.json", "--ready-file", str(ready)]
        self._process: subprocess.Popen[Any] = namespace.popen(
            [sys.executable, "-m", "raptor_s3.gateway", "--listen", f"{namespace.address}:{PORT}", "--sink", "null", *files],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stderr=self._log,
        )
        deadline = time.monotonic() + START_LIMIT_S
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise OSError("raptor gateway: " + (directory / "gateway.log").read_text()[-500:])
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Stop the gateway."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _write_secret(path: Path, key: bytes) -> None:
    path.touch(mode=0o600)
    path.write_text(key_to_base64(key))
