"""A small S3 over HTTPS in this process, and an engine that carries puts nowhere: what the routing tests stand on.

HTTPS, because botocore treats bodies differently without TLS (and with awscrt even sends files from their beginning).
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import datetime
import email.utils
import functools
import hashlib
import io
import ipaddress
import os
import ssl
import tempfile
import threading
import time
import zlib
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import boto3
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from raptor_s3.routing import hooks, shortcuts
from raptor_s3.routing.breaker import Breaker
from raptor_s3.routing.config import RaptorConfig
from raptor_s3.routing.fast_path import FastPath
from raptor_s3.routing.request import Destination

KEY = base64.b64encode(bytes(32)).decode()


@dataclass
class Stats:
    datagrams_sent: int = 3
    lost_estimate: int = 1
    rtt_s: float = 0.015
    handshake: bool = False


@dataclass
class Outcome:
    fields: dict
    stats: Stats = field(default_factory=Stats)


class EngineDouble:
    """Remembers puts and answers as a gateway that writes to S3 would; `error` is raised instead, once it is set."""

    def __init__(self):
        self.puts = []
        self.error = None
        self.answer = {}

    def put(self, fields, body, *, timeout_s, confirm):
        if self.error is not None:
            raise self.error
        self.puts.append((dict(fields), bytes(body)))
        answer = {
            "ETag": f'"{hashlib.md5(body).hexdigest()}"',
            "ChecksumCRC32": base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode(),
            "ChecksumType": "FULL_OBJECT",
            "ServerSideEncryption": "AES256",
            "RequestId": "REQUEST",
            "HostId": "HOST",
        }
        return Outcome({**answer, **self.answer})

    def submit(self, fields, body, *, timeout_s, confirm):
        future = Future()
        try:
            future.set_result(self.put(fields, body, timeout_s=timeout_s, confirm=confirm))
        except Exception as error:
            future.set_exception(error)
        return future

    @property
    def bodies(self):
        return [body for _, body in self.puts]


class Stream:
    """Readable only."""

    def __init__(self, data):
        self._file = io.BytesIO(data)

    def read(self, size=-1):
        return self._file.read(size)


@dataclass
class Stored:
    body: bytes
    headers: dict
    at: float = field(default_factory=time.time)

    @property
    def etag(self):
        return f'"{hashlib.md5(self.body).hexdigest()}"'


class S3Double:
    """PUT, GET and HEAD of objects at `url`, path style, with If-Match and If-None-Match.

    `puts` in order of arrival, `heads` likewise with their headers; `fail_next` are statuses that PUTs are answered with first;
    `deny_heads`: HEAD is answered with 403.
    """

    def __init__(self):
        double = self
        self.objects: dict[str, Stored] = {}
        self.puts: list[str] = []
        self.heads: list[tuple[str, dict]] = []
        self.fail_next: list[int] = []
        self.deny_heads = False

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self):
                double._put(self)

            def do_GET(self):
                stored = double.objects.get(unquote(urlsplit(self.path).path))
                self.send_response(200 if stored else 404)
                self.send_header("Content-Length", str(len(stored.body) if stored else 0))
                self.end_headers()
                if stored:
                    self.wfile.write(stored.body)

            def do_HEAD(self):
                double._head(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = _tls_context().wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _put(self, request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers.get("transfer-encoding"):
            body = _read_chunked(request.rfile)
        else:
            body = request.rfile.read(int(headers.get("content-length", 0)))
        if "aws-chunked" in headers.get("content-encoding", ""):
            body = _read_chunked(io.BytesIO(body))
        name = unquote(urlsplit(request.path).path)
        status = self.fail_next.pop(0) if self.fail_next else self._condition(headers, self.objects.get(name))
        self.puts.append(name)
        stored = Stored(body, headers)
        if status == 200:
            self.objects[name] = stored
        request.send_response(status)
        request.send_header("ETag", stored.etag)
        request.send_header("x-amz-request-id", "HTTPS-REQUEST")
        error = _ERRORS.get(status, b"")
        request.send_header("Content-Length", str(len(error)))
        request.end_headers()
        request.wfile.write(error)

    @staticmethod
    def _condition(headers, present):
        if "if-none-match" in headers and present:
            return 412
        if "if-match" in headers and (present is None or present.etag != headers["if-match"]):
            return 412 if present else 404
        return 200

    def _head(self, request):
        name = unquote(urlsplit(request.path).path)
        self.heads.append((name, {name.lower(): value for name, value in request.headers.items()}))
        stored = self.objects.get(name)
        request.send_response(403 if self.deny_heads else 200 if stored else 404)  # sends Date, too
        request.send_header("x-amz-request-id", "HEAD-REQUEST")
        if stored and not self.deny_heads:
            request.send_header("ETag", stored.etag)
            request.send_header("Last-Modified", email.utils.formatdate(stored.at, usegmt=True))
            request.send_header("Content-Length", str(len(stored.body)))
            for header, value in stored.headers.items():
                if header.startswith(_ECHOED) and header != "content-length":
                    request.send_header(header, value)
        request.end_headers()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


_ECHOED = (
    "x-amz-meta-",
    "x-amz-checksum-crc",
    "x-amz-checksum-sha",
    "x-amz-storage-class",
    "cache-control",
    "content-",
    "expires",
)
_ERRORS = {
    409: b"<Error><Code>ConditionalRequestConflict</Code><Message>S3's words</Message></Error>",
    412: b"<Error><Code>PreconditionFailed</Code><Message>S3's words</Message></Error>",
}


def _read_chunked(file):
    body = b""
    while size := int(file.readline().split(b";")[0], 16):
        body += file.read(size)
        file.readline()
    while file.readline().strip():
        pass
    return body


@functools.cache
def certificate():
    """The path of a fresh certificate for 127.0.0.1, its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    pem = made.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    handle, path = tempfile.mkstemp(suffix=".pem")
    os.write(handle, pem)
    os.close(handle)
    atexit.register(os.unlink, path)
    return path


