"""boto3 with the plugin, a gateway process, and the S3 of a local AWS: all real, all in place."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from gateway_rig import AWS_ENV, GatewayProcess, free_port, local_aws, wait_until
from s3transfer.exceptions import CancelledError
from s3transfer.manager import TransferManager

import raptor_s3
from raptor_s3.wireguard.keys import generate_private_key, key_to_base64

PEERS = {"device": {"allow": [{"bucket": "data", "options": ["Tagging"]}, {"bucket": "missing"}]}}
TIMEOUT_S = 1.5


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with local_aws(tmp_path_factory.mktemp("aws")) as client:
        client("s3").create_bucket(Bucket="data")
        client("s3").create_bucket(Bucket="forbidden")
        yield client


@pytest.fixture(scope="module")
def gateway(aws, tmp_path_factory):
    """One for all; tests that stop it start it again, where it was."""
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), "--aws-endpoint-url", aws.url, peers=PEERS) as running:
        yield running


def start_again(gateway):
    gateway.ready_file.unlink(missing_ok=True)
    gateway.start(f"{gateway.ready['host']}:{gateway.ready['port']}")


@pytest.fixture
def settings(gateway, aws, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("AWS_", "RAPTOR_"))]:
        monkeypatch.delenv(name)
    for name, value in AWS_ENV.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    return {
        "endpoint": f"wg://{gateway.ready['host']}:{gateway.ready['port']}",
        "server_key": gateway.ready["public_key"],
        "client_key": key_to_base64(gateway.private_keys["device"]),
        "buckets": "data, missing, forbidden",
        "timeout": "10s",  # longer than any pause of a busy machine; what waits for it sets its own
        "runtime_dir": str(tmp_path / "run"),
    }


def make_client(**options):
    return boto3.session.Session().client("s3", config=Config(**options))


@pytest.fixture
def client(settings):
    made = make_client()
    with raptor_s3.enable(made, **settings):
        yield made


@pytest.fixture
def plain(settings):
    return make_client()


def route(response):
    return response["ResponseMetadata"]["Raptor"]["Route"]


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 256 * 1024, 256 * 1024 + 1])
def test_what_was_put_is_there(client, plain, size):
    body = os.urandom(size)
    response = client.put_object(Bucket="data", Key=f"dir ü/{size}", Body=body, Metadata={"a": "b"}, ContentType="x/y")
    stored = plain.get_object(Bucket="data", Key=f"dir ü/{size}")
    assert stored["Body"].read() == body
    assert (stored["Metadata"], stored["ContentType"]) == ({"a": "b"}, "x/y")
    assert response["ETag"] == stored["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert route(response) == ("raptor" if size <= 256 * 1024 else "https")


def test_the_answer_is_that_of_a_direct_call(client, plain):
    plain.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
    try:
        ours = client.put_object(Bucket="data", Key="answer", Body=b"x", ChecksumAlgorithm="SHA256", Tagging="a=b")
        theirs = plain.put_object(Bucket="data", Key="answer", Body=b"x", ChecksumAlgorithm="SHA256", Tagging="a=b")
    finally:
        plain.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Suspended"})
    assert route(ours) == "https"  # Tagging is not in backend_allows
    ours = client.put_object(Bucket="data", Key="answer", Body=b"x", ChecksumAlgorithm="SHA256")
    assert route(ours) == "raptor"
    metadata = ours["ResponseMetadata"]
    assert metadata.keys() >= theirs["ResponseMetadata"].keys() | {"Raptor"}
    assert metadata["RequestId"]
    same = theirs.keys() - {"VersionId", "ResponseMetadata"}
    assert {name: ours.get(name) for name in same} == {name: theirs[name] for name in same}


def test_gated_parameters_travel_where_both_ends_allow(settings, plain):
    client = make_client()
    raptor_s3.enable(client, **settings, backend_allows="Tagging")
    assert route(client.put_object(Bucket="data", Key="tagged", Body=b"x", Tagging="a=b")) == "raptor"
    assert plain.get_object_tagging(Bucket="data", Key="tagged")["TagSet"] == [{"Key": "a", "Value": "b"}]


def test_s3s_own_errors(client):
    client.put_object(Bucket="data", Key="once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket="data", Key="once", Body=b"2", IfNoneMatch="*")
    assert caught.value.response["Error"]["Code"] == "PreconditionFailed"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    with pytest.raises(client.exceptions.NoSuchBucket) as caught:
        client.put_object(Bucket="missing", Key="k", Body=b"2")
    assert caught.value.response["ResponseMetadata"]["Raptor"]["Route"] == "raptor"


def test_what_the_gateway_refuses_goes_over_https(client, plain):
    response = client.put_object(Bucket="forbidden", Key="k", Body=b"x")
    assert route(response) == "https"
    assert "may not write" in response["ResponseMetadata"]["Raptor"]["Reason"]
    assert plain.get_object(Bucket="forbidden", Key="k")["Body"].read() == b"x"


def test_uploads_report_progress(client, plain, tmp_path):
    body = os.urandom(200_000)
    (tmp_path / "f").write_bytes(body)
    seen = []
    for number in range(2):  # the first through s3transfer, the second on the shortcut
        client.upload_file(str(tmp_path / "f"), "data", f"file{number}", Callback=seen.append)
        client.upload_fileobj(io.BytesIO(body), "data", f"object{number}", Callback=seen.append)
    assert sum(seen) == 4 * len(body)
    for key in ("file0", "file1", "object0", "object1"):
        assert plain.get_object(Bucket="data", Key=key)["Body"].read() == body


class TestFallback:
    def put(self, client, key, body=b"body" * 100):
        began = time.monotonic()
        response = client.put_object(Bucket="data", Key=key, Body=io.BytesIO(body))
        return response, time.monotonic() - began

    @pytest.mark.parametrize("trouble", ["wrong server key", "unknown device", "nobody there", "no such host", "silence"])
    def test_within_the_timeout_and_remembered(self, settings, plain, trouble):
        stranger = key_to_base64(generate_private_key(os.urandom))
        with contextlib.ExitStack() as stack:
            if trouble == "silence":
                silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                silent.bind(("127.0.0.1", 0))
            settings |= {
                "wrong server key": {"server_key": stranger},
                "unknown device": {"client_key": stranger},
                "nobody there": {"endpoint": f"wg://127.0.0.1:{free_port()}"},
                "no such host": {"endpoint": "wg://no-such-host.invalid:51820"},
                "silence": {"endpoint": f"wg://127.0.0.1:{silent.getsockname()[1] if trouble == 'silence' else 1}"},
            }[trouble]
            client = make_client()
            with raptor_s3.enable(client, **settings | {"timeout": TIMEOUT_S}):
                first, first_s = self.put(client, "first")
                second, second_s = self.put(client, "second")
        assert route(first) == route(second) == "https"
        assert "circuit breaker open" in second["ResponseMetadata"]["Raptor"]["Reason"]
        # Not a matter of speed but of waiting: the first waited no longer than its timeout, the second not at all.
        assert first_s < TIMEOUT_S + 1.5
        assert second_s < TIMEOUT_S
        for key in ("first", "second"):
            assert plain.get_object(Bucket="data", Key=key)["Body"].read() == b"body" * 100

    def test_the_gateway_goes_and_comes_back(self, gateway, client, plain, settings):
        assert route(self.put(client, "before")[0]) == "raptor"
        raptor_s3.enable(client, **settings | {"timeout": TIMEOUT_S})
        gateway.stop()
        away = self.put(client, "away")[0]
        start_again(gateway)
        assert route(away) == "https"
        strict = make_client()
        with raptor_s3.enable(strict, **settings, transport="raptor"):  # asks in spite of the breaker, and closes it
            assert route(self.put(strict, "back")[0]) == "raptor"
        raptor_s3.enable(client, **settings)
        assert route(self.put(client, "back for all")[0]) == "raptor"
        for key in ("before", "away", "back", "back for all"):
            assert plain.get_object(Bucket="data", Key=key)["Body"].read() == b"body" * 100

    def test_who_cancels_a_large_upload_does_not_wait_for_a_silent_gateway(self, gateway, settings):
        patience_s = 60
        client = make_client()
        settings |= {"timeout": patience_s, "transport": "raptor"}
        with raptor_s3.enable(client, **settings), TransferManager(client) as manager:
            self.put(client, "before")
            gateway.send_signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                upload = manager.upload(io.BytesIO(bytes(3 << 20)), "data", "cancelled")
                time.sleep(1)
                upload.cancel()
                with pytest.raises(CancelledError):
                    upload.result()
                assert time.monotonic() - began < patience_s / 2  # not a matter of speed but of waiting
            finally:
                gateway.send_signal(signal.SIGCONT)

    def test_raise(self, settings, plain):
        client = make_client()
        settings["endpoint"] = f"wg://127.0.0.1:{free_port()}"
        with raptor_s3.enable(client, **settings, on_failure="raise"), pytest.raises(ClientError, match="RaptorUnavailable"):
            self.put(client, "raised")
        with pytest.raises(plain.exceptions.NoSuchKey):
            plain.get_object(Bucket="data", Key="raised")


class Proxy:
    """Between the gateway and S3: refuses connections while `is_closed`."""

    def __init__(self, target):
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.is_closed = False
        self.refused = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if self.is_closed:
                self.refused += 1
                near.close()
                continue
            far = socket.create_connection(self._target)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.is_closed:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._server.close()


class TestNoStaleOverwrite:
    """An older put that the fast path could not finish in time must not land on top of a newer one."""

    @pytest.fixture(autouse=True)
    def versions(self, plain):
        plain.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
        yield
        plain.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Suspended"})

    def history(self, plain, key):
        found = plain.list_object_versions(Bucket="data", Prefix=key).get("Versions", [])
        return [plain.get_object(Bucket="data", Key=key, VersionId=version["VersionId"])["Body"].read() for version in found]

    def test_when_s3_is_out_of_the_gateways_reach(self, aws, settings, plain, tmp_path):
        host, _, port = aws.url.removeprefix("http://").partition(":")
        proxy = Proxy((host, int(port)))
        (tmp_path / "behind").mkdir()
        with (
            contextlib.closing(proxy),
            GatewayProcess(tmp_path / "behind", "--aws-endpoint-url", proxy.url, peers=PEERS) as gateway,
        ):
            settings |= {
                "endpoint": f"wg://{gateway.ready['host']}:{gateway.ready['port']}",
                "server_key": gateway.ready["public_key"],
                "client_key": key_to_base64(gateway.private_keys["device"]),
            }
            client = make_client()
            with raptor_s3.enable(client, **settings):
                assert route(client.put_object(Bucket="data", Key="stale", Body=b"zero")) == "raptor"
                raptor_s3.enable(client, **settings | {"timeout": TIMEOUT_S})
                proxy.is_closed = True
                assert route(client.put_object(Bucket="data", Key="stale", Body=b"old")) == "https"
                assert proxy.refused > 0
                assert route(client.put_object(Bucket="data", Key="stale", Body=b"new")) == "https"
                proxy.is_closed = False
                time.sleep(2 * TIMEOUT_S)
        assert plain.get_object(Bucket="data", Key="stale")["Body"].read() == b"new"
        assert sorted(self.history(plain, "stale")) == [b"new", b"old", b"zero"]

    def test_when_the_gateway_stands_still(self, gateway, settings, plain):
        client = make_client()
        raptor_s3.enable(client, **settings)
        assert route(client.put_object(Bucket="data", Key="still", Body=b"zero")) == "raptor"
        raptor_s3.enable(client, **settings | {"timeout": TIMEOUT_S})
        gateway.send_signal(signal.SIGSTOP)
        try:
            assert route(client.put_object(Bucket="data", Key="still", Body=b"old")) == "https"
            assert route(client.put_object(Bucket="data", Key="still", Body=b"new")) == "https"
        finally:
            gateway.send_signal(signal.SIGCONT)
        time.sleep(TIMEOUT_S)
        assert plain.get_object(Bucket="data", Key="still")["Body"].read() == b"new"


def test_ten_threads_and_a_gateway_that_restarts(gateway, client, plain):
    bodies = {f"many/{number}": random.Random(number).randbytes(number * 500) for number in range(60)}
    errors = []

    def work(keys):
        try:
            for key in keys:
                client.put_object(Bucket="data", Key=key, Body=bodies[key])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(list(bodies)[number::10],)) for number in range(10)]
    for thread in threads:
        thread.start()
    gateway.process.kill()
    gateway.process.wait(10)
    start_again(gateway)
    for thread in threads:
        thread.join()
    assert errors == []
    for key, body in bodies.items():
        assert plain.get_object(Bucket="data", Key=key)["Body"].read() == body


def test_parents_and_children_put_side_by_side(client, plain):
    assert route(client.put_object(Bucket="data", Key="fork/parent", Body=b"parent")) == "raptor"
    children = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                answers = [client.put_object(Bucket="data", Key=f"fork/{number}/{i}", Body=b"%d" % i) for i in range(5)]
                code = 0 if all(route(answer) == "raptor" for answer in answers) else 2
            finally:
                os._exit(code)
        children.append(pid)
    for number in range(5):
        assert route(client.put_object(Bucket="data", Key=f"fork/parent/{number}", Body=b"%d" % number)) == "raptor"
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    for family in ("0", "1", "2", "parent"):
        for number in range(5):
            assert plain.get_object(Bucket="data", Key=f"fork/{family}/{number}")["Body"].read() == b"%d" % number


UNCHANGED_PROGRAM = """
    import boto3, sys
    client = boto3.Session(profile_name="edge").client("s3")
    for key in sys.argv[1:]:
        response = client.put_object(Bucket="data", Key=key, Body=key.encode())
        print(response["ResponseMetadata"].get("Raptor", {}))
