"""A real receiver in a thread: WireGuard listener, Collector, and a sink. For tests and benchmarks of the engine."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

from raptor_s3.errors import MalformedPacket, WireGuardError
from raptor_s3.net import clock
from raptor_s3.transfer.events import CancelWrite, ObjectReady, SendState
from raptor_s3.transfer.incoming import Collector
from raptor_s3.wire.datagram import parse_datagram
from raptor_s3.wire.transfer_state import StateType, TransferState, build_transfer_state
from raptor_s3.wireguard.keys import generate_private_key, public_key
from raptor_s3.wireguard.listener import Data as ListenerData
from raptor_s3.wireguard.listener import Listener, PeerConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

from raptor_s3.net.settings import EndpointSettings


class Responder:
    """Listens on a loopback port. `objects` holds what was written: (bucket, key) -> list of bodies, oldest first."""

    def __init__(
        self,
        *,
        is_plaintext: bool = False,
        sink: Callable[[ObjectReady], TransferState | None] | None = None,
        drop: Callable[[bytes], bool] | None = None,
        port: int = 0,
        keys: tuple[bytes, bytes] | None = None,
        keep: bool = True,
    ) -> None:
        self.server_key, self.client_key = keys or (generate_private_key(os.urandom), generate_private_key(os.urandom))
        self.is_plaintext = is_plaintext
        self.objects: dict[tuple[str, str], list[bytes]] = {}
        self.received = 0
        self.sink = sink
        self.drop = drop
        self.honours_cancel = False
        """Whether a sink that has not answered yet can still be stopped."""
        self.drop_answer: Callable[[bytes], bool] | None = None
        self.keep = keep
        self.lock = threading.Lock()
        self.collector = Collector()
        self.listener = Listener(self.server_key, {public_key(self.client_key): PeerConfig()}, random=os.urandom)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, 33):  # 33: SO_RCVBUFFORCE, for root
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def settings(self, runtime_dir: Path | None = None, **changes: Any) -> EndpointSettings:
        scheme = "udp" if self.is_plaintext else "wg"
        return EndpointSettings(
            f"{scheme}://127.0.0.1:{self.port}",
            server_key=public_key(self.server_key),
            client_key=self.client_key,
            allow_plaintext=self.is_plaintext,
            runtime_dir=runtime_dir,
            share_sessions=runtime_dir is not None,
            **changes,
        )

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        while True:
            with self.lock:
                due = self.collector.get_timer()
                wait_ms = 1000.0 if due is None else max(0.0, min(1.0, due - clock.now())) * 1000
            ready = poll.poll(wait_ms)
            if any(descriptor == self._stop_read for descriptor, _ in ready):
                return
            with self.lock:
                while True:
                    try:
                        message, source = self._socket.recvfrom(2048)
                    except BlockingIOError:
                        break
                    except OSError:
                        continue
                    self._receive(message, source)
                self._carry_out(self.collector.handle_timer(clock.now()))

    def _receive(self, message: bytes, source: Any) -> None:
        self.received += 1
        if self.drop is not None and self.drop(message):
            return
        now = clock.now()
        if self.is_plaintext:
            self._datagram(b"", message, now, (None, source))
            return
        for outcome in self.listener.receive(message, source, now):
            if isinstance(outcome, ListenerData):
                self._datagram(outcome.peer_key, outcome.plaintext, now, (outcome.session, outcome.source))
            else:
                self._send(outcome.message, outcome.destination)

    def _datagram(self, peer_key: bytes, data: bytes, now: float, origin: Any) -> None:
        try:
            datagram = parse_datagram(data)
        except MalformedPacket:
            return
        self._carry_out(self.collector.receive(peer_key, datagram, now, origin))

    def _carry_out(self, events: Any) -> None:
        for event in events:
            if isinstance(event, SendState):
                session, address = event.origin
                payload = build_transfer_state(event.state)
                for _ in range(event.copies):
                    with contextlib.suppress(WireGuardError):
                        self._send(payload if session is None else session.seal(payload, clock.now()), address)
            elif isinstance(event, ObjectReady):
                state = self.write(event) if self.sink is None else self.sink(event)
                if state is not None:
                    self._carry_out(self.collector.finish(event.transfer, state.type, state.fields, clock.now()))
            elif isinstance(event, CancelWrite) and self.honours_cancel:
                self._carry_out(self.collector.finish(event.transfer, StateType.CANCELLED, None, clock.now()))

    def write(self, ready: ObjectReady) -> TransferState:
        """What a sink does: keep the body, answer as S3 would."""
        fields = ready.fields or {"Bucket": "", "Key": ready.transfer.object_id}
        body = bytes(ready.body)
        if self.keep:
            self.objects.setdefault((fields["Bucket"], fields["Key"]), []).append(body)
            etag = f'"{hashlib.md5(body).hexdigest()}"'
        else:
            etag = '"d41d8cd98f00b204e9800998ecf8427e"'
        return TransferState(StateType.COMPLETE, ready.transfer.object_id, fields={"ETag": etag})

    def finish(self, ready: ObjectReady, state: TransferState) -> None:
        """From any thread: the answer of a sink that took its time."""
        with self.lock:
            self._carry_out(self.collector.finish(ready.transfer, state.type, state.fields, clock.now()))

    def _send(self, message: bytes, address: Any) -> None:
        if self.drop_answer is not None and self.drop_answer(message):
            return
        with contextlib.suppress(OSError):
            self._socket.sendto(message, address)

    def stop(self) -> None:
        os.write(self._stop_write, b"x")
        self._thread.join()
        self._socket.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def __enter__(self) -> Responder:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def put_fields(key: str, body: bytes, bucket: str = "bucket") -> dict[str, Any]:
    import binascii

    checksum = base64.b64encode(binascii.crc32(body).to_bytes(4, "big")).decode()
    return {"Bucket": bucket, "Key": key, "ChecksumCRC32": checksum}


class Restartable:
    """A responder that can be stopped and started again on the same port with the same keys."""

    def __init__(self) -> None:
        self.now = Responder()
        self.keys = (self.now.server_key, self.now.client_key)
        self.port = self.now.port

    def stop(self) -> None:
        self.now.stop()

    def start(self) -> None:
        self.now = Responder(port=self.port, keys=self.keys)
