"""How many datagrams a second one core of the gateway takes, with the null sink behind it (`python -m benchmarks.gateway`).

A sender process seals all traffic beforehand, then sends it over loopback in UDP GSO bursts, as our sender does (`--plain`: one
system call a datagram), at most `WINDOW` datagrams ahead of the confirmations. The gateway is a process of its own.

    datagrams/s   by the clock, sender and gateway on the cores they find
    per core      datagrams over the gateway's own CPU time (user + system): the number to hold it to

`--stages` tells where the time goes, in one process: each stage is run alone on the same traffic.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from raptor_s3.codec import ObjectEncoder
from raptor_s3.gateway.endpoint import Burst
from raptor_s3.net import clock
from raptor_s3.wire.datagram import FLAG_PUT_HEADER, FLAG_RFC6330_REPAIR, Datagram, datagram_prefix, parse_datagram, plan_object
from raptor_s3.wire.put_header import build_put_header, crc32_field
from raptor_s3.wire.transfer_state import parse_transfer_state
from raptor_s3.wireguard.keys import generate_private_key, key_from_base64, key_to_base64, public_key
from raptor_s3.wireguard.listener import Data, Listener, PeerConfig, Send
from raptor_s3.wireguard.tunnel import HandshakeComplete, Tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from raptor_s3.wireguard.session import Session

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
DATAGRAMS: Final = 60_000
WINDOW: Final = 2_000
PATIENCE_S: Final = 5.0
TARGET_PER_CORE: Final = 40_000
_SEGMENTS: Final = 40
_UDP_SEGMENT: Final = 103
_SOL_UDP: Final = 17


class Traffic(NamedTuple):
    """Bursts of equal-size sealed messages; the object ids, in order of their last datagram."""

    bursts: list[tuple[bytes, int]]
    datagrams: int
    object_ids: list[str]
    per_object: int


class Result(NamedTuple):
    size: int
    datagrams: int
    elapsed_s: float
    cpu_s: float
    states: int
    unconfirmed: int
    per_object: int


def objects(size: int, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` coded objects with a body of `size` octets; all headers have one length."""
    body = os.urandom(size)
    fields = {"Bucket": "data", "ChecksumCRC32": crc32_field(body), "TtlMs": 60_000, "ContentType": "application/octet-stream"}
    for number in range(count):
        object_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        yield object_id, build_put_header({**fields, "Key": f"bench/{size}/{number:08d}"}) + body


