"""Is the link what it says? RTT by TCP connect and UDP echo, loss by counting, rate by a bulk flow, largest packet seen.

Each probe opens its sockets inside the link's namespaces from this process, so it measures the path and little else. `validate`
runs them all and judges; `python -m benchmarks.link validate` prints that, and the integration tests assert on it.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.link import Conditions, Link
from benchmarks.link.namespaces import MTU, Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

UDP_IP_HEADERS = 28


@dataclass(frozen=True, slots=True)
class Finding:
    """One quantity: what was asked of the link and what was seen."""

    name: str
    expected: str
    seen: str
    is_good: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.is_good else 'FAIL'} {self.name:<44} expected {self.expected:<22} seen {self.seen}"


def bound_socket(namespace: Namespace, kind: socket.SocketKind, *, listen: bool = False) -> socket.socket:
    """A socket inside `namespace`, bound to its address and a free port."""
    with namespace.entered():
        sock = socket.socket(socket.AF_INET, kind)
    sock.bind((namespace.address, 0))
    if kind == socket.SOCK_DGRAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if listen:
        sock.listen(64)
    return sock


def tcp_connect_rtts(link: Link, count: int = 20) -> list[float]:
    """Seconds from connect to established, `count` times."""
    rtts = []
    with bound_socket(link.server, socket.SOCK_STREAM, listen=True) as listener:
        for _ in range(count):
            with bound_socket(link.client, socket.SOCK_STREAM) as sock:
                start = time.monotonic()
                sock.connect(listener.getsockname())
                rtts.append(time.monotonic() - start)
    return rtts


def congestion_control(link: Link) -> str:
    """What a TCP connection from the client really uses."""
    with (
        bound_socket(link.server, socket.SOCK_STREAM, listen=True) as listener,
        bound_socket(link.client, socket.SOCK_STREAM) as sock,
    ):
        sock.connect(listener.getsockname())
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


@contextlib.contextmanager
def udp_echo(namespace: Namespace) -> Iterator[tuple[str, int]]:
    """A UDP echo server in `namespace` for the time of the block; yields its address."""
    sock = bound_socket(namespace, socket.SOCK_DGRAM)
    sock.settimeout(0.1)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                sock.sendto(*sock.recvfrom(2048))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield sock.getsockname()
    finally:
        stop.set()
        thread.join()
        sock.close()


def udp_echo_rtts(link: Link, count: int = 50, size: int = 100) -> list[float]:
    """Seconds a datagram of `size` bytes takes there and back, for those of `count` that came back at all."""
    rtts = []
    with udp_echo(link.server) as address, bound_socket(link.client, socket.SOCK_DGRAM) as sock:
        sock.settimeout(link.conditions.rtt_s + 2 * link.conditions.jitter_s + 1)
        for number in range(count):
            message = struct.pack("!I", number).ljust(size)
            start = time.monotonic()
            sock.sendto(message, address)
            with contextlib.suppress(TimeoutError):
                while sock.recv(2048) != message:
                    pass
                rtts.append(time.monotonic() - start)
    return rtts


def received_numbers(link: Link, count: int, interval_s: float, size: int = 200) -> list[int]:
    """Send `count` numbered datagrams, one every `interval_s`, and return the numbers that arrived, in order of arrival."""
    arrived: list[int] = []
    with bound_socket(link.server, socket.SOCK_DGRAM) as sink, bound_socket(link.client, socket.SOCK_DGRAM) as sock:
        sink.settimeout(link.conditions.rtt_s + link.conditions.jitter_s + link.conditions.queue_s + 0.5)

        def collect() -> None:
            with contextlib.suppress(TimeoutError):
                while True:
                    arrived.append(struct.unpack_from("!I", sink.recv(2048))[0])

        thread = threading.Thread(target=collect)
        thread.start()
        start = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, start + number * interval_s - time.monotonic()))
            sock.sendto(struct.pack("!I", number).ljust(size), sink.getsockname())
        thread.join()
    return arrived


def udp_bulk_mbps(link: Link, seconds: float = 2.0) -> float:
    """IP throughput of full-size datagrams sent at one and a half times the link's rate: what the serialiser lets pass."""
    payload = bytes(MTU - UDP_IP_HEADERS)
    interval_s = MTU * 8 / (link.conditions.rate_mbps * 1.5e6)
    times: list[float] = []
    with bound_socket(link.server, socket.SOCK_DGRAM) as sink, bound_socket(link.client, socket.SOCK_DGRAM) as sock:
        sink.settimeout(link.conditions.rtt_s + 1)

        def collect() -> None:
            with contextlib.suppress(TimeoutError):
                while True:
                    sink.recv(2048)
                    times.append(time.monotonic())

        thread = threading.Thread(target=collect)
        thread.start()
        start = time.monotonic()
        for number in range(int(seconds / interval_s)):
            time.sleep(max(0.0, start + number * interval_s - time.monotonic()))
            sock.sendto(payload, sink.getsockname())
        thread.join()
    return (len(times) - 1) * MTU * 8 / (times[-1] - times[0]) / 1e6


