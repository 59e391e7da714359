"""The HTTPS server of the comparison: nginx, TLS 1.3 only, kept-alive connections, an answer as soon as the body is there.

An honest peer for a transport benchmark: it reads the whole body (a bare `return 200` would answer before the body has
arrived), honours `Expect: 100-continue`, answers with an ETag, and stores nothing. Its certificate is signed by a CA of our
own, delivered inside a bundle as large as the one boto3 ships, because loading that bundle is part of a cold client's cost.
"""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from benchmarks.link import Namespace
    from benchmarks.peers.loopback import Loopback

PORT = 443
ETAG = "d41d8cd98f00b204e9800998ecf8427e"

CONFIG = """
daemon off; user root; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off; tcp_nodelay on;
    keepalive_timeout 3600s; keepalive_requests 1000000;
    client_max_body_size 64m; client_body_buffer_size 4m; client_body_timeout 600s; send_timeout 600s;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    server {{
        listen {address}:{port} ssl;
        ssl_certificate {directory}/server.pem; ssl_certificate_key {directory}/server.key; ssl_protocols TLSv1.3;
        location / {{ proxy_pass http://unix:{directory}/sink.sock:; proxy_request_buffering on; proxy_pass_request_body off;
                      proxy_set_header Content-Length ""; proxy_method GET; }}
    }}
    server {{
        listen unix:{directory}/sink.sock;
        location / {{ add_header ETag '"{etag}"'; return 200; }}
    }}
}}
"""


class Nginx:
    """A running nginx in `namespace`, files in `directory`; a context manager. `url`, and `ca_file` for the clients."""

    def __init__(self, namespace: Namespace | Loopback, directory: Path) -> None:
        self.url = f"https://{namespace.address}:{PORT}"
        self.ca_file = directory / "bundle.pem"
        for name in ("body", "proxy"):
            (directory / name).mkdir(exist_ok=True)
        _write_certificates(directory, namespace.address)
        config = directory / "nginx.conf"
        config.write_text(CONFIG.format(directory=directory, address=namespace.address, port=PORT, etag=ETAG))
        self._process = namespace.popen(
            ["nginx", "-c", str(config), "-p", str(directory)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._wait_until_listening(namespace)

    def close(self) -> None:
        """Stop nginx; its workers go with it."""
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _wait_until_listening(self, namespace: Namespace | Loopback) -> None:
        from socket import create_connection

        for _ in range(200):
            if self._process.poll() is not None:
                raise OSError(f"nginx: {self._process.communicate()[1].decode().strip()}")
            try:
                with namespace.entered():
                    create_connection((namespace.address, PORT), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise OSError("nginx does not listen after 4 seconds")


def _write_certificates(directory: Path, address: str) -> None:
    """A CA and a server certificate for `address`; RSA 2048, as S3's are."""
    now = datetime.datetime.now(datetime.UTC)
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "raptor-s3 benchmark CA")])
    ca_key, server_key = (rsa.generate_private_key(65537, 2048) for _ in range(2))

    def builder(subject: x509.Name, public_key: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(ca_name, subject, public_key, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=7))
        )

    ca = builder(ca_name, ca_key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    server = builder(subject, server_key.public_key()).add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    ca_pem = ca.sign(ca_key, hashes.SHA256()).public_bytes(pem)
    (directory / "server.pem").write_bytes(server.sign(ca_key, hashes.SHA256()).public_bytes(pem) + ca_pem)
    key = server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_path = directory / "server.key"
    key_path.touch(mode=0o600)
    key_path.write_bytes(key)
    with open(certifi.where(), "rb") as bundle:
        (directory / "bundle.pem").write_bytes(bundle.read() + b"\n" + ca_pem)