def seal_traffic(session: Session, size: int, datagrams: int) -> Traffic:
    """About `datagrams` sealed source symbols of objects of `size` octets."""
    first = next(objects(size, 1))[1]
    oti = plan_object(len(first), 22)
    per_object = sum(oti.block_symbols(sbn) for sbn in range(oti.source_blocks))
    count = max(1, datagrams // per_object)
    bursts: list[tuple[bytes, int]] = []
    object_ids = []
    plain = bytearray()
    flags = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR
    stride = 0
    now = time.monotonic()

    def seal() -> None:
        total = len(plain) // stride
        out = bytearray(total * (stride + 32))
        session.seal_arena(plain, total, stride, stride, out, now)
        step = _SEGMENTS * (stride + 32)
        bursts.extend((bytes(out[at : at + step]), stride + 32) for at in range(0, len(out), step))
        plain.clear()

    for object_id, data in objects(size, count):
        encoder = ObjectEncoder(data, oti)
        prefix = datagram_prefix(object_id, oti, flags)
        stride = len(prefix) + 4 + oti.symbol_size
        for sbn in range(oti.source_blocks):
            symbols = oti.block_symbols(sbn)
            start = len(plain)
            plain.extend(bytes(symbols * stride))
            encoder.packets_into(plain, start, stride, prefix, sbn, 0, symbols)
        object_ids.append(object_id)
        if len(plain) > 4_000_000:
            seal()
    if plain:
        seal()
    return Traffic(bursts, count * per_object, object_ids, per_object)


def measure(size: int, *, is_plain: bool, folder: Path, datagrams: int, s3_url: str = "") -> Result:
    """Start a gateway, send, count. With `s3_url`, the S3 sink writes there."""
    client_key = generate_private_key(os.urandom)
    with _gateway(folder, client_key, s3_url) as (process, ready):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sock.connect((ready["host"], ready["port"]))
        tunnel = Tunnel(client_key, key_from_base64(ready["public_key"]), random=os.urandom)
        sock.send(tunnel.initiation(time.monotonic(), time.time()))
        sock.settimeout(5)
        complete = tunnel.receive(sock.recv(2048), time.monotonic())
        assert isinstance(complete, HandshakeComplete)
        traffic = seal_traffic(complete.session, size, datagrams)
        sock.setblocking(False)
        cpu_before = _cpu_s(process.pid)
        started_at = time.monotonic()
        states, unconfirmed, ended_at = _send(sock, tunnel, traffic, is_plain=is_plain)
        cpu_s = _cpu_s(process.pid) - cpu_before
        return Result(size, traffic.datagrams, ended_at - started_at, cpu_s, states, unconfirmed, traffic.per_object)


def _send(sock: socket.socket, tunnel: Tunnel, traffic: Traffic, *, is_plain: bool) -> tuple[int, int, float]:
    """Send all bursts, at most WINDOW datagrams ahead of what is confirmed; states, unconfirmed objects, time of the last."""
    waiting = set(traffic.object_ids)
    states = sent = 0
    last = time.monotonic()

    def receive(timeout_s: float) -> None:
        nonlocal states, last
        if timeout_s:
            select.select([sock], [], [], timeout_s)
        while True:
            try:
                message = sock.recv(2048)
            except BlockingIOError:
                return
            event = tunnel.receive(message, time.monotonic())
            if event is not None:
                states += 1
                state = parse_transfer_state(event.plaintext)  # type: ignore[union-attr]
                if state.is_final:
                    waiting.discard(state.object_id)
                    last = time.monotonic()

    total = len(traffic.object_ids)
    window = max(WINDOW, 2 * traffic.per_object)
    for burst, segment in traffic.bursts:
        patience = time.monotonic() + PATIENCE_S
        while sent - (total - len(waiting)) * traffic.per_object > window and time.monotonic() < patience:
            receive(0.01)
        if is_plain:
            for at in range(0, len(burst), segment):
                sock.send(burst[at : at + segment])
        else:
            sock.sendmsg([burst], [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", segment))])
        sent += len(burst) // segment
        receive(0)
    while waiting and time.monotonic() < last + PATIENCE_S:
        receive(0.05)
    return states, len(waiting), last


class _gateway:  # noqa: N801  # a context manager that reads as a function
    """A gateway with the null sink, in a process of its own."""

    def __init__(self, folder: Path, client_key: bytes, s3_url: str) -> None:
        self._folder = folder
        self._sink = ("--sink", "s3", "--aws-endpoint-url", s3_url) if s3_url else ("--sink", "null")
        key_file = folder / "gateway.key"
        key_file.touch(0o600)
        key_file.write_text(key_to_base64(generate_private_key(os.urandom)))
        peer = {"public_key": key_to_base64(public_key(client_key)), "allow": [{"bucket": "data"}]}
        (folder / "peers.json").write_text(json.dumps({"peers": [peer]}))

    def __enter__(self) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
        folder, ready = self._folder, self._folder / "ready.json"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "raptor_s3.gateway", "--listen", "127.0.0.1:0", *self._sink),
                *("--private-key-file", str(folder / "gateway.key"), "--peers-file", str(folder / "peers.json")),
                *("--ready-file", str(ready), "--max-memory", "4GB"),
            ],
            stderr=(folder / "gateway.log").open("ab"),
            env={**os.environ, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"},
        )
        while not ready.exists():
            assert self._process.poll() is None, (folder / "gateway.log").read_text()
            time.sleep(0.02)
        return self._process, json.loads(ready.read_text())

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)


def fake_s3() -> tuple[int, str]:
    """A child that answers 200 to every PUT; its process id and URL. Cheap, so that the gateway's own cost is what shows."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    if child := os.fork():
        listening.close()
        return child, url

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                if b"100-continue" in head:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await reader.readexactly(length)
                writer.write(b'HTTP/1.1 200 OK\r\nETag: "00000000000000000000000000000000"\r\nContent-Length: 0\r\n\r\n')
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, sock=listening)
        await server.serve_forever()

    asyncio.run(serve())
    os._exit(0)


def _cpu_s(pid: int) -> float:
    """User and system time of a process and all its threads."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


class _Loopback:
    """Stands where an Endpoint would, without a kernel."""

    is_plaintext = False

    def __init__(self, traffic: Traffic) -> None:
        self.bursts = [Burst(memoryview(burst), segment, ("127.0.0.1", 1), 0.0) for burst, segment in reversed(traffic.bursts)]

    def receive(self) -> Burst | None:
        return self.bursts.pop() if self.bursts else None

    def send(self, message: bytes, destination: object) -> None:
        """To nowhere."""


