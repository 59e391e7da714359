"""The loop's own decisions: which session an answer takes, what a socket's flush puts on the wire."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from raptor_s3.errors import ConfigError
from raptor_s3.gateway.endpoint import Endpoint, plain_address
from raptor_s3.gateway.server import Origin, Server
from raptor_s3.gateway.stats import Stats
from raptor_s3.net import clock
from raptor_s3.wireguard.keys import generate_private_key, public_key
from raptor_s3.wireguard.listener import Listener, PeerConfig
from raptor_s3.wireguard.tunnel import Tunnel


class Silent:
    """A receiver that keeps what it gets and never has anything to do."""

    load = 0

    def __init__(self) -> None:
        self.received = []

    def receive(self, origin, peer_key, data, now) -> None:
        self.received.append((origin, peer_key, data))

    def get_timer(self):
        return None

    def flush(self, now) -> None: ...
    def drain(self, now) -> None: ...
    def close(self, timeout_s) -> None: ...
    def describe(self):
        return {}


class Rig:
    def __init__(self) -> None:
        self.stats = Stats()
        self.endpoint = Endpoint("127.0.0.1", 0, is_plaintext=False, stats=self.stats)
        server_key, self.client_key = generate_private_key(os.urandom), generate_private_key(os.urandom)
        self.listener = Listener(server_key, {public_key(self.client_key): PeerConfig()}, random=os.urandom)
        self.server = Server([self.endpoint], self.listener, self.stats, stats_interval_s=1e6)
        self.receiver = Silent()
        self.server.attach(self.receiver)
        self.tunnel = Tunnel(self.client_key, public_key(server_key), random=os.urandom)
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.bind(("127.0.0.1", 0))
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.client.settimeout(5)

    def shake(self, age_s: float = 0.0) -> Origin:
        """A session that is `age_s` old, heard from once; where its datagram came from."""
        then = clock.now() - age_s
        source = self.client.getsockname()
        (answer,) = self.listener.receive(self.tunnel.initiation(then, time.time() - age_s), source, then)
        session = self.tunnel.receive(answer.message, then).session
        (data,) = self.listener.receive(session.seal(b"x", then), source, then)
        return Origin(self.endpoint, data.session, source)

    def receive(self) -> bytes:
        return self.tunnel.receive(self.client.recv(2048), time.monotonic()).plaintext


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.endpoint.close()
    rig.client.close()


def test_an_answer_takes_the_session_that_the_question_came_in(rig):
    first, second = rig.shake(), rig.shake()
    for origin in (first, second):
        rig.server.send(origin, b"answer")
        rig.endpoint.flush()
        message = rig.client.recv(2048)
        assert message[4:8] == origin.session.remote_index.to_bytes(4, "little")


def test_when_that_session_has_expired_a_newer_one_of_the_peer_serves(rig):
    old = rig.shake(age_s=500.0)
    rig.server.send(old, b"nobody can read this")
    assert rig.stats.dropped_unsent == 1
    rig.shake()
    rig.server.send(old, b"answer")
    rig.endpoint.flush()
    assert rig.receive() == b"answer"


def test_mixed_sizes_and_destinations_leave_whole_and_in_order(rig):
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("127.0.0.1", 0))
    other.settimeout(5)
    here, there = rig.client.getsockname(), other.getsockname()
    to_here = [b"a" * 100, b"b" * 100, b"c" * 100, b"d" * 7, b"e" * 100, *(bytes([n]) * 1400 for n in range(70))]
    for number, message in enumerate(to_here):
        rig.endpoint.send(message, here)
        if number == 1:
            rig.endpoint.send(b"between", there)
    rig.endpoint.flush()
    assert [rig.client.recv(2048) for _ in to_here] == to_here
    assert other.recv(2048) == b"between"
    assert rig.stats.dropped_unsent == 0
    other.close()


def test_what_can_not_be_sent_is_counted(rig):
    rig.endpoint.send(b"x" * 70_000, rig.client.getsockname())
    rig.endpoint.send(b"fits", rig.client.getsockname())
    rig.endpoint.flush()
    assert rig.client.recv(2048) == b"fits"
    assert rig.stats.dropped_unsent == 1


def test_run_opens_what_is_sealed_and_stops_when_told(rig):
    session = rig.shake().session
    assert session is not None
    thread = threading.Thread(target=rig.server.run)
    thread.start()
    for _ in range(3):
        rig.client.sendto(rig.tunnel.session.seal(b"datagram", time.monotonic()), (rig.endpoint.host, rig.endpoint.port))
    rig.client.sendto(b"", (rig.endpoint.host, rig.endpoint.port))
    deadline = time.monotonic() + 10
    while rig.stats.received < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    rig.server.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert [data for _, _, data in rig.receiver.received] == [b"datagram"] * 3
    assert {peer_key for _, peer_key, _ in rig.receiver.received} == {public_key(rig.client_key)}
    assert rig.stats.dropped_malformed == 1
    rig.server.stop()  # late signals find no loop, and do no harm


def test_a_bug_behind_the_tunnel_costs_one_datagram_not_the_gateway(rig, caplog):
    session = rig.shake().session
    assert session is not None
    kept = rig.receiver.receive

    def receive(origin, peer_key, data, now) -> None:
        if data == b"poison":
            raise ZeroDivisionError
        kept(origin, peer_key, data, now)

    rig.receiver.receive = receive
    thread = threading.Thread(target=rig.server.run)
    thread.start()
    ran = threading.Event()
    for data in (b"poison", b"fine"):
        rig.client.sendto(rig.tunnel.session.seal(data, time.monotonic()), (rig.endpoint.host, rig.endpoint.port))
        deadline = time.monotonic() + 10
        while not (rig.stats.errors and (data == b"poison" or rig.receiver.received)) and time.monotonic() < deadline:
            time.sleep(0.01)
    rig.server.call(lambda: 1 / 0)
    rig.server.call(ran.set)
    assert ran.wait(10)
    rig.server.stop()
    thread.join(10)
    assert [data for _, _, data in rig.receiver.received] == [b"fine"]
    assert rig.stats.errors == 2
    assert "ZeroDivisionError" in caplog.text


def test_the_rest_of_a_burst_survives_a_bug(rig):
    session = rig.shake().session
    assert session is not None
    kept = rig.receiver.receive

    def receive(origin, peer_key, data, now) -> None:
        if data == b"poison":
            raise ZeroDivisionError
        kept(origin, peer_key, data, now)

    rig.receiver.receive = receive
    now = clock.now()
    sealed = [rig.tunnel.session.seal(data, now) for data in (b"before", b"poison", b"after!")]
    burst = (memoryview(b"".join(sealed)), len(sealed[0]), rig.client.getsockname(), 0.0)
    assert rig.server._take_sealed(rig.endpoint, burst, now) == 3
    assert [data for _, _, data in rig.receiver.received] == [b"before", b"after!"]
    assert rig.stats.errors == 1


def test_an_endpoint_with_wireguard_never_takes_plaintext(rig):
    endpoint = Endpoint("127.0.0.1", 0, is_plaintext=False, stats=rig.stats)
    server = Server([endpoint], rig.listener, rig.stats, stats_interval_s=1e6)
    server.attach(rig.receiver)
    rig.client.sendto(b"\x16" + bytes(60), (endpoint.host, endpoint.port))
    time.sleep(0.05)
    server._read(endpoint)
    assert rig.stats.received == 1
    assert rig.receiver.received == []
    endpoint.close()


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        (("192.0.2.1", 5), ("192.0.2.1", 5)),
        (("::ffff:192.0.2.1", 5, 0, 0), ("192.0.2.1", 5)),
        (("2001:db8::1", 5, 0, 0), ("2001:db8::1", 5)),
    ],
)
def test_addresses_in_their_plain_form(source, plain):
    assert plain_address(source) == plain


def test_a_host_that_does_not_resolve_is_a_config_error():
    with pytest.raises(ConfigError, match=r"--listen nowhere\.invalid:1"):
        Endpoint("nowhere.invalid", 1, is_plaintext=False, stats=Stats())
