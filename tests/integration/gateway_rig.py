"""A gateway in a process of its own, a WireGuard client that is only a Tunnel and a socket, and a local AWS."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import boto3

from raptor_s3.codec import ObjectEncoder
from raptor_s3.errors import WireGuardError
from raptor_s3.wire.datagram import (
    FLAG_CANCEL,
    FLAG_PUT_HEADER,
    FLAG_RFC6330_REPAIR,
    Datagram,
    build_datagram,
    plan_object,
)
from raptor_s3.wire.put_header import build_put_header, crc32_field
from raptor_s3.wire.transfer_state import StateType, TransferState, parse_transfer_state
from raptor_s3.wireguard.keys import generate_private_key, key_from_base64, key_to_base64, public_key
from raptor_s3.wireguard.tunnel import HandshakeComplete, Tunnel

AWS_ENV = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
WAIT_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def local_aws(folder: Path):
    """MiniStack in a process of its own; yields a function that makes clients, with `.url`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, **AWS_ENV, "GATEWAY_PORT": str(port), "LAMBDA_EXECUTOR": "local"}
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "ministack"], env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        wait_until(lambda: _answers(port), "MiniStack does not answer", process)

        def client(service: str):
            return boto3.client(
                service,
                endpoint_url=url,
                region_name="us-east-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
            )

        client.url = url
        yield client
    finally:
        process.terminate()
        process.wait(10)


