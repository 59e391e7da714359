"""Interop with Debian's wireguard-go, both ways: handshake, pre-shared key, data, rekey, cookies, roaming, replay.

wireguard-go carries IP packets, so data here is an IPv4/UDP packet; its TUN end is a plain UDP socket in the namespace.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from wireguard_go_rig import (
    LISTEN_PORT,
    PEER_ADDRESS,
    TUN_ADDRESS,
    WireGuardGo,
    inner_data,
    inner_packet,
    running,
    why_unavailable,
)

from raptor_s3.errors import AuthenticationFailed
from raptor_s3.wireguard import messages
from raptor_s3.wireguard.constants import REPEAT_WITHIN
from raptor_s3.wireguard.cookie import MacWriter
from raptor_s3.wireguard.keys import KeyPair, generate_private_key
from raptor_s3.wireguard.listener import Data as Received
from raptor_s3.wireguard.listener import Listener, PeerConfig, Send
from raptor_s3.wireguard.session import Session
from raptor_s3.wireguard.tunnel import CookieReceived, Data, HandshakeComplete, Tunnel

REASON = why_unavailable()
pytestmark = [pytest.mark.root, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

THEIRS = ("127.0.0.1", LISTEN_PORT)
INNER_PORT = 4000
SILENCE_S = 0.3
MAX_DATAGRAM = 2048
HANDSHAKE_INTERVAL_S = 0.05  # wireguard-go ignores a peer's initiation within 20 ms of the last


def new_key_pair() -> KeyPair:
    return KeyPair(generate_private_key(os.urandom))


def receive_or_nothing(opened: socket.socket, timeout_s: float = SILENCE_S) -> bytes | None:
    usual = opened.gettimeout()
    opened.settimeout(timeout_s)
    try:
        return opened.recv(MAX_DATAGRAM)
    except TimeoutError:
        return None
    finally:
        opened.settimeout(usual)


class Client:
    """Our Tunnel on a socket, and an echo behind wireguard-go's TUN device."""

    def __init__(
        self,
        device: WireGuardGo,
        own: KeyPair,
        peer_public: bytes,
        preshared_key: bytes | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.device = device
        self.socket = device.udp_socket()
        self.inner = device.udp_socket(TUN_ADDRESS, INNER_PORT)
        self.own = own
        self.preshared_key = preshared_key
        self.tunnel = Tunnel(own.private, peer_public, preshared_key, random=random)

    def shake_hands(self) -> Session:
        time.sleep(HANDSHAKE_INTERVAL_S)
        self.socket.sendto(self.tunnel.initiation(time.monotonic(), time.time()), THEIRS)
        event = self.tunnel.receive(self.socket.recv(MAX_DATAGRAM), time.monotonic())
        assert isinstance(event, HandshakeComplete)
        return event.session

    def seal(self, session: Session, data: bytes) -> bytes:
        return session.seal(self.packet(data), time.monotonic())

    @staticmethod
    def packet(data: bytes) -> bytes:
        return inner_packet(data, (PEER_ADDRESS, INNER_PORT), (TUN_ADDRESS, INNER_PORT))

    def echo(self, session: Session, data: bytes) -> Data:
        """Send through the tunnel, let the inner socket answer, and return what comes back."""
        self.socket.sendto(self.seal(session, data), THEIRS)
        received, source = self.inner.recvfrom(MAX_DATAGRAM)
        assert received == data
        self.inner.sendto(b"echo " + received, source)
        return self.receive_data()

    def receive_data(self) -> Data:
        """The next transport message with content; wireguard-go sends keepalives, and initiations when it misses ours."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            message = self.socket.recv(MAX_DATAGRAM)
            if messages.message_type(message) == messages.TYPE_TRANSPORT:
                event = self.tunnel.receive(message, time.monotonic())
                if isinstance(event, Data):
                    return event
        raise TimeoutError("no data came back")


@pytest.fixture(params=["no preshared key", "preshared key"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    own, theirs = new_key_pair(), new_key_pair()
    preshared_key = os.urandom(32) if request.param == "preshared key" else None
    with running(private_key=theirs.private, peer_public_key=own.public, preshared_key=preshared_key) as device:
        yield Client(device, own, theirs.public, preshared_key)


def test_initiator_carries_data_both_ways(client: Client) -> None:
    session = client.shake_hands()
    for number in range(20):
        data = b"%d " % number + bytes(number * 60)
        event = client.echo(session, data)
        assert inner_data(event.plaintext) == b"echo " + data
        assert event.session is session


def test_initiator_rekeys_without_losing_what_is_in_flight(client: Client) -> None:
    old = client.shake_hands()
    assert inner_data(client.echo(old, b"one").plaintext) == b"echo one"

    # In flight under the old keys, both ways, while the handshake happens.
    late_request = client.seal(old, b"late request")
    client.inner.sendto(b"late reply", (PEER_ADDRESS, INNER_PORT))
    late_reply = client.socket.recv(MAX_DATAGRAM)
    new = client.shake_hands()
    assert new is client.tunnel.session
    assert new is not old
    event = client.tunnel.receive(late_reply, time.monotonic())
    assert isinstance(event, Data)
    assert (inner_data(event.plaintext), event.session) == (b"late reply", old)
    assert client.echo(new, b"two").session is new
    client.socket.sendto(late_request, THEIRS)
    assert client.inner.recv(MAX_DATAGRAM) == b"late request"


def test_initiator_with_another_preshared_key_is_told_so() -> None:
    own, theirs = new_key_pair(), new_key_pair()
    with running(private_key=theirs.private, peer_public_key=own.public, preshared_key=os.urandom(32)) as device:
        client = Client(device, own, theirs.public, preshared_key=os.urandom(32))
        with pytest.raises(AuthenticationFailed):
            client.shake_hands()
        assert client.tunnel.session is None


def test_wireguard_go_refuses_our_replays(client: Client) -> None:
    initiation = client.tunnel.initiation(time.monotonic(), time.time())
    client.socket.sendto(initiation, THEIRS)
    event = client.tunnel.receive(client.socket.recv(MAX_DATAGRAM), time.monotonic())
    assert isinstance(event, HandshakeComplete)
    message = client.seal(event.session, b"once")
    for _ in range(3):
        client.socket.sendto(message, THEIRS)
        client.socket.sendto(initiation, THEIRS)
    assert client.inner.recv(MAX_DATAGRAM) == b"once"
    assert receive_or_nothing(client.inner) is None
    assert receive_or_nothing(client.socket) is None


def test_clock_that_went_back_does_not_lock_us_out(client: Client) -> None:
    client.shake_hands()
    time.sleep(HANDSHAKE_INTERVAL_S)
    stale = Tunnel(client.own.private, client.tunnel.peer_public_key, client.preshared_key, random=os.urandom)
    client.socket.sendto(stale.initiation(time.monotonic(), time.time() - 3600), THEIRS)
    assert receive_or_nothing(client.socket) is None, "an old timestamp was accepted"

    time.sleep(HANDSHAKE_INTERVAL_S)
    client.socket.sendto(client.tunnel.initiation(time.monotonic(), time.time() - 3600), THEIRS)
    event = client.tunnel.receive(client.socket.recv(MAX_DATAGRAM), time.monotonic())
    assert isinstance(event, HandshakeComplete)


def test_initiator_roams(client: Client) -> None:
    session = client.shake_hands()
    client.echo(session, b"from the first address")
    client.socket = client.device.udp_socket("127.0.0.77")
    assert inner_data(client.echo(session, b"from the second").plaintext) == b"echo from the second"


def cookie_reply_under_load(client: Client) -> tuple[bytes, bytes]:
    """Drive wireguard-go under load; an initiation of ours, and the cookie reply that answers it."""
    # With a valid mac1, or wireguard-go drops it before it looks at its load.
    junk = MacWriter(client.tunnel.peer_public_key).finish(messages.build_initiation(1, os.urandom(108)), time.monotonic())
    flooder = client.device.udp_socket("127.0.0.66")
    for _ in range(8):
        for _ in range(1500):
            flooder.sendto(junk, THEIRS)
        # It stays under load for a second after its queue was long; while the queue is full ours would be dropped unseen.
        time.sleep(0.2)
        initiation = client.tunnel.initiation(time.monotonic(), time.time())
        client.socket.sendto(initiation, THEIRS)
        reply = receive_or_nothing(client.socket)
        if reply is not None and messages.message_type(reply) == messages.TYPE_COOKIE_REPLY:
            return initiation, reply
    raise TimeoutError("wireguard-go never came under load")


def test_initiator_answers_a_cookie_reply(client: Client) -> None:
    _, reply = cookie_reply_under_load(client)
    tampered = reply[:-1] + bytes((reply[-1] ^ 1,))
    with pytest.raises(AuthenticationFailed):
        client.tunnel.receive(tampered, time.monotonic())
    now = time.monotonic()
    assert isinstance(client.tunnel.receive(reply, now), CookieReceived)
    assert client.tunnel.get_timer() == now
    initiation = client.tunnel.handle_timer(now, time.time())
    assert initiation is not None
    assert messages.parse_initiation(initiation).mac2 != bytes(16)
    client.socket.sendto(initiation, THEIRS)
    event = client.tunnel.receive(client.socket.recv(MAX_DATAGRAM), time.monotonic())
    assert isinstance(event, HandshakeComplete)
    assert inner_data(client.echo(event.session, b"through").plaintext) == b"echo through"


class Server:
    """Our Listener on a socket; wireguard-go starts the handshakes when its inner socket sends."""

    def __init__(self, device: WireGuardGo, own: KeyPair, peer_public: bytes, config: PeerConfig, port: int) -> None:
        self.device = device
        self.own = own
        self.config = config
        self.peer_public = peer_public
        self.socket = device.udp_socket("127.0.0.2", port)
        self.inner = device.udp_socket(TUN_ADDRESS, INNER_PORT)
        self.listener = Listener(own.private, {peer_public: config}, random=os.urandom)
        self.messages: list[tuple[bytes, tuple[str, int]]] = []

    def send_inner(self, data: bytes) -> None:
        self.inner.sendto(data, (PEER_ADDRESS, INNER_PORT))

    def receive_data(self, timeout_s: float = 10.0) -> Received:
        """Serve until data comes."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            message, source = self.socket.recvfrom(MAX_DATAGRAM)
            self.messages.append((message, source))
            for outcome in self.listener.receive(message, source, time.monotonic()):
                if isinstance(outcome, Received):
                    return outcome
                self.socket.sendto(*outcome)
        raise TimeoutError("no data came")

    def reply(self, received: Received, data: bytes) -> None:
        packet = inner_packet(data, (PEER_ADDRESS, INNER_PORT), (TUN_ADDRESS, INNER_PORT))
        self.socket.sendto(received.session.seal(packet, time.monotonic()), received.source)

    def echo(self, data: bytes) -> Received:
        self.send_inner(data)
        received = self.receive_data()
        assert inner_data(received.plaintext) == data
        self.reply(received, b"echo " + data)
        assert self.inner.recv(MAX_DATAGRAM) == b"echo " + data
        return received


@pytest.fixture(params=["no preshared key", "preshared key"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    own, theirs = new_key_pair(), new_key_pair()
    preshared_key = os.urandom(32) if request.param == "preshared key" else None
    with WireGuardGo() as device:
        port = 40000
        device.configure(theirs.private, own.public, preshared_key=preshared_key, endpoint=("127.0.0.2", port))
        yield Server(device, own, theirs.public, PeerConfig(preshared_key), port)


def test_responder_carries_data_both_ways(server: Server) -> None:
    sessions = {server.echo(b"%d " % number + bytes(number * 60)).session for number in range(20)}
    assert len(sessions) == 1
    assert server.listener.stats.handshakes == 1
    assert server.listener.stats.data == 20


def test_responder_refuses_replays(server: Server) -> None:
    server.echo(b"one")
    sent = list(server.messages)
    assert {messages.message_type(message) for message, _ in sent} == {messages.TYPE_INITIATION, messages.TYPE_TRANSPORT}
    before = server.listener.session_count
    for message, source in sent:
        assert server.listener.receive(message, source, time.monotonic() + REPEAT_WITHIN) == []
    stats = server.listener.stats
    assert (stats.replayed_initiation, stats.not_authentic) == (1, len(sent) - 1)
    assert server.listener.session_count == before


def test_responder_follows_a_roaming_peer(server: Server) -> None:
    first = server.echo(b"one")
    server.device.run("wg", "set", server.device.name, "listen-port", "51999")
    second = server.echo(b"two")
    assert first.source[1] == LISTEN_PORT
    assert second.source[1] == 51999
    session = server.listener.session_at(server.peer_public)
    assert session is second.session
    assert session.source == second.source


@pytest.mark.parametrize("server", ["preshared key"], indirect=True)
def test_responder_under_load_asks_for_a_cookie(server: Server) -> None:
    server.listener = Listener(
        server.own.private, {server.peer_public: server.config}, random=os.urandom, under_load_initiations_per_s=0
    )
    server.send_inner(b"let me in")
    received = server.receive_data(15)
    assert inner_data(received.plaintext) == b"let me in"
    stats = server.listener.stats
    assert stats.cookie_replies == 1
    assert stats.handshakes == 1


@pytest.mark.parametrize("server", ["no preshared key"], indirect=True)
def test_responder_keeps_the_old_session_through_a_rekey(server: Server) -> None:
    """Unanswered for 15 s (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT), wireguard-go makes new keys while it still uses the old ones."""
    old = server.echo(b"one")
    server.send_inner(b"two")
    two = server.receive_data()
    late_reply = two.session.seal(
        inner_packet(b"late reply", (PEER_ADDRESS, INNER_PORT), (TUN_ADDRESS, INNER_PORT)), time.monotonic()
    )
    initiation, source = None, None
    server.socket.settimeout(20)
    while initiation is None:
        message, source = server.socket.recvfrom(MAX_DATAGRAM)
        if messages.message_type(message) == messages.TYPE_INITIATION:
            initiation = message
    assert source is not None
    [response] = server.listener.receive(initiation, source, time.monotonic())
    assert isinstance(response, Send)
    # Before the response is on its way, wireguard-go still sends under the old keys.
    server.send_inner(b"three")
    three = server.receive_data()
    assert three.session is old.session
    server.socket.sendto(*response)
    deadline = time.monotonic() + 5
    while server.listener.sessions(server.peer_public)[0] is old.session and time.monotonic() < deadline:
        message, source = server.socket.recvfrom(MAX_DATAGRAM)
        server.listener.receive(message, source, time.monotonic())
    server.socket.sendto(late_reply, source)
    assert server.inner.recv(MAX_DATAGRAM) == b"late reply"
    assert server.echo(b"four").session is not old.session
