"""The S3 sink: a real boto3 client against a small HTTP server that answers as S3 does, or as a test tells it to."""

from __future__ import annotations

import email.utils
import hashlib
import http.server
import socket
import threading
import time
from dataclasses import dataclass, field

import pytest
from botocore import credentials

from raptor_s3.gateway import late_credentials
from raptor_s3.gateway.aws import disable_plugin, make_client
from raptor_s3.gateway.s3 import S3Sink
from raptor_s3.gateway.sink import ObjectWrite
from raptor_s3.gateway.workers import Completions
from raptor_s3.net import clock
from raptor_s3.wire.put_header import crc32_field
from raptor_s3.wire.transfer_state import StateType

BODY = b"a body of a certain length"


@dataclass
class FakeS3:
    """`script` holds what happens to the next requests: "store", "store, then 500", a status and code, "hang up"."""

    script: list = field(default_factory=list)
    objects: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    hold: threading.Event | None = None
    heads: list | None = None
    entered: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def store(self, handler, body: bytes) -> None:
        self.objects[handler.path] = (body, handler.headers.get("x-amz-checksum-crc32"), time.time())


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")


@pytest.fixture
def s3():
    fake = FakeS3()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, headers=(), body=b""):
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def error(self, status, code):
            self.answer(status, [], f"<Error><Code>{code}</Code><Message>because</Message></Error>".encode())

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fake.requests.append(dict(self.headers))
            fake.entered.set()
            if fake.hold:
                fake.hold.wait(10)
            step = fake.script.pop(0) if fake.script else "store"
            if step == "hang up":
                self.close_connection = True
                self.connection.close()
                return
            if step == "store, then 500":
                fake.store(self, body)
                self.error(500, "InternalError")
                return
            if step == "redirect":
                self.answer(307, [("Location", fake.url + self.path)])
                return
            if isinstance(step, tuple):
                self.error(*step)
                return
            if self.headers.get("If-None-Match") == "*" and self.path in fake.objects:
                self.error(412, "PreconditionFailed")
                return
            fake.store(self, body)
            self.answer(200, [("ETag", f'"{hashlib.md5(body).hexdigest()}"'), ("x-amz-version-id", "v1")])

        def do_HEAD(self):
            if fake.heads is not None:
                fake.heads.append(self.path)
                self.answer(307, [("Location", fake.url + self.path)])
                return
            if self.path not in fake.objects:
                self.error(404, "NotFound")
                return
            body, checksum, stored_at = fake.objects[self.path]
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
            self.send_header("Last-Modified", email.utils.formatdate(stored_at, usegmt=True))
            if checksum:
                self.send_header("x-amz-checksum-crc32", checksum)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


class Rig:
    """A sink and the loop that would own it."""

    def __init__(self, url, **more):
        client = make_client("s3", region="us-east-1", endpoint_url=url, connections=4, read_timeout_s=5)
        self.woken = threading.Event()
        self.completions = Completions(self.woken.set)
        self.sink = S3Sink(client, self.completions, **{"workers": 1, **more})
        self.outcomes = {}

    def submit(self, key="k", ttl_s=20.0, **parameters):
        parameters = {"Bucket": "b", "Key": key, "ChecksumCRC32": crc32_field(BODY), **parameters}
        write = ObjectWrite(parameters, memoryview(BODY), clock.now() + ttl_s)
        assert self.sink.submit(write, lambda outcome: self.outcomes.__setitem__(key, outcome))
        return write

    def outcome(self, key="k"):
        deadline = time.monotonic() + 20
        while key not in self.outcomes:
            assert time.monotonic() < deadline, "no outcome"
            self.woken.wait(1)
            self.woken.clear()
            self.completions.run()
        return self.outcomes[key]

    def put(self, **parameters):
        self.submit(**parameters)
        return self.outcome()


@pytest.fixture
def rig(s3):
    rig = Rig(s3.url)
    yield rig
    rig.sink.close(5)