def tcp_bulk_mbps(link: Link, seconds: float = 3.0, warm_up_s: float = 1.5) -> float:
    """Goodput of one TCP flow from client to server after `warm_up_s`."""
    with (
        bound_socket(link.server, socket.SOCK_STREAM, listen=True) as listener,
        bound_socket(link.client, socket.SOCK_STREAM) as sock,
    ):
        sock.connect(listener.getsockname())
        accepted, _ = listener.accept()
        stop = threading.Event()

        def send() -> None:
            block = bytes(65536)
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    sock.sendall(block)

        thread = threading.Thread(target=send)
        thread.start()
        received = 0
        start = time.monotonic()
        while (now := time.monotonic()) < start + warm_up_s + seconds:
            got = len(accepted.recv(1 << 20))
            if now > start + warm_up_s:
                received += got
        stop.set()
        accepted.close()
        thread.join()
    return received * 8 / seconds / 1e6


def validate(link: Link, *, quick: bool = False) -> list[Finding]:
    """Put the link through a set of known conditions and compare. Changes the link's conditions."""
    findings = []

    def judge(name: str, expected: str, seen: str, is_good: bool) -> None:
        findings.append(Finding(name, expected, seen, is_good))

    def judge_rtts(name: str, rtts: list[float], rtt_s: float) -> None:
        median, most = statistics.median(rtts), max(rtts)
        seen = f"{median * 1000:.2f} ms, at most {most * 1000:.2f}"
        judge(name, f"{rtt_s * 1000:g} ms", seen, rtt_s <= median < rtt_s + 0.002)

    seen = congestion_control(link)
    judge("TCP congestion control", link.congestion, seen, seen == link.congestion)

    repeats = 5 if quick else 20
    for rtt_s in (0.020, 0.150) if quick else (0.020, 0.150, 0.300):
        link.set(Conditions(rtt_s=rtt_s))
        judge_rtts(f"RTT {rtt_s * 1000:g} ms, TCP connect", tcp_connect_rtts(link, repeats), rtt_s)
        judge_rtts(f"RTT {rtt_s * 1000:g} ms, UDP echo", udp_echo_rtts(link, repeats), rtt_s)

    link.set(Conditions(rtt_s=0.020, jitter_s=0.030))
    rtts = udp_echo_rtts(link, repeats * 2)
    seen = f"{min(rtts) * 1000:.0f}..{max(rtts) * 1000:.0f} ms"
    judge("RTT 20 ms, 30 ms jitter each way, UDP echo", "within 20..80 ms", seen, min(rtts) >= 0.020 and max(rtts) < 0.082)

    count = 2000 if quick else 10_000
    for seed, loss in enumerate((0.01, 0.05, 0.10)):
        link.set(Conditions(rtt_s=0.020, rate_mbps=100, loss=loss), seed=seed)
        lost = 1 - len(received_numbers(link, count, 0.0003)) / count
        margin = 4 * (loss * (1 - loss) / count) ** 0.5
        judge(f"loss {loss:.0%}, counted", f"{loss:.0%} +- {margin:.2%}", f"{lost:.2%}", abs(lost - loss) < margin)

    link.set(Conditions(rtt_s=0.020, rate_mbps=100, loss=0.05, mean_burst_s=0.020), seed=1)
    seconds, interval_s = (10.0, 0.001) if quick else (30.0, 0.001)
    arrived = set(received_numbers(link, int(seconds / interval_s), interval_s))
    bursts = burst_lengths([number in arrived for number in range(int(seconds / interval_s))])
    lost, mean_burst_s = 1 - len(arrived) * interval_s / seconds, statistics.mean(bursts or [0]) * interval_s
    judge(
        f"burst loss 5%, mean burst 20 ms, {seconds:g} s",
        "2..9%, 12..32 ms",
        f"{lost:.2%}, {mean_burst_s * 1000:.1f} ms",
        0.02 < lost < 0.09 and 0.012 < mean_burst_s < 0.032,
    )

    for rate_mbps in (2, 20) if quick else (2, 20, 100):
        link.set(Conditions(rtt_s=0.020, rate_mbps=rate_mbps))
        seen_mbps = udp_bulk_mbps(link, 1.5 if quick else 3)
        stats = link.stats()
        is_good = abs(seen_mbps / rate_mbps - 1) < 0.03 and stats.forward.queue_drops > 0
        judge(
            f"rate {rate_mbps} Mbit/s, UDP bulk",
            f"{rate_mbps} Mbit/s, drops",
            f"{seen_mbps:.2f} Mbit/s, {stats.forward.queue_drops} drops, queue {stats.forward.max_queue_s * 1000:.0f} ms",
            is_good,
        )
    link.set(Conditions(rtt_s=0.020, rate_mbps=20))
    goodput = tcp_bulk_mbps(link, 1.5 if quick else 5)
    stats = link.stats()
    largest = max(stats.forward.largest_bytes, stats.back.largest_bytes)
    judge("rate 20 Mbit/s, TCP goodput", "18.5..19.4 Mbit/s", f"{goodput:.2f} Mbit/s", 18.0 < goodput < 19.5)
    judge("largest packet of the TCP flow", f"{MTU} bytes", f"{largest} bytes", largest == MTU)
    seen = f"p99 {stats.late_p99_s * 1000:.2f} ms, most {stats.late_max_s * 1000:.2f} ms"
    judge("router lateness in the TCP flow", "p99 below 1 ms", seen, stats.late_p99_s < 0.001)
    return findings


def burst_lengths(arrived: list[bool]) -> list[int]:
    """Lengths of the runs of False."""
    lengths, run = [], 0
    for is_here in [*arrived, True]:
        if is_here and run:
            lengths.append(run)
        run = 0 if is_here else run + 1
    return lengths