def wait_until(condition, complaint: str, process: subprocess.Popen | None = None):
    deadline = time.monotonic() + WAIT_S
    while not (result := condition()):
        assert process is None or process.poll() is None, f"{complaint}: the process ended with {process.returncode}"
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)
    return result


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class GatewayProcess:
    """`python -m raptor_s3.gateway`; peers are `clients`: name -> policy fields."""

    def __init__(self, folder: Path, *options: str, peers: dict[str, dict] | None = None, plaintext: dict | None = None) -> None:
        self.folder = folder
        self.key_file = folder / "gateway.key"
        if not self.key_file.exists():
            self.key_file.touch(0o600)
            self.key_file.write_text(key_to_base64(generate_private_key(os.urandom)))
        self.private_keys: dict[str, bytes] = {}
        self.peers_file = folder / "peers.json"
        self.write_peers(peers or {}, plaintext)
        self.ready_file = folder / "ready.json"
        self.options = options
        self.process: subprocess.Popen | None = None

    def write_peers(self, peers: dict[str, dict], plaintext: dict | None = None) -> None:
        entries = []
        for name, fields in peers.items():
            private = self.private_keys.setdefault(name, generate_private_key(os.urandom))
            entries.append({"name": name, "public_key": key_to_base64(public_key(private)), **fields})
        self.peers_file.touch(0o600)
        self.peers_file.write_text(json.dumps({"peers": entries} | ({"plaintext": plaintext} if plaintext is not None else {})))

    def __enter__(self) -> GatewayProcess:
        if self.process is None:
            self.start()
        return self

    def start(self, listen: str = "127.0.0.1:0") -> None:
        command = [
            *(sys.executable, "-m", "raptor_s3.gateway", "--listen", listen, "--verbose", "--stats-interval", "1"),
            *("--private-key-file", str(self.key_file), "--peers-file", str(self.peers_file)),
            *("--ready-file", str(self.ready_file), *self.options),
        ]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **AWS_ENV}, stdout=log, stderr=log)
        wait_until(self.ready_file.exists, "the gateway is not ready", self.process)
        self.ready = json.loads(self.ready_file.read_text())

    def __exit__(self, *_) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    @property
    def log_file(self) -> Path:
        return self.folder / "gateway.log"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> dict:
        """SIGTERM; the counters that the gateway logs at its end."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(30) == 0, self.log
        return json.loads(self.log.rstrip().splitlines()[-1].partition("stopped: ")[2])

    def client(self, name: str, **more) -> Client:
        return Client(self.ready, self.private_keys[name], **more)


class Client:
    """A sender without a transfer machine: it sends what it is told, and keeps every state that comes."""

    def __init__(self, ready: dict, private_key: bytes | None, *, preshared_key: bytes | None = None, loss: float = 0.0) -> None:
        self.address = (ready["host"], ready["port"])
        self.socket = socket.socket(socket.AF_INET6 if ":" in ready["host"] else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(self.address)
        self.tunnel = None
        if private_key is not None:
            self.tunnel = Tunnel(private_key, key_from_base64(ready["public_key"]), preshared_key, random=os.urandom)
        self.states: list[TransferState] = []
        self.loss = loss
        self.random = random.Random(1)

    def handshake(self, timeout_s: float = 5.0) -> Client:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.socket.send(self.tunnel.initiation(time.monotonic(), time.time()))
            self.socket.settimeout(0.5)
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                if isinstance(self.tunnel.receive(self.socket.recv(65536), time.monotonic()), HandshakeComplete):
                    return self
        raise TimeoutError("no handshake")

    def send(self, datagram: bytes) -> None:
        if self.random.random() < self.loss:
            return
        message = self.tunnel.session.seal(datagram, time.monotonic()) if self.tunnel else datagram
        with contextlib.suppress(ConnectionRefusedError):
            self.socket.send(message)

    def send_train(self, datagrams: list[bytes]) -> None:
        """Datagrams of one size in one system call (UDP GSO), so that the gateway gets them in one, too (GRO)."""
        messages = [self.tunnel.session.seal(datagram, time.monotonic()) for datagram in datagrams]
        self.socket.sendmsg(messages, [(17, 103, struct.pack("=H", len(messages[0])))])  # SOL_UDP, UDP_SEGMENT

    def receive(self, timeout_s: float) -> bool:
        """Take one state if one comes in time."""
        self.socket.settimeout(max(timeout_s, 0.001))
        try:
            message = self.socket.recv(65536)
        except (TimeoutError, ConnectionRefusedError):
            return False
        if self.tunnel is not None:
            try:
                event = self.tunnel.receive(message, time.monotonic())
            except WireGuardError:
                return True
            if event is None:
                return True
            message = event.plaintext
        self.states.append(parse_transfer_state(message))
        return True

    def final(self, object_id: str) -> TransferState | None:
        return next((state for state in self.states if state.object_id == object_id and state.is_final), None)

    def wait_final(self, object_id: str, timeout_s: float = WAIT_S) -> TransferState:
        deadline = time.monotonic() + timeout_s
        while (state := self.final(object_id)) is None:
            assert time.monotonic() < deadline, f"no final state, only {self.states}"
            self.receive(deadline - time.monotonic())
        return state

    def put(self, body: bytes, *, timeout_s: float = WAIT_S, **fields) -> TransferState:
        """Send one object, with ever more repair symbols while nothing is heard; its final state."""
        transfer = Transfer.put(body, **fields)
        return self.send_until_final(transfer, timeout_s)

    def send_until_final(self, transfer: Transfer, timeout_s: float = WAIT_S) -> TransferState:
        deadline = time.monotonic() + timeout_s
        for datagram in transfer.source():
            self.send(datagram)
        while (state := self.final(transfer.object_id)) is None:
            assert time.monotonic() < deadline, f"no final state, only {self.states}"
            if not self.receive(0.25):
                for datagram in transfer.repair(2 + len(transfer.sent) // 8):
                    self.send(datagram)
        return state


class Transfer:
    """The datagrams of one object."""

    def __init__(self, data: bytes, object_id: str, flags: int) -> None:
        self.object_id = object_id
        self.flags = flags
        self.oti = plan_object(len(data), len(object_id.encode()))
        self.encoder = ObjectEncoder(data, self.oti)
        self.next_esi = [self.oti.block_symbols(sbn) for sbn in range(self.oti.source_blocks)]
        self.sent: list[bytes] = []

    @classmethod
    def put(cls, body: bytes, **fields) -> Transfer:
        fields = {"Bucket": "data", "Key": "k", "ChecksumCRC32": crc32_field(body), "TtlMs": 20_000, **fields}
        object_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        return cls(build_put_header(fields) + body, object_id, FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR)

    @classmethod
    def legacy(cls, body: bytes, path: str) -> Transfer:
        return cls(body, path, FLAG_RFC6330_REPAIR)

    def datagram(self, sbn: int, esi: int) -> bytes:
        symbol = self.encoder.symbol(sbn, esi)
        self.sent.append(build_datagram(Datagram(self.object_id, self.oti, self.flags, sbn, esi, symbol)))
        return self.sent[-1]

    def source(self) -> list[bytes]:
        return [self.datagram(sbn, esi) for sbn in range(self.oti.source_blocks) for esi in range(self.oti.block_symbols(sbn))]

    def repair(self, count: int) -> list[bytes]:
        """`count` fresh repair symbols of each block."""
        datagrams = []
        for sbn in range(self.oti.source_blocks):
            for _ in range(count):
                datagrams.append(self.datagram(sbn, self.next_esi[sbn]))
                self.next_esi[sbn] += 1
        return datagrams

    def cancel(self) -> bytes:
        return build_datagram(Datagram(self.object_id, self.oti, self.flags | FLAG_CANCEL, 0, 0, b""))


def succeeded(state: TransferState) -> bool:
    return state.type is StateType.COMPLETE