"""


class TestUnchangedProgram:
    def run(self, tmp_path, settings, aws, *keys, **changes):
        section = "\n".join(f"    {key} = {value}" for key, value in {**settings, **changes}.items())
        (tmp_path / "config").write_text(
            f"[profile edge]\nregion = us-east-1\nendpoint_url = {aws.url}\n"
            f"aws_access_key_id = test\naws_secret_access_key = test\nraptor =\n{section}\n"
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment |= {
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "BOTOCORE_EXPERIMENTAL__PLUGINS": "raptor_s3=raptor_s3.plugin",
        }
        command = [sys.executable, "-c", textwrap.dedent(UNCHANGED_PROGRAM), *keys]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    def test_by_the_environment_alone(self, tmp_path, settings, aws, plain):
        done = self.run(tmp_path, settings, aws, "one", "two")
        assert done.stdout.count("'Route': 'raptor'") == 2, done.stderr
        assert plain.get_object(Bucket="data", Key="two")["Body"].read() == b"two"

    def test_the_breaker_is_shared_between_processes(self, tmp_path, settings, aws):
        nobody = f"wg://127.0.0.1:{free_port()}"
        first = self.run(tmp_path, settings, aws, "three", endpoint=nobody)
        assert "fast path failed" in first.stdout
        second = self.run(tmp_path, settings, aws, "four", endpoint=nobody)
        assert "circuit breaker open" in second.stdout

    def test_a_mistake_in_the_settings_is_said_aloud_and_costs_nothing(self, tmp_path, settings, aws, plain):
        done = self.run(tmp_path, settings, aws, "five", threshold="large")
        assert "[profile edge] raptor.threshold" in done.stderr
        assert plain.get_object(Bucket="data", Key="five")["Body"].read() == b"five"


def test_what_status_shows(client, settings):
    from raptor_s3.routing.endpoint import journal_for

    client.put_object(Bucket="data", Key="journal", Body=b"x" * 5000)
    client.put_object(Bucket="data", Key="journal", Body=b"x" * 500_000)
    config = raptor_s3.RaptorConfig.load({}, os.environ, settings)
    small, large = journal_for(config).read(2)
    assert (small.route, small.size_bytes, small.status) == ("raptor", 5000, 200)
    assert small.datagrams >= 4
    assert (large.route, large.reason) == ("https", "body 488.3 KB > threshold 256 KB")
    assert wait_until(lambda: large.etag, "no ETag")
