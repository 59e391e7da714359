"""The main job on real parts: template.yaml on a local AWS, `raptor gateway`, the real `aws` command, a plain boto3 program.

    1  aws s3 cp FILE s3://bucket/key --transport raptor
    2  aws s3 cp FOLDER s3://bucket/prefix --recursive --transport auto
    3  a boto3 program, switched on by an environment variable alone
    4  the same program with the gateway stopped: HTTPS

Everything is read back over HTTPS without the plugin and compared by SHA-256. Exit code 0 only if every file arrived whole, by
the way that was expected of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backend.local import LocalStack, LocalStackError
from demo.report import Row, print_report, summary
from raptor_s3.routing.journal import Journal, PutRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

BIN: Final = Path(sys.executable).parent
THRESHOLD: Final = 1 << 20
UPLOADER: Final = Path(__file__).with_name("uploader.py")
FOLDER: Final[Mapping[str, int]] = {
    "empty.bin": 0,
    "one byte.bin": 1,
    "Grüße aus Łódź.txt": 1_000,
    "reading-1KB.bin": 1_024,
    "nested/frame-100KB.bin": 100 * 1_024,
    "nested/clip-1MB.bin": THRESHOLD,
    "above the threshold.bin": THRESHOLD + 1,
}


class Expected(NamedTuple):
    """One put that the demo is about to make: by which command, of which file, and which way it should go."""

    step: str
    path: Path
    key: str
    route: str


class DemoError(Exception):
    """A step failed; the message says how."""


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if not shutil.which("aws", path=str(BIN)):
        print("demo: the aws command is not installed beside this Python", file=sys.stderr)
        return 1
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="raptor-demo-") as name:
        directory = Path(name)
        try:
            rows = run(directory)
        except (DemoError, LocalStackError) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
    is_good = print_report(rows)
    print(
        f"\n{summary(rows)}\n{'all of it holds' if is_good else 'NOT all of it holds'}, {time.monotonic() - began:.0f} s in all"
    )
    return 0 if is_good else 1


def run(directory: Path, destination: str = "lambda", threshold: int = THRESHOLD) -> list[Row]:
    """Raises DemoError and LocalStackError."""
    keys = make_keys(directory)
    everything = {"allow": [{"bucket": "*"}]}
    peers = directory / "peers.json"
    peers.write_text(json.dumps({"peers": [{"name": "demo", "public_key": keys["client"]}]}))
    policy = {"peers": [{"name": "demo", "public_key": keys["client"], **everything}]}

    say("starting the local AWS and deploying template.yaml")
    stack = LocalStack(
        directory / "stack",
        policy=policy,
        destination=destination,
        gateway_command=[str(BIN / "raptor"), "gateway"],
        gateway_public_key=keys["server"],
    )
    with stack:
        endpoint = stack.start_gateway(directory / "server.key", peers, "--workers", "2")  # no more sandboxes than cores
        say(f"deployed in {stack.deploy_s:.1f} s: bucket {stack.bucket}, gateway at {endpoint.url}")
        config = write_profile(directory, endpoint.url, keys["server"], threshold)
        environment = client_environment(stack.env, config, directory)
        files = make_files(directory / "files")
        return put_and_compare(stack, environment, files, directory, threshold)


def put_and_compare(
    stack: LocalStack, environment: dict[str, str], files: dict[str, Path], directory: Path, threshold: int
) -> list[Row]:
    folder = directory / "files"
    one, some = files["reading-1KB.bin"], [files[name] for name in ("reading-1KB.bin", "nested/frame-100KB.bin", "empty.bin")]
    journal = Journal(directory / "run")
    rows: list[Row] = []

    def step(title: str, command: list[str], expected: list[Expected], extra: Mapping[str, str] | None = None) -> None:
        say(title)
        seen = len(journal.read(10_000))
        execute(command, {**environment, **(extra or {})})
        records = {record.key: record for record in journal.read(10_000)[seen:]}
        rows.extend(compare(stack, put, records.get(put.key)) for put in expected)

    bucket = stack.bucket
    by_name = f"s3://{bucket}/single/{one.name}"
    aws = [str(BIN / "aws"), "s3", "cp"]
    step(
        "aws s3 cp FILE --transport raptor, without AWS credentials",
        [*aws, str(one), by_name, "--transport", "raptor", "--only-show-errors"],
        [Expected("aws s3 cp FILE", one, f"single/{one.name}", "raptor")],
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    )
    step(
        "aws s3 cp FOLDER --recursive --transport auto",
        [*aws, str(folder), f"s3://{bucket}/folder", "--recursive", "--transport", "auto", "--only-show-errors"],
        [
            Expected("aws s3 cp FOLDER", path, f"folder/{name}", "raptor" if path.stat().st_size <= threshold else "https")
            for name, path in files.items()
        ],
    )
    switch = {"BOTOCORE_EXPERIMENTAL__PLUGINS": "raptor_s3=raptor_s3.plugin"}
    program = [sys.executable, str(UPLOADER), bucket]
    names = [str(path) for path in some]
    step(
        "an unchanged boto3 program, switched on by the environment",
        [*program, "boto3/", *names],
        [Expected("boto3", path, f"boto3/{path.name}", "raptor") for path in some],
        switch,
    )
    stack.stop_gateway()
    step(
        "the same program, the gateway stopped",
        [*program, "stopped/", *names],
        [Expected("boto3, no gateway", path, f"stopped/{path.name}", "https") for path in some],
        {**switch, "RAPTOR_TIMEOUT": "5s"},
    )
    return rows


def compare(stack: LocalStack, put: Expected, record: PutRecord | None) -> Row:
    """Read one object back over HTTPS, with a client that has never seen the plugin."""
    s3 = stack.client("s3")
    try:
        stored: Any = s3.get_object(Bucket=stack.bucket, Key=put.key)
        is_whole = sha256(stored["Body"].read()) == sha256(put.path.read_bytes())
        same_etag = record is not None and record.etag == stored["ETag"]
    except s3.exceptions.NoSuchKey:
        is_whole = same_etag = False
    size = put.path.stat().st_size
    return Row(put.step, put.path.name, size, put.route, record, is_whole, same_etag, put_directly(stack, put))


def put_directly(stack: LocalStack, put: Expected) -> float:
    """Seconds that the same object takes without any of ours, on a connection of its own."""
    s3 = new_client(stack)
    body = put.path.read_bytes()
    began = time.perf_counter()
    s3.put_object(Bucket=stack.bucket, Key=f"direct/{put.key}", Body=body)
    return time.perf_counter() - began


def new_client(stack: LocalStack) -> Any:
    import boto3

    environment = stack.env
    return boto3.session.Session(
        environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], region_name=environment["AWS_DEFAULT_REGION"]
    ).client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])


def make_keys(directory: Path) -> dict[str, str]:
    """`raptor keygen` for both ends; the public keys."""
    public = {}
    for name in ("server", "client"):
        made = execute([str(BIN / "raptor"), "keygen", str(directory / f"{name}.key")], dict(os.environ))
        public[name] = made.split()[-1]
    return public


def write_profile(directory: Path, url: str, server_key: str, threshold: int) -> Path:
    config = directory / "config"
    config.write_text(
        f"""[default]
region = us-east-1
raptor =
    endpoint = {url}
    server_key = {server_key}
    client_key_file = {directory / "client.key"}
    buckets = *
    threshold = {threshold}
    timeout = 30s

[plugins]
raptor = raptor_s3.awscli_plugin
"""
    )
    return config


def client_environment(stack_env: Mapping[str, str], config: Path, directory: Path) -> dict[str, str]:
    (directory / "run").mkdir(mode=0o700)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT") if name in os.environ}
    return {
        "LC_ALL": "C.UTF-8",
        **kept,
        **stack_env,
        "HOME": str(directory),
        "AWS_CONFIG_FILE": str(config),
        "RAPTOR_RUNTIME_DIR": str(directory / "run"),
        "PYTHONUTF8": "1",
    }


def make_files(folder: Path) -> dict[str, Path]:
    source = random.Random(6330)
    files = {}
    for name, size in FOLDER.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(size))
        files[name] = path
    return files


def execute(command: list[str], environment: dict[str, str]) -> str:
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if result.returncode:
        raise DemoError(f"{' '.join(command)}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def say(text: str) -> None:
    print(f"· {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
