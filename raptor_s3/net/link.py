"""One endpoint's socket, channel and sender as one machine: sends what is due, takes in what has come. No threads, no waiting.

    add(put) -> pump(now) -> [wait until next_deadline(now), or the socket is ready] -> receive(now) -> pump(now) ... -> `ended`

Invariant: a put that is in `ended` sends nothing any more; one that ended with HandshakeTimeout never sent a datagram.
"""

from __future__ import annotations

import contextlib
import logging
import os
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import HandshakeTimeout, MalformedPacket, RaptorError, WireGuardError
from raptor_s3.net.udp import MessageTooLong, Socket
from raptor_s3.transfer.outcome import Ending, error_for
from raptor_s3.transfer.outgoing import OutgoingTransfer
from raptor_s3.transfer.path import Learned
from raptor_s3.transfer.probe import Probe
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.datagram import MAX_DATAGRAM
from raptor_s3.wire.transfer_state import parse_transfer_state

if TYPE_CHECKING:
    from raptor_s3.net.channel import Channel, Sealer
    from raptor_s3.net.settings import EndpointSettings
    from raptor_s3.net.udp import Address
    from raptor_s3.transfer.outcome import TransferStats
    from raptor_s3.transfer.plan import PutRequest

_log = logging.getLogger(__name__)

DEAD_AFTER: Final = 2
"""Unanswered questions in a row after which the session may be dead: shake hands beside them."""
SMALLER_DATAGRAMS: Final = (MAX_DATAGRAM, 1200, 900, 508)
"""Sizes to try when datagrams don't fit the path. 508, and WireGuard's octets, fit what any IPv4 host must take (RFC 791)."""
RETRY_SEND_S: Final = 0.001
_ARENA_BYTES: Final = 1 << 16
_RECEIVE_BYTES: Final = 4096
_NEVER: Final = float("inf")


def new_transfer_id() -> str:
    """A fresh 128-bit transfer id: 22 base64url letters (DESIGN 3.2)."""
    return urlsafe_b64encode(os.urandom(16))[:22].decode()


class Put:
    """One call of the engine: its transfer, and how it ended."""

    __slots__ = ("carried", "error", "future", "is_done", "sealer", "transfer", "wake")

    def __init__(self, transfer: OutgoingTransfer) -> None:
        self.transfer = transfer
        self.is_done = False
        self.error: Exception | None = None
        self.sealer: Sealer | None = None
        self.carried: TransferStats | None = None  # of the attempts before this one
        self.wake: Any = None
        self.future: Any = None


