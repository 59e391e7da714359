"""Lambda: sends an object of the objects bucket to a UDP endpoint, for tests and for copies between buckets.

    {"Key": "a.bin", "Endpoint": "udp://host:port",
     "Target": {"Bucket": "b", "Key": "k", ...}     PutObject parameters; without it, a bare object as the published CLI sends it
     "RateMbps": 10, "TimeoutS": 20}

Answers {"Outcome": "CONFIRMED" | "REJECTED" | ..., "Answer": {...}, "DatagramsSent": n, "ElapsedS": s}. Plaintext only: a
WireGuard identity does not belong into a function that anybody in the account may invoke.

Invariant: it ends before the function's own timeout, and sends no faster than it was told.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from backend.runtime import count, logger, make_client, metrics
from raptor_s3.errors import ConfigError, MalformedPacket
from raptor_s3.transfer.outgoing import OutgoingTransfer
from raptor_s3.transfer.plan import PutRequest
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.datagram import MAX_DATAGRAM
from raptor_s3.wire.put_header import crc32_field
from raptor_s3.wire.transfer_state import parse_transfer_state

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_OBJECT_BYTES: Final = 64 << 20
MARGIN_S: Final = 3.0


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Raises ConfigError for an event that can't be carried out."""
    request, address, rate_mbps = _read_event(event)
    stored = make_client("s3").get_object(Bucket=os.environ["OBJECTS_BUCKET"], Key=request["Key"])
    body = stored["Body"].read(MAX_OBJECT_BYTES + 1)
    if len(body) > MAX_OBJECT_BYTES:
        raise ConfigError(f"object is larger than {MAX_OBJECT_BYTES} octets", key="Key")
    timeout_s = min(float(request.get("TimeoutS", 20)), context.get_remaining_time_in_millis() / 1000 - MARGIN_S)
    transfer, answer = send(_put_request(request, body, timeout_s), address, rate_mbps)
    count("ObjectsSent")
    return answer | {"DatagramsSent": transfer.stats.datagrams_sent}


def _read_event(event: Any) -> tuple[Mapping[str, Any], tuple[str, int], float]:
    if not isinstance(event, dict) or not isinstance(event.get("Key"), str):
        raise ConfigError("the event has no Key", key="Key")
    url = urlsplit(str(event.get("Endpoint", "")))
    if url.scheme != "udp" or not url.hostname or not url.port:
        raise ConfigError(f"{event.get('Endpoint')!r} is no udp://host:port", key="Endpoint")
    rate = event.get("RateMbps", 10)
    if not isinstance(rate, int | float) or not 0 < rate <= 1000:
        raise ConfigError(f"{rate!r} is not within 0..1000", key="RateMbps")
    return event, (url.hostname, url.port), float(rate)


def _put_request(event: Mapping[str, Any], body: bytes, timeout_s: float) -> PutRequest:
    target = event.get("Target")
    if target is None:
        return PutRequest(event["Key"], None, body, timeout_s)
    object_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
    return PutRequest(object_id, {**target, "ChecksumCRC32": crc32_field(body)}, body, timeout_s)


def send(request: PutRequest, address: tuple[str, int], rate_mbps: float) -> tuple[OutgoingTransfer, dict[str, Any]]:
    """Drive one transfer over a UDP socket to its end."""
    began = now = time.monotonic()
    sender = Sender(now, cap=rate_mbps * 1e6 / 8)
    transfer = OutgoingTransfer(request, now, sender.path)
    sender.add(transfer)
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(address)
        udp.setblocking(False)
        while not sender.ended:
            _send_due(sender, udp)
            now = time.monotonic()
            wait_s = min(sender.next_send_at(now), sender.get_timer()) - now
            if select.select([udp], [], [], max(0.0, min(wait_s, 1.0)))[0]:
                _receive(sender, udp)
            sender.handle_timer(time.monotonic())
    outcome = transfer.outcome
    return transfer, {
        "Outcome": outcome.name if outcome else "",
        "Answer": dict(transfer.answer or {}),
        "ElapsedS": round(time.monotonic() - began, 3),
    }


def _send_due(sender: Sender, udp: socket.socket) -> None:
    while run := sender.next_run(time.monotonic()):
        transfer, symbols = run
        size = transfer.datagram_size
        arena = bytearray(size * symbols.length)
        transfer.write(symbols, arena, 0, size)
        for offset in range(0, len(arena), size):
            _send(udp, arena[offset : offset + size])
    for cancelled in sender.take_cancels():
        _send(udp, cancelled.take_cancel(time.monotonic()))


def _send(udp: socket.socket, datagram: bytes | bytearray) -> None:
    try:
        udp.send(datagram)
    except OSError as error:  # full buffer, ICMP unreachable: as good as lost on the way
        logger.debug("not sent: %s", error)


def _receive(sender: Sender, udp: socket.socket) -> None:
    while True:
        try:
            state = parse_transfer_state(udp.recv(MAX_DATAGRAM))
        except OSError:  # nothing more, or ICMP unreachable
            return
        except MalformedPacket as error:
            logger.warning("dropped: %s", error)
            continue
        sender.receive_state(state, time.monotonic())