def stages(size: int, datagrams: int) -> list[tuple[str, float]]:
    """Microseconds a datagram for each stage alone, in this process."""
    from raptor_s3.gateway.command import relax_garbage_collector
    from raptor_s3.gateway.direct import DirectReceiver
    from raptor_s3.gateway.null import NullSink
    from raptor_s3.gateway.server import Server
    from raptor_s3.gateway.stats import Stats
    from raptor_s3.receiver.policy import Grant, Policy, Rule
    from raptor_s3.transfer.incoming import Collector, CollectorLimits

    relax_garbage_collector()

    def shake() -> tuple[Listener, Session, bytes]:
        client = generate_private_key(os.urandom)
        server = generate_private_key(os.urandom)
        listener = Listener(server, {public_key(client): PeerConfig()}, random=os.urandom)
        tunnel = Tunnel(client, public_key(server), random=os.urandom)
        (answer,) = listener.receive(tunnel.initiation(time.monotonic(), time.time()), ("127.0.0.1", 1), time.monotonic())
        assert isinstance(answer, Send)
        complete = tunnel.receive(answer.message, time.monotonic())
        assert isinstance(complete, HandshakeComplete)
        return listener, complete.session, public_key(client)

    def timed(work: Callable[[], None]) -> float:
        before = time.process_time()
        work()
        return (time.process_time() - before) / len(messages) * 1e6

    listener, session, peer_key = shake()
    traffic = seal_traffic(session, size, datagrams)
    messages = [memoryview(burst)[at : at + segment] for burst, segment in traffic.bursts for at in range(0, len(burst), segment)]
    plaintexts: list[bytes] = []
    source = ("127.0.0.1", 1)

    def open_all() -> None:
        for message in messages:
            for outcome in listener.receive(message, source, time.monotonic()):
                assert isinstance(outcome, Data)
                plaintexts.append(outcome.plaintext)

    def parse_all() -> None:
        for plaintext in plaintexts:
            parse_datagram(plaintext)

    limits = CollectorLimits(
        max_bytes=4 << 30, max_bytes_per_peer=4 << 30, max_transfers_per_peer=1 << 20, max_tombstones=1 << 20
    )
    collector = Collector(limits)
    parsed: list[Datagram] = []

    def collect_all() -> None:
        for datagram in parsed:
            collector.receive(b"", datagram, 0.0)

    answers: list[tuple[object, bytes]] = []
    policy = Policy({key_to_base64(peer_key): Grant("peer p", (Rule("data"),))})
    direct = DirectReceiver(
        Collector(limits),
        NullSink(),
        policy,
        Stats(),
        send=lambda origin, payload: answers.append((origin, payload)),
        clock=clock.now,
    )

    def direct_all() -> None:
        for plaintext in plaintexts:
            direct.receive(None, peer_key, plaintext, clock.now())

    def turn_all() -> None:
        while loopback.bursts:
            server._read(loopback)  # type: ignore[arg-type]

    rows = [("WireGuard open", timed(open_all)), ("parse", timed(parse_all))]
    parsed.extend(parse_datagram(plaintext) for plaintext in plaintexts)
    rows.append(("collect, decode", timed(collect_all)))
    rows.append(("parse to state (direct receiver)", timed(direct_all)))

    listener, session, peer_key = shake()
    loopback = _Loopback(seal_traffic(session, size, datagrams))
    server = Server([loopback], listener, Stats(), stats_interval_s=1e6)  # type: ignore[list-item]
    server.attach(
        DirectReceiver(
            Collector(limits),
            NullSink(),
            Policy({key_to_base64(peer_key): Grant("peer p", (Rule("data"),))}),
            Stats(),
            send=server.send,
            clock=clock.now,
        )
    )
    rows.append(("all but system calls", timed(turn_all)))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, action="append", help="octets of an object's body; may be given several times")
    parser.add_argument("--datagrams", type=int, default=DATAGRAMS)
    parser.add_argument("--plain", action="store_true", help="the sender makes one system call a datagram")
    parser.add_argument("--s3", action="store_true", help="the S3 sink, writing to a server that answers at once")
    parser.add_argument("--stages", action="store_true", help="where the time goes")
    args = parser.parse_args()
    sizes = args.size or SIZES
    if args.stages:
        for size in sizes:
            print(f"{size:>9,} octets")
            for name, microseconds in stages(size, args.datagrams):
                print(f"    {name:<34} {microseconds:6.2f} us a datagram")
        return 0
    child, s3_url = fake_s3() if args.s3 else (0, "")
    try:
        table(sizes, is_plain=args.plain, datagrams=args.datagrams, s3_url=s3_url)
    finally:
        if child:
            os.kill(child, signal.SIGTERM)
    return 0


def table(sizes: Sequence[int], *, is_plain: bool, datagrams: int, s3_url: str) -> None:
    """Measure and print each size."""
    titles = f"{'object':>9}  {'datagrams':>9}  {'datagrams/s':>11}  {'per core':>9}  {'us CPU':>6}"
    print(f"{titles}  {'objects/s per core':>18}  {'states':>7}  unconfirmed")
    worst = float("inf")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(size, is_plain=is_plain, folder=Path(folder), datagrams=datagrams, s3_url=s3_url)
        per_core = result.datagrams / result.cpu_s
        worst = min(worst, per_core)
        print(
            f"{size:>9,}  {result.datagrams:>9,}  {result.datagrams / result.elapsed_s:>11,.0f}  {per_core:>9,.0f}  "
            f"{1e6 / per_core:>6.1f}  {per_core / result.per_object:>18,.0f}  {result.states:>7,}  {result.unconfirmed:,}"
        )
    if not s3_url:
        print(f"slowest: {worst / TARGET_PER_CORE:.2f} of the target of {TARGET_PER_CORE:,} datagrams a second on one core")


if __name__ == "__main__":
    raise SystemExit(main())
