"""`raptor FILE ...` as a process: a real gateway with a direct sink, the S3 of the local AWS behind it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from gateway_rig import GatewayProcess, local_aws

from raptor_s3.wireguard.keys import key_to_base64

BUCKET = "data"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    with local_aws(tmp_path_factory.mktemp("aws")) as client:
        for bucket in (BUCKET, "partial"):
            client("s3").create_bucket(Bucket=bucket)
        yield client


@pytest.fixture(scope="module")
def gateway(local, tmp_path_factory):
    peers = {"cli": {"allow": [{"bucket": BUCKET}, {"bucket": "partial", "prefixes": ["mixed/good"]}], "legacy": True}}
    peers["modern"] = {"allow": [{"bucket": BUCKET}]}
    options = ["--aws-endpoint-url", local.url, "--legacy-bucket", BUCKET, "--legacy-prefix", "legacy/"]
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), *options, peers=peers) as process:
        yield process


@pytest.fixture
def raptor(gateway, local, tmp_path):
    key_file = tmp_path / ".aws" / "raptor.key"
    key_file.parent.mkdir()
    key_file.touch(0o600)
    key_file.write_text(key_to_base64(gateway.private_keys["cli"]))
    url = f"wg://127.0.0.1:{gateway.ready['port']}"
    server_key = gateway.ready["public_key"]
    config = tmp_path / ".aws" / "config"
    config.write_text(
        f"[default]\nraptor =\n    endpoint = {url}\n    server_key = {server_key}\n    client_key_file = {key_file}\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAPTOR_"))}
    environment |= {"HOME": str(tmp_path), "RAPTOR_RUNTIME_DIR": str(tmp_path / "run"), "COLUMNS": "100", "TERM": "xterm"}
    program = [sys.executable, "-m", "raptor_s3.cli.main"]

    def run(*arguments, stdin=b"", **variables):
        command = [*program, *map(str, arguments)]
        return subprocess.run(
            command, input=stdin, env={**environment, **variables}, cwd=tmp_path, capture_output=True, timeout=120, check=False
        )

    def stored(key):
        answer = local("s3").get_object(Bucket=BUCKET, Key=key)
        return SimpleNamespace(body=answer["Body"].read(), **answer)

    return SimpleNamespace(
        run=run, stored=stored, home=tmp_path, url=url, server_key=server_key, key_file=key_file, config=config,
        program=program, environment=environment,
    )  # fmt: skip


def keys(local, prefix):
    return {entry["Key"] for entry in local("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])}


def test_one_file_one_line_with_its_etag(raptor):
    (raptor.home / "reading.json").write_bytes(b"{}")
    result = raptor.run("reading.json", "s3://data/one/", "--metadata", "camera=7")
    assert (result.returncode, result.stderr) == (0, b"")
    stored = raptor.stored("one/reading.json")
    assert stored.body == b"{}"
    assert stored.ContentType == "application/json"
    assert stored.Metadata == {"camera": "7"}
    assert (
        re.fullmatch(rb"sent reading\.json to s3://data/one/reading\.json \(2 B in .* ms, ETag (.*)\)\n", result.stdout)[
            1
        ].decode()
        == stored.ETag
    )


def test_a_process_that_sends_one_file_imports_nothing_heavy(raptor):
    (raptor.home / "a").write_bytes(b"a" * 5000)
    script = """if True:
        import sys
        from raptor_s3.cli.main import main
        code = main(sys.argv[1:])
        print("imported:", code, *sorted({"botocore", "boto3", "rich", "awscli"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", script, "a", "s3://data/light"]
    result = subprocess.run(command, env=raptor.environment, cwd=raptor.home, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "imported: 0"


def test_numpy_is_only_for_machines_without_the_c_kernel(raptor):
    pytest.importorskip("raptor_s3.codec._kernel")
    (raptor.home / "a").write_bytes(b"a" * 5000)
    script = "import sys; from raptor_s3.cli.main import main; main(sys.argv[1:]); print('numpy' in sys.modules)"
    command = [sys.executable, "-c", script, "a", "s3://data/light"]
    result = subprocess.run(command, env=raptor.environment, cwd=raptor.home, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


def test_a_tree_with_many_files_in_flight(raptor, local):
    names = {f"{number}.bin": number * 37 for number in range(200)} | {"sub/ä b.txt": 3, "leer": 0, "big": 2_000_000}
    for name, size in names.items():
        path = raptor.home / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    (raptor.home / "tree" / "broken").symlink_to("nowhere")
    result = raptor.run("tree", "s3://data/tree", "--recursive", "--json", "--timeout", "30")
    assert result.returncode == 0, result.stdout + result.stderr
    *lines, last = map(json.loads, result.stdout.splitlines())
    assert len(lines) == len(names)
    assert last["summary"]["sent"] == len(names)
    assert b"broken is left out" in result.stderr
    for line in lines:
        key = line["destination"].removeprefix("s3://data/")
        assert raptor.stored(key).body == (raptor.home / line["file"]).read_bytes()
        assert line["ETag"] == raptor.stored(key).ETag
    assert keys(local, "tree/") == {f"tree/{name}" for name in names}


def test_without_recursive_subfolders_stay(raptor, local):
    (raptor.home / "tree" / "sub").mkdir(parents=True)
    (raptor.home / "tree" / "a").write_bytes(b"a")
    (raptor.home / "tree" / "sub" / "b").write_bytes(b"b")
    result = raptor.run("tree", "s3://data/flat")
    assert (result.returncode, result.stderr) == (
        0,
        b"raptor: warning: 1 folder in tree left out; to send subfolders, too: --recursive\n",
    )
    assert keys(local, "flat/") == {"flat/a"}


def test_stdin(raptor):
    assert raptor.run("-", "s3://data/stdin", stdin=b"piped").returncode == 0
    assert raptor.stored("stdin").body == b"piped"


@pytest.mark.parametrize("code", ["published", "rfc6330"])
def test_the_published_command_line(raptor, local, code):
    (raptor.home / "folder" / "sub").mkdir(parents=True)
    bodies = {"a.bin": os.urandom(100_000), "sub/b.bin": os.urandom(700), "sub/c.bin": b""}
    for name, body in bodies.items():
        (raptor.home / "folder" / name).write_bytes(body)
    raptor.config.unlink()
    options = ["--server-key", raptor.server_key, "--client-key", raptor.key_file.read_text().strip(), "--recursive"]
    options += [
        "--overhead",
        "0.10",
        "--rate-mbps",
        "50",
        "--block-timeout",
        "5",
        "--confirm",
        "FILE",
        "--verbose",
        "--code",
        code,
    ]
    before = keys(local, "legacy/")
    result = raptor.run("folder", raptor.url, *options)
    assert result.returncode == 0, result.stderr
    assert b"process" in result.stderr  # the warning about --client-key
    assert b"repair symbols" in result.stdout
    new = keys(local, "legacy/") - before
    assert {re.sub(r"^legacy/\d{17}/", "", key) for key in new} == set(bodies)
    for key in new:
        assert raptor.stored(key).body == bodies[re.sub(r"^legacy/\d{17}/", "", key)]


def test_no_prefix_and_no_confirmation(raptor, local):
    (raptor.home / "plain.txt").write_bytes(b"plain")
    options = ["--server-key", raptor.server_key, "--client-key-file", raptor.key_file, "--no-prefix", "--confirm", "NONE"]
    assert raptor.run("plain.txt", raptor.url, *options).returncode == 0
    deadline = time.monotonic() + 20
    while "legacy/plain.txt" not in keys(local, "legacy/") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert raptor.stored("legacy/plain.txt").body == b"plain"


def test_the_profiles_own_endpoint_needs_no_keys_on_the_command_line(raptor):
    (raptor.home / "own").write_bytes(b"own")
    assert raptor.run("own", raptor.url, "--no-prefix").returncode == 0


def test_silent_says_nothing(raptor):
    (raptor.home / "a").write_bytes(b"a")
    result = raptor.run("a", "s3://data/silent", "--silent")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    result = raptor.run("a", "s3://forbidden/silent", "--silent")
    assert (result.returncode, result.stdout, result.stderr) == (1, b"", b"")


def test_some_failed_is_exit_code_1_and_says_which(raptor):
    folder = raptor.home / "mixed"
    folder.mkdir()
    for name in ("good", "bad", "good.too"):
        (folder / name).write_bytes(b"x")
    result = raptor.run("mixed", "s3://partial/mixed")
    assert result.returncode == 1
    assert b"failed mixed/bad to s3://partial/mixed/bad: AccessDenied (403)" in result.stderr
    assert b"2 files sent, 1 failed" in result.stdout


def test_a_refusal_is_s3s_own_words(raptor):
    (raptor.home / "a").write_bytes(b"a")
    result = raptor.run("a", "s3://not-allowed/x")
    assert result.returncode == 1
    assert b"AccessDenied (403)" in result.stderr


def test_nobody_there_is_exit_code_1_in_time_and_says_what_to_try(raptor):
    (raptor.home / "a").write_bytes(b"a")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        raptor.config.write_text(raptor.config.read_text().replace(raptor.url, f"wg://127.0.0.1:{silent.getsockname()[1]}"))
        result = raptor.run("a", "s3://data/x", "--timeout", "1")
    assert result.returncode == 1
    assert b"raptor ping" in result.stderr
    assert b"Traceback" not in result.stderr


def test_an_interrupt_is_exit_code_130(raptor):
    (raptor.home / "a").write_bytes(b"a")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        raptor.config.write_text(raptor.config.read_text().replace(raptor.url, f"wg://127.0.0.1:{silent.getsockname()[1]}"))
        command = [*raptor.program, "a", "s3://data/x", "--timeout", "60"]
        process = subprocess.Popen(command, env=raptor.environment, cwd=raptor.home, stderr=subprocess.PIPE)
        silent.settimeout(30)
        silent.recv(2000)  # the first initiation: it is under way
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in stderr


def test_a_bar_on_a_terminal_and_a_panel_for_status(raptor):
    for number in range(30):
        path = raptor.home / "tree" / str(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 3000)
    code, screen = on_a_terminal(raptor, "tree", "s3://data/tty", "--recursive")
    assert code == 0
    assert "sending" in screen
    assert "30 files sent" in screen
    assert "sent tree/0" not in screen
    code, screen = on_a_terminal(raptor, "status", "--last", "3")
    assert code == 0
    assert "╭" in screen
    assert "30 by raptor" in screen


def test_status_after_a_send(raptor):
    (raptor.home / "a").write_bytes(b"a")
    raptor.run("a", "s3://data/seen")
    status = json.loads(raptor.run("status", "--json").stdout)
    assert status["handshake_age_s"] < 120
    assert status["rtt_s"] < 5
    [put] = status["puts"]
    assert (put["bucket"], put["key"], put["route"], put["source"]) == ("data", "seen", "raptor", "raptor")


def test_ping(raptor):
    result = raptor.run("ping", "--count", "4", "--interval", "0.01", "--json")
    assert result.returncode == 0, result.stderr
    *replies, last = map(json.loads, result.stdout.splitlines())
    assert [reply["sequence"] for reply in replies] == [1, 2, 3, 4]
    assert last["summary"]["received"] == 4
    assert 0 < last["summary"]["rtt_min_s"] <= last["summary"]["rtt_median_s"] < 5


def breaker(raptor):
    status = json.loads(raptor.run("status", "--json").stdout)
    return status["breaker_failures"], status["breaker_reason"]


def test_what_sends_and_pings_find_counts_for_everybody(raptor):
    (raptor.home / "a").write_bytes(b"a")
    good = raptor.config.read_text()
    raptor.run("a", "s3://not-allowed/x")
    assert breaker(raptor) == (0, "")  # a refusal is an answer
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        raptor.config.write_text(good.replace(raptor.url, f"wg://127.0.0.1:{silent.getsockname()[1]}"))
        raptor.run("a", "s3://data/x", "--timeout", "0.5")
        assert breaker(raptor)[0] == 1
        assert raptor.run("ping", "--count", "1", "--timeout", "0.3").returncode == 1
        assert breaker(raptor)[0] == 1  # open already
    raptor.config.write_text(good)
    for heal in (["ping", "--count", "1"], ["a", "s3://data/x"], ["configure"]):
        open_breaker(raptor)
        assert breaker(raptor) == (1, "a test")
        assert raptor.run(*heal).returncode == 0
        assert breaker(raptor) == (0, ""), heal


def open_breaker(raptor):
    script = (
        "import time; from raptor_s3.cli.profile import load_profile; from raptor_s3.routing.endpoint import breaker_for;"
        "breaker_for(load_profile(None)[0]).failed('a test', time.time())"
    )
    subprocess.run([sys.executable, "-c", script], env=raptor.environment, check=True, capture_output=True)


def test_a_failed_send_took_its_time_in_the_journal(raptor):
    (raptor.home / "a").write_bytes(b"abc")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        raptor.config.write_text(raptor.config.read_text().replace(raptor.url, f"wg://127.0.0.1:{silent.getsockname()[1]}"))
        raptor.run("a", "s3://data/x", "--timeout", "0.5")
    [put] = json.loads(raptor.run("status", "--json").stdout)["puts"]
    assert put["elapsed_s"] > 0.3
    assert put["error"] in ("ConfirmationTimeout", "HandshakeTimeout")
    assert put["size_bytes"] == 3


def test_a_gateway_that_is_silent_by_policy_is_told_from_one_that_is_not_there(raptor, gateway):
    (raptor.home / "a").write_bytes(b"a")
    raptor.key_file.write_text(key_to_base64(gateway.private_keys["modern"]))
    result = raptor.run("a", raptor.url, "--timeout", "1")
    assert result.returncode == 1
    assert b"although the receiver answers pings" in result.stderr
    assert b'"legacy": true' in result.stderr
    assert b"raptor FILE s3://BUCKET/KEY" in result.stderr
    assert breaker(raptor) == (0, "")


def test_configure_tests_by_a_real_handshake(raptor):
    raptor.config.unlink()
    options = ["--server-key", raptor.server_key, "--client-key-file", raptor.key_file, "--buckets", BUCKET]
    result = raptor.run("configure", raptor.url, *options)
    assert result.returncode == 0, result.stderr
    assert b"5 of 5 pings answered" in result.stderr
    (raptor.home / "a").write_bytes(b"a")
    assert raptor.run("a", "s3://data/configured").returncode == 0


def test_configure_refuses_a_wrong_server_key(raptor):
    raptor.config.unlink()
    wrong = key_to_base64(bytes(range(1, 33)))
    result = raptor.run("configure", raptor.url, "--server-key", wrong, "--client-key-file", raptor.key_file)
    assert result.returncode == 1
    assert b"server_key" in result.stderr
    assert not raptor.config.exists()


def on_a_terminal(raptor, *arguments):
    controller, terminal = pty.openpty()
    command = [*raptor.program, *arguments]
    process = subprocess.Popen(command, env=raptor.environment, cwd=raptor.home, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    screen = b""
    while True:
        try:
            chunk = os.read(controller, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not chunk:
            break
        screen += chunk
    os.close(controller)
    return process.wait(60), screen.decode(errors="replace")