def _tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate())
    return context


def make_config(double, **settings):
    defaults = {
        "endpoint": "wg://127.0.0.1:9",
        "server_key": KEY,
        "client_key": KEY,
        "buckets": "bucket*",
        "s3_endpoint": double.url,
    }
    return RaptorConfig.load({}, {}, {**defaults, **settings})


@functools.cache
def session():
    """One for all tests: it keeps the parsed service model."""
    return boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")


def make_client(double, **options):
    return session().client(
        "s3",
        endpoint_url=double.url,
        verify=certificate(),
        config=Config(retries={"total_max_attempts": 3, "mode": "standard"}, s3={"addressing_style": "path"}, **options),
    )


class Rig:
    """An S3, an engine double, and `hooks.attach`'s arguments that tie them together."""

    def __init__(self, with_shortcuts=False):
        self.with_shortcuts = with_shortcuts
        self.s3 = S3Double()
        self.engine = EngineDouble()
        self.breaker = Breaker(None)
        self.records = []
        self.record = self.records.append

    def attach(self, client=None, **settings):
        client = client or make_client(self.s3)
        attachment = self.attach_to(client, make_config(self.s3, **settings))
        if self.with_shortcuts:
            for bucket in ("bucket", "elsewhere"):
                attachment.puts.destinations[bucket] = Destination(f"{self.s3.url}/{bucket}", "v4", "s3")
            shortcuts.install(client, attachment)
        return client

    def attach_to(self, target, config):
        return hooks.attach(target, config, make_fast_path=self.make_fast_path, make_journal=lambda config: self)

    def make_fast_path(self, config):
        return FastPath(config, lambda: self.engine, self.breaker)

    def over_https(self, key):
        stored = self.s3.objects.get(f"/bucket/{key}")
        return None if stored is None else stored.body


@contextlib.contextmanager
def rig(with_shortcuts=False):
    before = dict(os.environ)
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull, AWS_EC2_METADATA_DISABLED="true")
    made = Rig(with_shortcuts)
    try:
        yield made
    finally:
        made.s3.close()
        os.environ.clear()
        os.environ.update(before)
