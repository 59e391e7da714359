"""The real `aws` command over the fast path: gateway process with direct sink, S3 of the local AWS behind it.

Other AWS CLIs (v1.45, v2) run the same tests: tests/compat/awscli.py sets RAPTOR_AWS_PROGRAMS to their paths.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from gateway_rig import GatewayProcess, local_aws

from raptor_s3.cli.aws_cli import plugin_lines
from raptor_s3.wireguard.keys import key_to_base64

PROGRAMS = os.environ.get("RAPTOR_AWS_PROGRAMS", "").split(os.pathsep)
BUCKET = "data"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    with local_aws(tmp_path_factory.mktemp("aws")) as client:
        client("s3").create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture(scope="module")
def gateway(local, tmp_path_factory):
    allow = [{"bucket": BUCKET}]
    folder = tmp_path_factory.mktemp("gateway")
    with GatewayProcess(folder, "--aws-endpoint-url", local.url, peers={"cli": {"allow": allow}}) as process:
        yield process


@pytest.fixture(params=PROGRAMS, ids=lambda program: Path(program).parts[-3] if program else "this")
def aws(request, gateway, local, tmp_path):
    """Runs `aws s3 ...` with a home of its own, and without credentials unless they are given."""
    key_file = tmp_path / ".aws" / "raptor.key"
    key_file.parent.mkdir()
    key_file.touch(0o600)
    key_file.write_text(key_to_base64(gateway.private_keys["cli"]))
    lines = [
        *("[default]", "region = us-east-1", "raptor =", f"    endpoint = wg://127.0.0.1:{gateway.ready['port']}"),
        *(f"    server_key = {gateway.ready['public_key']}", f"    client_key_file = {key_file}", f"    buckets = {BUCKET}"),
        *(f"    s3_endpoint = {local.url}", ""),
    ]
    config = plugin_lines("\n".join(lines))
    (tmp_path / ".aws" / "config").write_text(config)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAPTOR_", "BOTOCORE_"))}
    environment |= {"HOME": str(tmp_path), "RAPTOR_RUNTIME_DIR": str(tmp_path / "run"), "AWS_PAGER": ""}
    program = [request.param] if request.param else [sys.executable, "-m", "awscli"]

    def run(*arguments, stdin=b"", **variables):
        command = [*program, *arguments]
        if arguments[0] == "s3":
            command += ["--endpoint-url", variables.pop("endpoint_url", local.url)]
        return subprocess.run(
            command, input=stdin, env={**environment, **variables}, cwd=tmp_path, capture_output=True, timeout=120, check=False
        )

    def puts():
        text = run("raptor", "status", "--json", "--last", "1000").stdout
        return [SimpleNamespace(**put) for put in json.loads(text)["puts"]]

    def stored(key):
        answer = local("s3").get_object(Bucket=BUCKET, Key=key)
        return SimpleNamespace(body=answer["Body"].read(), **answer)

    return SimpleNamespace(run=run, puts=puts, stored=stored, home=tmp_path, config=tmp_path / ".aws" / "config")


def routes(aws):
    return {put.key: put.route for put in aws.puts()}


def test_cp_without_credentials(aws):
    (aws.home / "a.txt").write_bytes(b"hello")
    result = aws.run("s3", "cp", "a.txt", "s3://data/cp/", "--transport", "raptor")
    assert result.returncode == 0, result.stderr
    assert b"upload: ./a.txt to s3://data/cp/a.txt" in result.stdout
    assert aws.stored("cp/a.txt").body == b"hello"
    assert aws.stored("cp/a.txt").ContentType == "text/plain"
    assert routes(aws) == {"cp/a.txt": "raptor"}


def test_a_tree_of_all_sizes_and_names(aws):
    sizes = {"empty": 0, "one": 1, "1k": 1024, "100k": 100_000, "1 m ä.bin": 1_000_000, "sub/über/x y.txt": 5000, "9m": 9 << 20}
    for name, size in sizes.items():
        path = aws.home / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    result = aws.run("s3", "cp", "tree", "s3://data/tree", "--recursive", "--transport", "raptor")
    assert result.returncode == 0, result.stderr
    for name in sizes:
        assert aws.stored(f"tree/{name}").body == (aws.home / "tree" / name).read_bytes()
    assert set(routes(aws).values()) == {"raptor"}


def test_auto_sends_what_is_large_over_https(aws):
    (aws.home / "small").write_bytes(b"s" * 1000)
    (aws.home / "large").write_bytes(os.urandom(300_000))
    for name in ("small", "large"):
        result = aws.run("s3", "cp", name, f"s3://data/auto/{name}", "--transport", "auto", **CREDENTIALS)
        assert result.returncode == 0, result.stderr
        assert aws.stored(f"auto/{name}").body == (aws.home / name).read_bytes()
    assert routes(aws) == {"auto/small": "raptor", "auto/large": "https"}
    assert "threshold" in aws.puts()[-1].reason


def test_a_configured_fast_path_is_the_default_and_https_turns_it_off(aws):
    (aws.home / "a").write_bytes(b"a")
    assert aws.run("s3", "cp", "a", "s3://data/default", **CREDENTIALS).returncode == 0
    assert aws.run("s3", "cp", "a", "s3://data/off", "--transport", "https", **CREDENTIALS).returncode == 0
    assert routes(aws) == {"default": "raptor"}
    assert aws.stored("off").body == b"a"


def test_mv_deletes_the_source_when_the_object_is_there(aws):
    (aws.home / "a").write_bytes(b"moved")
    result = aws.run("s3", "mv", "a", "s3://data/mv", "--transport", "raptor")
    assert result.returncode == 0, result.stderr
    assert aws.stored("mv").body == b"moved"
    assert not (aws.home / "a").exists()


def test_stdin(aws):
    result = aws.run("s3", "cp", "-", "s3://data/stdin", "--transport", "raptor", stdin=b"piped" * 1000)
    assert result.returncode == 0, result.stderr
    assert aws.stored("stdin").body == b"piped" * 1000
    assert routes(aws) == {"stdin": "raptor"}


def test_metadata_and_headers(aws):
    (aws.home / "a").write_bytes(b"a")
    options = ["--metadata", "camera=7,site=roof", "--content-type", "image/x-raw", "--cache-control", "no-store"]
    options += ["--content-disposition", "inline", "--content-encoding", "identity", "--storage-class", "STANDARD_IA"]
    result = aws.run("s3", "cp", "a", "s3://data/meta", "--transport", "raptor", *options)
    assert result.returncode == 0, result.stderr
    stored = aws.stored("meta")
    assert stored.Metadata == {"camera": "7", "site": "roof"}
    assert (stored.ContentType, stored.CacheControl, stored.ContentDisposition) == ("image/x-raw", "no-store", "inline")
    assert stored.StorageClass == "STANDARD_IA"


def test_what_the_fast_path_can_not_carry_is_an_error_when_it_is_strict(aws):
    (aws.home / "a").write_bytes(b"a")
    result = aws.run("s3", "cp", "a", "s3://data/acl", "--acl", "public-read", "--transport", "raptor")
    assert result.returncode == 1
    assert b"upload failed" in result.stderr
    assert b"ACL" in result.stderr.upper()


def test_dryrun_quiet_and_progress(aws):
    (aws.home / "a").write_bytes(b"a" * 2000)
    dry = aws.run("s3", "cp", "a", "s3://data/dry", "--dryrun", "--transport", "raptor")
    assert dry.stdout == b"(dryrun) upload: ./a to s3://data/dry\n"
    quiet = aws.run("s3", "cp", "a", "s3://data/quiet", "--quiet", "--transport", "raptor")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"", b"")
    loud = aws.run("s3", "cp", "a", "s3://data/loud", "--transport", "raptor")
    assert b"Completed 2.0 KiB/2.0 KiB" in loud.stdout
    assert routes(aws) == {"quiet": "raptor", "loud": "raptor"}


def test_sync_lists_over_https_and_sends_over_the_fast_path(aws):
    folder = aws.home / "tree"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_bytes(b"%d" % number)
    for expected in (5, 0):
        result = aws.run("s3", "sync", "tree", "s3://data/sync", "--transport", "raptor", **CREDENTIALS)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count(b"upload: ") == expected
    (folder / "0.txt").write_bytes(b"changed")
    (folder / "1.txt").unlink()
    result = aws.run("s3", "sync", "tree", "s3://data/sync", "--delete", "--transport", "raptor", **CREDENTIALS)
    assert result.returncode == 0, result.stderr
    assert aws.stored("sync/0.txt").body == b"changed"
    assert result.stdout.count(b"delete: ") == 1
    assert set(routes(aws).values()) == {"raptor"}


def test_the_crt_client_of_v2_does_not_bypass_the_fast_path(aws):
    (aws.home / "a").write_bytes(b"a")
    config = aws.config.read_text()
    aws.config.write_text(config.replace("[default]\n", "[default]\ns3 =\n    preferred_transfer_client = crt\n"))
    result = aws.run("s3", "cp", "a", "s3://data/crt", "--transport", "raptor")
    assert result.returncode == 0, result.stderr
    assert routes(aws) == {"crt": "raptor"}


def test_no_metadata_service_is_asked(aws):
    """Neither for credentials nor, by v2, for a region. A listener stands where the service would be; nobody may come."""
    (aws.home / "a").write_bytes(b"a")
    aws.config.write_text(aws.config.read_text().replace("region = us-east-1\n", ""))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        visitors = []
        thread = threading.Thread(target=lambda: visitors.append(listener.accept()), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        result = aws.run("s3", "cp", "a", "s3://data/imds", "--transport", "raptor", AWS_EC2_METADATA_SERVICE_ENDPOINT=url)
        assert result.returncode == 0, result.stderr
        assert not visitors


def test_s3_errors_are_s3s_own(aws):
    (aws.home / "a").write_bytes(b"a")
    config = aws.config.read_text()
    aws.config.write_text(config.replace(f"buckets = {BUCKET}", "buckets = *"))
    result = aws.run("s3", "cp", "a", "s3://not-allowed/x", "--transport", "raptor")
    assert result.returncode == 1
    assert b"upload failed: ./a to s3://not-allowed/x" in result.stderr
    assert b"AccessDenied" in result.stderr


def test_a_dead_gateway_is_https_for_auto_and_an_error_for_strict(aws):
    (aws.home / "a").write_bytes(b"a")
    config = aws.config.read_text()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        lines = [
            f"    endpoint = wg://127.0.0.1:{silent.getsockname()[1]}\n    timeout = 1s\n"
            if "endpoint = wg" in line
            else line + "\n"
            for line in config.splitlines()
        ]
        aws.config.write_text("".join(lines))
        result = aws.run("s3", "cp", "a", "s3://data/fallback", "--transport", "auto", **CREDENTIALS)
        assert result.returncode == 0, result.stderr
        assert aws.stored("fallback").body == b"a"
        assert routes(aws) == {"fallback": "https"}
        strict = aws.run("s3", "cp", "a", "s3://data/strict", "--transport", "raptor")
        assert strict.returncode == 1
        assert b"upload failed" in strict.stderr


def test_status_and_ping(aws):
    (aws.home / "a").write_bytes(b"a")
    assert aws.run("s3", "cp", "a", "s3://data/status", "--transport", "raptor").returncode == 0
    status = json.loads(aws.run("raptor", "status", "--json").stdout)
    assert status["handshake_age_s"] < 120
    assert status["rtt_s"] is not None
    assert status["puts"][-1]["key"] == "status"
    ping = aws.run("raptor", "ping", "--count", "3", "--interval", "0", "--json")
    assert ping.returncode == 0, ping.stderr
    assert json.loads(ping.stdout.splitlines()[-1])["summary"]["received"] == 3
