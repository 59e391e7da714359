"""`python -m backend.local up|down|status`: the local stack with a gateway, until it is taken down.

`up` leaves a supervisor behind that holds the stack; `state.json` says what it holds, and a lock on it that it lives. Keys, peers
and an AWS config file with a profile are made beside it, so that stock tools can be tried at once.

Invariant: `down` ends what `up` began, and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from backend.local.processes import LocalStackError, tail
from backend.local.stack import LocalStack

if TYPE_CHECKING:
    from collections.abc import Iterator

UP_TIMEOUT_S: Final = 120.0
DOWN_TIMEOUT_S: Final = 30.0


def keygen(path: Path) -> str:
    """Make a WireGuard key pair by `raptor keygen` (this package must not import WireGuard); returns the public key."""
    verb = [sys.executable, "-c", "from raptor_s3.cli.main import main; raise SystemExit(main())", "keygen"]
    arguments = ["--public", str(path)] if path.exists() else [str(path)]
    made = subprocess.run([*verb, *arguments], capture_output=True, text=True, check=False)
    if made.returncode:
        raise LocalStackError(f"raptor keygen failed: {made.stderr.strip()}")
    return made.stdout.strip()


def client_config(stack: LocalStack, server_key: str, client_key_file: Path) -> str:
    """An AWS config file whose default profile takes the fast path to the local stack."""
    return "\n".join(
        [
            "[default]",
            "region = us-east-1",
            f"endpoint_url = {stack.endpoint_url}",
            "raptor =",
            f"    endpoint = {stack.gateway_endpoint.url}",
            f"    server_key = {server_key}",
            f"    client_key_file = {client_key_file}",
            f"    buckets = {stack.bucket}",
            "",
        ]
    )


def run(directory: Path, destination: str) -> int:
    """Hold the stack until SIGTERM or Ctrl-C."""
    with _lock(directory) as state_file:
        server_key = keygen(directory / "gateway.key")
        client_key = keygen(directory / "client.key")
        peers = {"peers": [{"name": "local", "public_key": client_key, "allow": [{"bucket": "*"}], "legacy": True}]}
        peers_file = directory / "peers.json"
        peers_file.write_text(json.dumps(peers))
        with LocalStack(directory, policy=peers, destination=destination, gateway_public_key=server_key) as stack:
            stack.start_gateway(directory / "gateway.key", peers_file)
            config = directory / "aws-config"
            config.write_text(client_config(stack, server_key, directory / "client.key"))
            state = {
                "pid": os.getpid(),
                "aws": stack.endpoint_url,
                "gateway": stack.gateway_endpoint.url,
                "server_key": server_key,
                "bucket": stack.bucket,
                "env": {**stack.env, "AWS_CONFIG_FILE": str(config)},
                "outputs": stack.outputs,
            }
            state_file.write(json.dumps(state, indent=1))
            state_file.flush()
            while stack.gateway_is_running:
                time.sleep(0.2)
            raise LocalStackError(f"the gateway has ended{tail(directory / 'gateway.log')}")


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[IO[str]]:
    """The state file, empty, locked while the stack lives. Raises LocalStackError when one lives already."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / "state.json").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LocalStackError(f"a local stack is up in {directory}") from None
        file.truncate(0)
        try:
            yield file
        finally:
            file.truncate(0)


def read_state(directory: Path) -> dict[str, Any] | None:
    """What the supervisor has written; None when none lives, {} while it is coming up."""
    try:
        with (directory / "state.json").open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                text = file.read()
                state: dict[str, Any] = json.loads(text) if text else {}
                return state
    except FileNotFoundError:
        pass
    return None


def up(directory: Path, destination: str) -> int:
    if read_state(directory) is not None:
        print(f"a local stack is up in {directory}: python -m backend.local status")
        return 1
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = directory / "local.log"
    log.unlink(missing_ok=True)
    with log.open("wb") as output:
        command = [sys.executable, "-m", "backend.local", "run", "--directory", str(directory), "--destination", destination]
        supervisor = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    deadline = time.monotonic() + UP_TIMEOUT_S
    try:
        while not read_state(directory):
            if supervisor.poll() is not None:
                raise LocalStackError(f"the local stack did not start{tail(log)}")
            if time.monotonic() > deadline:
                raise LocalStackError(f"the local stack did not start within {UP_TIMEOUT_S:g} s{tail(log)}")
            time.sleep(0.05)
    except BaseException:
        supervisor.terminate()
        supervisor.wait(DOWN_TIMEOUT_S)
        raise
    return status(directory)


def down(directory: Path) -> int:
    state = read_state(directory)
    if not state:
        print(f"no local stack is up in {directory}")
        return 1
    os.kill(state["pid"], signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while read_state(directory) is not None:
        if time.monotonic() > deadline:
            raise LocalStackError(f"the local stack (process {state['pid']}) does not end{tail(directory / 'local.log')}")
        time.sleep(0.05)
    print("down")
    return 0


def status(directory: Path) -> int:
    state = read_state(directory)
    if not state:
        print(f"no local stack is up in {directory}")
        return 1
    print(f"up: process {state['pid']}, logs in {directory}")
    print(f"  AWS      {state['aws']}")
    print(f"  gateway  {state['gateway']}  server_key {state['server_key']}")
    print(f"  bucket   {state['bucket']}")
    print("in a shell:")
    for name, value in state["env"].items():
        print(f"  export {name}={shlex.quote(value)}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backend.local", description="The backend and a gateway on this machine.")
    parser.add_argument("verb", choices=("up", "down", "status", "run"), help="run: like up, in the foreground")
    parser.add_argument("--directory", type=Path, default=Path(".local-stack"), help="keys, logs, state (default: %(default)s)")
    parser.add_argument("--destination", choices=("lambda", "sqs"), default="lambda", help="how the gateway delivers")
    options = parser.parse_args()
    directory = options.directory.resolve()
    try:
        match options.verb:
            case "up":
                return up(directory, options.destination)
            case "run":
                return run(directory, options.destination)
            case "down":
                return down(directory)
            case _:
                return status(directory)
    except LocalStackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
