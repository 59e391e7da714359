"""The emulator against its own promises, with real sockets in real namespaces: RTT, loss, rate, MTU, nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.link import Conditions, Link, why_unavailable
from benchmarks.link.namespaces import MTU, NETNS_DIR, sweep
from benchmarks.link.probe import (
    bound_socket,
    congestion_control,
    received_numbers,
    tcp_bulk_mbps,
    tcp_connect_rtts,
    udp_bulk_mbps,
    udp_echo_rtts,
)

REASON = why_unavailable()
pytestmark = [pytest.mark.root, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

ROOT = Path(__file__).resolve().parent.parent.parent
UDP_SEGMENT = 103


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    with Link() as made:
        yield made


def test_the_round_trip_is_what_was_asked(link: Link) -> None:
    link.set(Conditions(rtt_s=0.080))
    for rtts in (tcp_connect_rtts(link, 5), udp_echo_rtts(link, 5)):
        assert min(rtts) >= 0.080
        assert statistics.median(rtts) < 0.090  # a busy machine may be late, but not by the next order


def test_loss_is_what_was_asked_and_repeats_with_the_seed(link: Link) -> None:
    runs = []
    for _ in range(2):
        link.set(Conditions(rtt_s=0.010, rate_mbps=100, loss=0.10), seed=11)
        runs.append(received_numbers(link, 1500, 0.0003))
        assert link.stats().forward.lost == 1500 - len(runs[-1])
    assert runs[0] == runs[1]
    assert 0.07 < 1 - len(runs[0]) / 1500 < 0.13


def test_loss_hits_both_directions(link: Link) -> None:
    link.set(Conditions(rtt_s=0.010, rate_mbps=100, loss=0.5), seed=2)
    answered = udp_echo_rtts(link, 12)
    stats = link.stats()
    assert stats.forward.lost > 0
    assert stats.back.lost > 0
    assert len(answered) == 12 - stats.forward.lost - stats.back.lost


def test_the_rate_holds_and_the_queue_drops_the_rest(link: Link) -> None:
    link.set(Conditions(rtt_s=0.010, rate_mbps=10, queue_s=0.050))
    assert udp_bulk_mbps(link, 1.0) == pytest.approx(10, rel=0.05)
    stats = link.stats()
    assert stats.forward.queue_drops > 0
    assert 0.045 < stats.forward.max_queue_s <= 0.050


def test_no_packet_is_larger_than_the_mtu_under_tcp_and_udp_offload(link: Link) -> None:
    link.set(Conditions(rtt_s=0.010, rate_mbps=20))
    assert tcp_bulk_mbps(link, 0.5, 0.5) > 5
    with bound_socket(link.server, socket.SOCK_DGRAM) as sink, bound_socket(link.client, socket.SOCK_DGRAM) as sock:
        sink.settimeout(2)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1400)
        sock.sendto(bytes(10 * 1400), sink.getsockname())
        assert [len(sink.recv(65536)) for _ in range(10)] == [1400] * 10
    stats = link.stats()
    assert stats.forward.largest_bytes == MTU
    assert stats.back.largest_bytes <= MTU


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_congestion_control_is_the_one_asked_for(algorithm: str) -> None:
    if algorithm not in Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split():
        pytest.skip(f"this kernel has no {algorithm}")
    with Link(Conditions(rtt_s=0.001), congestion=algorithm) as made:
        assert congestion_control(made) == algorithm


def test_closing_ends_what_runs_in_the_namespaces() -> None:
    with Link() as made:
        process = made.server.popen(["sleep", "600"])
        names = [made.client.name, made.server.name]
        assert all((NETNS_DIR / name).exists() for name in names)
    assert process.wait(10) == -signal.SIGKILL
    assert not any((NETNS_DIR / name).exists() for name in names)


@pytest.mark.parametrize("victim", ["owner", "router"])
def test_a_kill_leaves_nothing_behind(victim: str) -> None:
    program = (
        "import time; from benchmarks.link import Link\n"
        "link = Link(); link.server.popen(['sleep', '600'])\n"
        "print(link.client.name, link.server.name, link._router.pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout is not None
        *names, router = owner.stdout.readline().split()
        assert all((NETNS_DIR / name).exists() for name in names)
        if victim == "router":
            os.kill(int(router), signal.SIGKILL)
        owner.kill()
    if victim == "router":
        assert set(sweep()) >= set(names)
    for _ in range(200):
        if not any((NETNS_DIR / name).exists() for name in names):
            break
        time.sleep(0.05)
    assert not any((NETNS_DIR / name).exists() for name in names)