def test_the_answer_is_s3s_own(rig, s3):
    outcome = rig.put(ContentType="text/plain", Metadata={"a": "b"})
    assert outcome.type is StateType.COMPLETE
    assert outcome.fields["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'
    assert outcome.fields["VersionId"] == "v1"
    assert "ResponseMetadata" not in outcome.fields
    (headers,) = s3.requests
    assert headers["x-amz-checksum-crc32"] == crc32_field(BODY)
    assert headers["Content-Type"] == "text/plain"
    assert headers["x-amz-meta-a"] == "b"


def test_one_checksum_only_reaches_s3(rig, s3):
    rig.put(ChecksumSHA256="47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
    assert "x-amz-checksum-sha256" in s3.requests[0]
    assert "x-amz-checksum-crc32" not in s3.requests[0]


def test_s3s_refusal_is_passed_on_and_not_retried(rig, s3):
    s3.script = [(403, "AccessDenied")]
    outcome = rig.put()
    assert outcome.type is StateType.FAILED
    assert outcome.fields == {"Code": "AccessDenied", "Message": "because", "StatusCode": 403}
    assert len(s3.requests) == 1


@pytest.mark.parametrize("trouble", [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests"), "hang up"])
def test_trouble_is_retried_within_the_time_to_live(rig, s3, trouble):
    s3.script = [trouble, trouble]
    assert rig.put().type is StateType.COMPLETE
    assert len(s3.requests) == 3


def test_nothing_is_written_past_the_time_to_live(rig, s3):
    assert rig.put(ttl_s=0.0).type is StateType.CANCELLED
    s3.script = [(503, "SlowDown")] * 100
    assert rig.put(key="k", ttl_s=0.3).type is StateType.CANCELLED
    assert s3.objects == {}


def test_past_the_time_to_live_a_write_that_may_have_happened_is_not_denied(rig, s3):
    s3.script = ["store, then 500"] + [(500, "InternalError")] * 100
    outcome = rig.put(ttl_s=0.3)
    assert outcome.type is StateType.FAILED
    assert outcome.fields["Code"] == "RequestExpired"
    assert outcome.fields["Message"].startswith("gateway:")


def test_if_none_match_is_not_failed_by_our_own_earlier_attempt(rig, s3):
    s3.script = ["store, then 500"]
    outcome = rig.put(IfNoneMatch="*")
    assert outcome.type is StateType.COMPLETE
    assert outcome.fields["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'
    assert len(s3.requests) == 2


def test_if_none_match_still_fails_when_another_object_stands_there(rig, s3):
    s3.objects["/b/k"] = (b"x" * len(BODY), crc32_field(b"x" * len(BODY)), time.time())
    s3.script = [(500, "InternalError")]
    assert rig.put(IfNoneMatch="*").fields["Code"] == "PreconditionFailed"


def test_an_older_object_with_the_same_bytes_is_not_taken_for_ours(rig, s3):
    s3.objects["/b/k"] = (BODY, crc32_field(BODY), time.time() - 60)
    s3.script = [(500, "InternalError")]
    assert rig.put(IfNoneMatch="*").fields["Code"] == "PreconditionFailed"


def test_a_cancel_stops_what_has_not_begun_and_waits_for_what_has(s3):
    rig = Rig(s3.url)
    s3.hold = threading.Event()
    first = rig.submit("first")
    assert s3.entered.wait(5)
    second = rig.submit("second")
    rig.sink.cancel(second)
    assert rig.outcomes["second"].type is StateType.CANCELLED
    rig.sink.cancel(first)
    assert "first" not in rig.outcomes
    s3.hold.set()
    assert rig.outcome("first").type is StateType.COMPLETE
    assert list(s3.objects) == ["/b/first"]
    rig.sink.close(5)


@pytest.mark.parametrize(("trouble", "expected"), [((503, "SlowDown"), StateType.CANCELLED), ("hang up", StateType.FAILED)])
def test_a_cancel_between_attempts_is_honoured(s3, trouble, expected):
    rig = Rig(s3.url)
    s3.hold = threading.Event()
    s3.script = [trouble]
    write = rig.submit()
    assert s3.entered.wait(5)
    rig.sink.cancel(write)
    s3.hold.set()
    assert rig.outcome().type is expected
    assert s3.objects == {}
    rig.sink.close(5)


@pytest.mark.parametrize(("ttl_s", "patient"), [(1.5, "1"), (4.0, "3"), (20.0, "10")])
def test_an_attempt_waits_no_longer_than_there_is_time(s3, ttl_s, patient):
    class Client:
        def __init__(self, name):
            self.name = name

        def put_object(self, **_):
            used.append(self.name)
            return {}

    used = []
    completions = Completions(lambda: None)
    sink = S3Sink(Client("10"), completions, workers=1, hasty=[(1, Client("1")), (3, Client("3"))])
    sink.submit(ObjectWrite({"Bucket": "b", "Key": "k"}, memoryview(BODY), clock.now() + ttl_s), lambda _: None)
    sink.close(5)
    assert used == [patient]


def test_a_full_sink_refuses(s3):
    rig = Rig(s3.url, limit=1)
    s3.hold = threading.Event()
    rig.submit("1")
    assert s3.entered.wait(5)
    rig.submit("2")
    refused = ObjectWrite({"Bucket": "b", "Key": "3"}, memoryview(BODY), clock.now() + 5)
    assert not rig.sink.submit(refused, lambda _: None)
    s3.hold.set()
    rig.outcome("2")
    assert rig.sink.load == 0
    rig.sink.close(5)


def test_a_parameter_that_boto3_refuses_is_the_clients_fault(rig):
    outcome = rig.put(Metadata={"ключ": "x"})
    assert outcome.fields["Code"] == "InvalidArgument"
    assert outcome.fields["StatusCode"] == 400


def test_no_s3_at_all_is_unavailable():
    rig = Rig("http://127.0.0.1:1")
    rig.submit(ttl_s=0.2)
    outcome = rig.outcome()
    assert outcome.type is StateType.CANCELLED
    rig.sink.close(5)


def delay(monkeypatch, module, name, entered, event):
    """Calls of the function wait for `event`."""
    function = getattr(module, name)

    def late(*args, **options):
        entered.set()
        assert event.wait(10)
        return function(*args, **options)

    monkeypatch.setattr(module, name, late)


@pytest.mark.parametrize(
    ("module", "name"),
    [(socket, "getaddrinfo"), (credentials.Credentials, "get_frozen_credentials")],
    ids=["the resolver", "credentials"],
)
@pytest.mark.parametrize("why", ["its time has passed", "it is cancelled"])
def test_nothing_is_sent_after_what_took_too_long_before(s3, monkeypatch, module, name, why):
    now, entered, event = [clock.now()], threading.Event(), threading.Event()
    rig = Rig(s3.url.replace("127.0.0.1", "localhost"), clock=lambda: now[0])
    delay(monkeypatch, module, name, entered, event)
    write = rig.submit(ttl_s=5)
    assert entered.wait(5)
    if why == "it is cancelled":
        rig.sink.cancel(write)
    else:
        now[0] += 6
    event.set()
    assert rig.outcome().type is StateType.CANCELLED
    assert not s3.requests
    rig.submit("next")
    assert rig.outcome("next").type is StateType.COMPLETE
    rig.sink.close(5)


def test_a_redirect_that_leads_nowhere_ends(s3, rig):
    s3.script, s3.heads = ["redirect"], []
    assert rig.put().type is StateType.FAILED
    assert len(s3.requests) == 1
    assert len(s3.heads) <= 1


def test_credentials_that_come_later_are_found(s3, monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setattr(late_credentials, "LOOK_AGAIN_S", 0.0)
    rig = Rig(s3.url)
    assert "no AWS credentials" in caplog.text
    rig.submit("1")
    assert rig.outcome("1").fields["Code"] == "ServiceUnavailable"
    assert not s3.requests
    file.write_text("[default]\naws_access_key_id = x\naws_secret_access_key = x\n")
    rig.submit("2")
    assert rig.outcome("2").type is StateType.COMPLETE
    rig.sink.close(5)


def test_the_gateway_does_not_load_our_own_plugin(monkeypatch):
    monkeypatch.setenv("BOTOCORE_EXPERIMENTAL__PLUGINS", "raptor_s3=raptor_s3.plugin,other=some.module")
    disable_plugin()
    import os

    assert os.environ["BOTOCORE_EXPERIMENTAL__PLUGINS"] == "other=some.module"