class Link:
    """Not thread-safe. `now` is on `raptor_s3.net.clock`."""

    def __init__(self, settings: EndpointSettings, channel: Channel, addresses: list[Address], now: float) -> None:
        """Raises OSError when there is no way to any of the addresses."""
        self.settings = settings
        self.channel = channel
        self.sender = Sender(now, cap=settings.cap, learned=_learned(channel.load_learned()))
        self.max_datagram = MAX_DATAGRAM
        self.ended: list[Put] = []
        self.malformed = 0
        self.is_blocked = False
        """The kernel had no room: wait until the socket can be written."""
        self._addresses = addresses
        self._address_index = -1
        self._socket: Socket | None = None
        self._puts: dict[str, Put] = {}
        self._arena = bytearray(_ARENA_BYTES)
        self._sealed = bytearray(_ARENA_BYTES + 64 * 64)
        self._sealed_view = memoryview(self._sealed)
        self._unsent = memoryview(b"")
        self._unsent_size = 0
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._buffer_view = memoryview(self._buffer)
        self._is_refused = False
        self.descriptor = -1
        """Of the socket; it changes when the endpoint's next address is tried."""
        self._next_address()

    # Puts

    def build(self, request: PutRequest, now: float) -> OutgoingTransfer:
        """The transfer of a request. Reads shared estimates only: needs no lock."""
        return OutgoingTransfer(request, now, self.sender.path)

    def build_probe(self, timeout_s: float, now: float) -> Probe:
        """A ping. Needs no lock."""
        return Probe(new_transfer_id(), timeout_s, now, self.sender.path)

    def add(self, put: Put, now: float) -> None:
        if not self._puts and self.channel.is_handshaking and now >= self._handshake_ends_at:
            self.channel.abandon_handshake()  # it was for puts that have ended since; this one gets a whole one
        self._puts[put.transfer.object_id] = put
        self.sender.add(put.transfer)

    def abandon(self, put: Put, now: float) -> None:
        """The caller does not wait any more: tell the receiver, once, and forget the put."""
        if self._puts.pop(put.transfer.object_id, None) is None:
            return
        self.sender.cancel(put.transfer, now)
        if put.transfer.wants_cancel and put.sealer is not None:
            with contextlib.suppress(OSError, RaptorError):
                self._send(put.sealer.seal(put.transfer.take_cancel(now), now))
        self.sender.drop(put.transfer)

    @property
    def puts(self) -> int:
        return len(self._puts)

    # Time

    def next_deadline(self, now: float) -> float:
        """When `pump` has something to do, if nothing comes in before."""
        due = self.sender.get_timer()
        if self.channel.is_handshaking:
            due = min(due, self.channel.get_timer(), self._handshake_ends_at)
        if self._unsent:
            return min(due, now + RETRY_SEND_S)
        if self.sender.has_queue and not self._waits_for_session:
            return min(due, self.sender.next_send_at(now))
        return due

    @property
    def _handshake_ends_at(self) -> float:
        return self.channel.handshake_started_at + self.settings.handshake_timeout_s

    _waits_for_session = False

    def pump(self, now: float) -> None:
        """Everything that is due: timers, handshake, datagrams."""
        sender, channel = self.sender, self.channel
        if sender.get_timer() <= now and sender.handle_timer(now) >= DEAD_AFTER:
            self._suspect_session(now)
        if self._puts:
            sealer = channel.fresh
            if now >= channel.fresh_until:
                sealer = channel.acquire(now)
                if sealer is None or channel.is_handshaking or channel.needs_rekey(now):
                    self._shake_hands(now, sealer)
                    sealer = channel.acquire(now)
                self._waits_for_session = sealer is None
            if sender.has_work or self._unsent:
                self._flush(sealer, now)
        if sender.ended:
            self._end()

    def _end(self) -> None:
        for transfer in self.sender.ended:
            put = self._puts.pop(transfer.object_id, None)
            if put is not None:
                put.is_done = True
                if transfer.outcome is not Ending.CONFIRMED and transfer.outcome is not None:
                    put.error = error_for(transfer.outcome, transfer.answer, transfer.request.timeout_s)
                self.ended.append(put)
        self.sender.ended.clear()

    def _fail_unstarted(self, error: Exception) -> None:
        """End the puts of which nothing has been sent: HTTPS may take over at once."""
        for put in [put for put in self._puts.values() if not put.transfer.has_started and put.carried is None]:
            del self._puts[put.transfer.object_id]
            self.sender.drop(put.transfer)
            put.is_done = True
            put.error = error
            self.ended.append(put)

    # Sessions

    def _shake_hands(self, now: float, sealer: Sealer | None) -> None:
        channel = self.channel
        if channel.is_handshaking and now >= self._handshake_ends_at:
            channel.abandon_handshake()
            if sealer is None:
                self._fail_unstarted(HandshakeTimeout(f"{self.settings.url}: no handshake response"))
                self._next_address()
            return
        if sealer is None:
            for put in self._puts.values():
                put.transfer.stats.handshake = True
        message = channel.handshake(now)
        if message is not None:
            try:
                self._send(message)
            except OSError as error:
                self._trouble(error, now)
        if channel.renewed:
            self._renewed(now)

    def _suspect_session(self, now: float) -> None:
        sealer = self.channel.acquire(now)
        if sealer is not None and any(
            put.transfer.silences >= DEAD_AFTER and put.sealer is sealer for put in self._puts.values()
        ):
            self.channel.suspect(sealer, now)
            if self.channel.renewed:
                self._renewed(now)

    def _renewed(self, now: float) -> None:
        """There are new keys: what was not answered under the old ones is asked again under these."""
        self.channel.renewed = False
        self._is_refused = False
        if self.channel.handshake_rtt_s is not None:
            path = self.sender.path
            path.rtt.sample(self.channel.handshake_rtt_s, now)
            if path.confirmation.smoothed_s is None:
                path.confirmation.sample(self.channel.handshake_rtt_s, now)
            self.channel.handshake_rtt_s = None
        sealer = self.channel.acquire(now)
        for put in list(self._puts.values()):
            if put.sealer is not None and put.transfer.silences:
                put.sealer = sealer
                self.sender.change_session(put.transfer, now)

    # Sending

    def _flush(self, sealer: Sealer | None, now: float) -> None:
        sender = self.sender
        try:
            if self._unsent and not self._send_rest():
                return
            for transfer in sender.take_cancels():
                put = self._puts.get(transfer.object_id)
                if put is not None and put.sealer is not None:
                    self._send(put.sealer.seal(transfer.take_cancel(now), now))
            while sealer is not None:
                item = sender.next_run(now)
                if item is None:
                    return
                transfer, run = item
                put = self._puts[transfer.object_id]
                if put.sealer is None:
                    put.sealer = sealer
                size = transfer.datagram_size
                transfer.write(run, self._arena, 0, size)
                length = put.sealer.seal_arena(self._arena, run.length, size, size, self._sealed, now)
                try:
                    if run.length == 1 and self._socket is not None and self._socket.send(self._sealed_view[:length]):
                        continue
                    sent = self._train(length, size + self.channel.overhead)
                except MessageTooLong:
                    self._shorten(put, run.length, now)
                    continue
                if not sent:
                    return
        except WireGuardError:  # the session expired under our hands: the next pump finds another
            return
        except OSError as error:
            self._trouble(error, now)

    def _train(self, length: int, size: int) -> bool:
        self._unsent_size = size
        self._unsent = self._sealed_view[:length]
        return self._send_rest()

    def _send_rest(self) -> bool:
        train, self._unsent = self._unsent, self._unsent[:0]
        if self._socket is None:
            return True
        sent = self._socket.send_train(train, self._unsent_size)
        self._unsent = train[sent:]
        self.is_blocked = bool(self._unsent)
        return not self.is_blocked

    def _send(self, message: bytes) -> None:
        if self._socket is not None:
            self._socket.send(message)

    def _shorten(self, put: Put, refused: int, now: float) -> None:
        """The path does not take datagrams of this size: smaller ones from now on; this put starts over if nothing has left."""
        size = put.transfer.datagram_size
        self.max_datagram = next((smaller for smaller in SMALLER_DATAGRAMS if smaller < size), SMALLER_DATAGRAMS[-1])
        _log.debug("%s: datagrams of %d octets do not fit, going on with %d", self.settings.url, size, self.max_datagram)
        transfer = put.transfer
        if transfer.count_sent().datagrams_sent > refused or size <= self.max_datagram:
            self.sender.cancel(transfer, now)
            return
        self._replace(put, now)

    def _replace(self, put: Put, now: float) -> None:
        """Send the object again under a new transfer id. Only when nothing of the old one can be written."""
        old = put.transfer
        del self._puts[old.object_id]
        self.sender.drop(old)
        request = old.request._replace(
            object_id=new_transfer_id() if old.request.fields is not None else old.object_id,
            timeout_s=old.ends_at - now,
            max_datagram=self.max_datagram,
        )
        put.carried = put.carried or old.stats
        put.sealer = None
        put.transfer = self.build(request, now)
        self.add(put, now)

    # Receiving

    def receive(self, now: float, limit: int) -> int:
        """Take in at most `limit` datagrams; how many there were."""
        if self._socket is None:
            return 0
        receive_into, buffer, view = self._socket.receive_into, self._buffer, self._buffer_view
        count = 0
        while count < limit:
            try:
                size = receive_into(buffer)
            except BlockingIOError:
                break
            except OSError as error:
                self._trouble(error, now)
                break
            count += 1
            self._take_in(view[:size], now)
        if self.sender.ended:
            self._end()
        return count

    def _take_in(self, message: memoryview, now: float) -> None:
        channel = self.channel
        try:
            plaintext = channel.receive(message, now)
            if plaintext is not None:
                self._is_refused = False
                self.sender.receive_state(parse_transfer_state(plaintext), now)
            elif channel.renewed:
                self._renewed(now)
        except (WireGuardError, MalformedPacket) as error:
            self.malformed += 1
            _log.debug("%s: %s", self.settings.url, error)

    # Trouble

    def _trouble(self, error: OSError, now: float) -> None:
        """The kernel reports that the peer refuses, or that there is no way to it."""
        _log.debug("%s: %s", self.settings.url, error)
        sealer = self.channel.acquire(now)
        if sealer is not None and not isinstance(error, ConnectionRefusedError):
            self._next_address()
            return
        if sealer is not None:
            # Whoever listens there now has none of our keys; puts that have not begun shake hands first.
            self.channel.suspect(sealer, now)
            return
        self.channel.abandon_handshake()
        self._fail_unstarted(HandshakeTimeout(f"{self.settings.url}: {error.strerror or error}"))
        self._next_address()

    def _next_address(self) -> None:
        """Open a socket to the next of the endpoint's addresses. Sessions survive that: the peer follows (roaming)."""
        for _ in self._addresses:
            self._address_index = (self._address_index + 1) % len(self._addresses)
            try:
                opened = Socket(self._addresses[self._address_index])
            except OSError as error:
                _log.debug("%s: %s", self.settings.url, error)
                continue
            if self._socket is not None:
                self._socket.close()
            self._socket = opened
            self.descriptor = opened.fileno()
            self._unsent = self._unsent[:0]
            self.is_blocked = False
            return
        if self._socket is None:
            raise OSError("no way to the endpoint")

    def save(self) -> None:
        """Keep what was learned and received for the next process."""
        self.channel.rest()
        learned = self.sender.learned
        if learned.srtt_s is not None:
            self.channel.save_learned({"path": learned._asdict()})

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _learned(record: dict[str, Any]) -> Learned | None:
    """What an earlier process kept; None for anything that does not look like it."""
    path = record.get("path")
    if not isinstance(path, dict):
        return None
    values = {name: path.get(name) for name in Learned._fields}
    if not all(value is None or (type(value) in (int, float) and 0 <= value < 1e12) for value in values.values()):
        return None
    default = Learned()
    return Learned(
        values["srtt_s"] or None,
        values["rttvar_s"] or 0.0,
        default.loss if values["loss"] is None else values["loss"],
        values["rate"] or None,
    )
