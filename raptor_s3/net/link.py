"""One endpoint's socket, channel and sender as one machine: sends what is due, takes in what has come. No threads, no waiting.

    add(put) -> pump(now) -> [wait until next_deadline(now), or the socket is ready] -> receive(now) -> pump(now) ... -> `ended`

A small put that has all this to itself is sent by `send_alone` instead, and is done with the answer; it joins the others as
soon as there are any, or anything is to be done about it.

Invariants: a put that is in `ended` sends nothing any more; one that ended with HandshakeTimeout never sent a datagram.
Whatever goes wrong here, one that has sent ends by a final state, an acknowledged cancel, or its timeout (`fail`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING, Final

from raptor_s3.errors import HandshakeTimeout, MalformedPacket, RaptorError, TransferCancelled, WireGuardError
from raptor_s3.net import clock, memory
from raptor_s3.net.alone import COMPANY, Alone
from raptor_s3.net.doubt import Doubt
from raptor_s3.net.handshaking import Handshaking
from raptor_s3.net.outbox import Outbox
from raptor_s3.net.put import Put, new_transfer_id
from raptor_s3.net.route import Route
from raptor_s3.net.udp import MessageTooLong
from raptor_s3.transfer.outcome import Ending
from raptor_s3.transfer.outgoing import OutgoingTransfer
from raptor_s3.transfer.probe import Probe, probe_datagram
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.transfer_state import StateType, parse_transfer_state

if TYPE_CHECKING:
    from raptor_s3.net.channel import Channel, Sealer
    from raptor_s3.net.lookup import Address
    from raptor_s3.net.settings import EndpointSettings
    from raptor_s3.transfer.plan import PutRequest

_log = logging.getLogger(__name__)

RETRY_SEND_S: Final = 0.001
PAUSE_S: Final = 0.05
"""After an unexpected error, before anything is tried again."""
_RECEIVE_BYTES: Final = 4096
_NEVER: Final = float("inf")
_CANCELLED: Final = Ending.CANCELLED


class Link:
    """Not thread-safe. `now` is on `raptor_s3.net.clock`."""

    def __init__(self, settings: EndpointSettings, channel: Channel, addresses: list[Address], now: float) -> None:
        """Raises OSError when there is no way to any of the addresses."""
        self.settings = settings
        self.channel = channel
        record = channel.load_learned()
        self.sender = Sender(now, cap=settings.cap, learned=memory.parse_path(record))
        self.size = memory.parse_max_datagram(record)
        self.doubt = Doubt(self.size)
        self.ended: list[Put] = []
        self.malformed = 0
        self.route = Route(settings.url, addresses, memory.parse_address(record))
        self._waits_for_session = True
        self.puts: dict[str, Put] = {}
        """By object id, those that are under way."""
        self.alone = Alone(self.sender, channel, self.route)
        """Has the one put that is under way without a transfer: `puts` is empty then, and whoever else comes in makes it join."""
        self._outbox = Outbox(self.sender, self.route, channel.overhead)
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._buffer_view = memoryview(self._buffer)
        self._resumes_at = 0.0
        self._handshaking = Handshaking(channel, self.route, settings.handshake_timeout_s, now)
        channel.is_committed = lambda: self.alone.put is not None or any(put.has_sent for put in self.puts.values())

    # Puts

    def prepare(self, request: PutRequest, now: float) -> Put:
        """A put, built already unless it may go alone. Reads shared estimates only: needs no lock."""
        put, body, alone = Put(request, now), request.body, self.alone
        if self.puts or alone.put or alone.company or type(body) is not bytes or len(body) >= request.max_datagram:
            put.build(self._transfer(request, now))
        return put

    def prepare_probe(self, timeout_s: float, now: float) -> Put:
        """A ping. Needs no lock."""
        probe = Probe(new_transfer_id(), timeout_s, now, self.sender.path)
        put = Put(probe.request, now)
        put.build(probe)
        return put

    def _transfer(self, request: PutRequest, now: float) -> OutgoingTransfer:
        return OutgoingTransfer(request, now, self.sender.path)

    def add(self, put: Put, now: float) -> None:
        """Raises TransferCancelled when the link is closed, ValueError for what can't be sent, or an object id that is in use."""
        if self.route.socket is None:
            raise TransferCancelled("the engine was closed before anything was sent")
        if not put.is_built:
            put.build(self._transfer(put.request, put.started_at))
        if self.size.until < _NEVER:
            self.size.forget_in_time(clock.wall_time())
        if self.alone.put is not None:
            self.alone.company = COMPANY
            self._join()
        elif self.alone.company:
            self.alone.company -= 1
        if not self.puts and self.channel.is_handshaking:
            self._handshaking.find_again(now)
        object_id = put.transfer.object_id
        if object_id in self.puts:
            raise ValueError("object id is in use")
        self.puts[object_id] = put
        self.sender.add(put.transfer)

    def abandon(self, put: Put, now: float) -> None:
        """The caller does not wait any more: tell the receiver, once, and forget the put. This can be done again."""
        if self.alone.put is put:
            self._join()
        if not put.is_built or self.puts.get(put.transfer.object_id) is not put:
            return
        put.transfer.cancel(now)
        if put.transfer.wants_cancel and put.sealer is not None:
            with contextlib.suppress(OSError, RaptorError):
                self.route.send(put.sealer.seal(put.transfer.take_cancel(now), now))
        self.sender.drop(put.transfer)
        del self.puts[put.transfer.object_id]

    # A put that is alone

    def send_alone(self, put: Put, now: float) -> bool:
        """Send a put without a transfer, if it needs none and nothing else is under way. False: `add` it, nothing has left."""
        return not self.puts and now >= self._resumes_at and self.alone.send(put, now)

    def _join(self) -> None:
        """The lone put becomes one of `puts`. Interrupted, this can be done again."""
        put = self.alone.put
        if put is not None:
            self.alone.build(put)
            self.puts[put.transfer.object_id] = put
            self.alone.go_on(put)

    # Time

    def next_deadline(self, now: float) -> float:
        """When `pump` has something to do, if nothing comes in before."""
        if self.alone.put is not None:
            return self.alone.put.due
        if now < self._resumes_at:
            return self._resumes_at
        due = self.sender.get_timer()
        if self.channel.is_handshaking:
            due = min(due, self._handshaking.get_timer())
        elif self._waits_for_session and self.puts:
            due = min(due, self._handshaking.may_begin_at)
        if self.route.unsent:
            return min(due, now + RETRY_SEND_S)
        if self.sender.has_queue and not self._waits_for_session:
            return min(due, self.sender.next_send_at(now))
        return due

    def pump(self, now: float) -> None:
        """Everything that is due: timers, handshake, datagrams."""
        sender, channel = self.sender, self.channel
        if sender.is_due(now) and sender.handle_timer(now):
            self._suspect(now)
        if self.puts:
            sealer = channel.fresh
            if now >= channel.fresh_until:
                sealer = channel.acquire(now)
                if channel.is_handshaking or self._wants_handshake(now, sealer):
                    self._shake_hands(now, sealer)
                    sealer = channel.acquire(now)
            self._waits_for_session = sealer is None
            if sender.has_work or self.route.unsent:
                self._flush(sealer, now)
        if sender.ended:
            self.finish_ended(now)

    def finish_ended(self, now: float) -> None:
        """Every put whose transfer has ended gets into `ended`. Interrupted, this can be done again."""
        ended = self.sender.ended
        while ended:
            transfer = ended[0]
            put = self.puts.get(transfer.object_id)
            if put is not None and put.transfer is transfer:
                has_time = transfer.ends_at - now > 2 * self.sender.path.rtt.timeout_s
                if transfer.outcome is _CANCELLED and has_time and self.doubt.try_shorter(put):
                    self._replace(put, now)
                else:
                    self._finish(put, put.error_at_end())
            del ended[0]

    def _finish(self, put: Put, error: Exception | None) -> None:
        """Interrupted, this can be done again."""
        put.error = error
        if not put.is_done or put not in self.ended:
            put.is_done = True
            self.ended.append(put)
        self.sender.drop(put.transfer)
        self.puts.pop(put.transfer.object_id, None)

    def _fail_unstarted(self, reason: str) -> None:
        """End the puts of which nothing has been sent: HTTPS may take over at once."""
        for put in [put for put in self.puts.values() if not put.has_sent]:
            self._finish(put, HandshakeTimeout(f"{self.settings.url}: {reason}"))

    def fail(self, error: Exception, now: float) -> None:
        """Something unexpected went wrong: end the puts of which nothing has left, give up the others.

        Those end as any cancelled put does, when nothing can be written any more. Raises nothing.
        """
        self._resumes_at = now + PAUSE_S
        self._join()
        if not isinstance(error, RaptorError):
            _log.warning("%s: unexpected error, puts are given up", self.settings.url, exc_info=error)
        for put in list(self.puts.values()):
            transfer = put.transfer
            put.cause = put.cause or error
            put.shorter = False
            if transfer.outcome is None and put.has_sent and now < transfer.ends_at:
                with contextlib.suppress(Exception):
                    self.sender.cancel(transfer, now)
            else:
                self._finish(put, put.error_at_end())

    def cancel(self, put: Put, now: float) -> None:
        """Give up one put; it ends when the receiver has acknowledged that, or at its timeout."""
        put.cause = put.cause or TransferCancelled("cancelled before anything was sent")
        put.shorter = False
        self.sender.cancel(put.transfer, now)

    def cancel_all(self, now: float) -> None:
        """Give up every put that is under way; each ends when the receiver has acknowledged that, or at its timeout."""
        self._join()
        for put in list(self.puts.values()):
            self.cancel(put, now)

    # Sessions

    def _wants_handshake(self, now: float, sealer: Sealer | None) -> bool:
        """Puts that have begun must wait for their end anyhow: where the last handshake failed, they don't insist on the next."""
        if sealer is not None:
            return self.channel.needs_rekey(now)
        return now >= self._handshaking.may_begin_at or not all(put.has_sent for put in self.puts.values())

    def _shake_hands(self, now: float, sealer: Sealer | None) -> None:
        if sealer is None:
            for put in self.puts.values():
                put.transfer.stats.handshake = True
        try:
            if not self._handshaking.go_on(now, has_session=sealer is not None) and sealer is None:
                self._fail_unstarted("no handshake response")
        except OSError as error:
            self._trouble(error, now)
        if self.channel.renewed:
            self._renewed(now)

    def _suspect(self, now: float) -> None:
        """Questions went unanswered: the session may be dead, or the path too narrow for our datagrams."""
        sealer = self.channel.acquire(now)
        for put in list(self.puts.values()):
            transfer = put.transfer
            if not transfer.silences or put.sealer is None:
                continue
            self.doubt.note_silence(put, now)
            if sealer is not None and put.sealer is not sealer:
                if not self.sender.insist(transfer, now):
                    self._move(put, sealer, now)
            elif sealer is not None and self.doubt.keys_may_be_dead(transfer, now, self.sender.path.rtt.timeout_s):
                self.route.follow_host()
                self.channel.suspect(sealer, now)
                sealer = None
            if self.doubt.wants_ping(put, now):
                self._ping(put, now)
            elif self.doubt.blames_size(put, now):
                self._shorten(put, now, is_known=transfer.request.fields is None)
        if self.channel.renewed:
            self._renewed(now)

    def _ping(self, put: Put, now: float) -> None:
        """A question of few octets, which every receiver answers at once: does anything pass?"""
        self.doubt.pinged_at = now
        if put.sealer is not None:
            with contextlib.suppress(OSError, WireGuardError):
                self.route.send(put.sealer.seal(probe_datagram(new_transfer_id()), now))

    def _renewed(self, now: float) -> None:
        """There are new keys: what was not answered under the old ones is asked again under these."""
        channel, path = self.channel, self.sender.path
        channel.renewed = False
        self.doubt.renewed_at = now
        self.route.forget_failures()
        if channel.handshake_rtt_s is not None:
            path.rtt.sample(channel.handshake_rtt_s, now)
            if path.confirmation.smoothed_s is None:
                path.confirmation.sample(channel.handshake_rtt_s, now)
        sealer = channel.acquire(now)
        for put in list(self.puts.values()):
            is_doubtful = put.sealer is not None and put.sealer is not sealer and put.transfer.silences
            if is_doubtful and not self.sender.insist(put.transfer, now):
                self._move(put, sealer, now)

    def _move(self, put: Put, sealer: Sealer | None, now: float) -> None:
        if put.transfer.may_write:
            put.first_sealer = put.first_sealer or put.sealer
        put.sealer = sealer
        self.sender.change_session(put.transfer, now)

    # Sending

    def _flush(self, sealer: Sealer | None, now: float) -> None:
        sender, route = self.sender, self.route
        try:
            if route.unsent and not self._send_rest(now):
                return
            for transfer in sender.take_cancels() if sender.has_cancels else ():
                put = self.puts.get(transfer.object_id)
                if put is not None and put.sealer is not None:
                    cancel = transfer.take_cancel(now)
                    if put.first_sealer is not None:
                        with contextlib.suppress(WireGuardError):
                            route.send(put.first_sealer.seal(cancel, now))
                    try:
                        route.send(put.sealer.seal(cancel, now))
                    except WireGuardError:  # repeated on its timer
                        self._replace_session(put, sealer, now)
            while sealer is not None and (item := sender.next_run(now)) is not None:
                transfer, run = item
                put = self.puts[transfer.object_id]
                if put.sealer is None:
                    put.sealer = sealer
                try:
                    train = self._outbox.seal(transfer, run, put.sealer, now)
                except WireGuardError:
                    sender.put_back(transfer, run)
                    if not self._replace_session(put, sealer, now):
                        return  # the next pump finds another
                    continue
                try:
                    if not self._outbox.send(transfer, run, train):
                        return
                except MessageTooLong:
                    is_unsent = transfer.count_sent().datagrams_sent <= run.length
                    self._shorten(put, now, is_known=True, is_unsent=is_unsent)
                except OSError as error:
                    if transfer.is_unconfirmed:  # nobody would ask for what is missing
                        put.cause = put.cause or error
                        sender.cancel(transfer, now)
                    raise
        except OSError as error:
            self._trouble(error, now)
        finally:
            if route.socket is not None and route.socket.was_refused:
                route.socket.was_refused = False
                self._trouble(ConnectionRefusedError(errno.ECONNREFUSED, "refused by the peer's host"), now)

    def _send_rest(self, now: float) -> bool:
        try:
            return self._outbox.send_rest(now)
        except MessageTooLong:
            transfer = self._outbox.waiting
            for put in [put for put in self.puts.values() if put.transfer is transfer]:
                self._shorten(put, now, is_known=True)
            return True

    def _replace_session(self, put: Put, sealer: Sealer | None, now: float) -> bool:
        """The put's session can't seal any more. False when there is no other yet."""
        if sealer is not None and put.sealer is not sealer:
            self._move(put, sealer, now)
            return True
        if sealer is not None:
            self.channel.suspect(sealer, now)
        return False

    def _shorten(self, put: Put, now: float, *, is_known: bool = False, is_unsent: bool = False) -> None:
        """The path does not seem to take datagrams of this size: smaller ones for this put, and for all where that `is_known`.

        Under a new transfer id, which is safe only when nothing of the old one has left, or will ever be written.
        """
        is_shorter = self.doubt.shorten(put, is_known=is_known)
        size = put.transfer.datagram_size
        _log.debug("%s: datagrams of %d octets do not fit, going on with %d", self.settings.url, size, put.max_datagram)
        if is_unsent and is_shorter:
            self._replace(put, now)
        else:
            put.shorter = is_shorter
            put.is_replacement = True
            self.sender.cancel(put.transfer, now)

    def _replace(self, put: Put, now: float) -> None:
        """Send the object again under a new transfer id."""
        old = put.transfer
        request = old.request._replace(
            object_id=new_transfer_id() if old.request.fields is not None else old.object_id,
            timeout_s=old.ends_at - now,
            max_datagram=put.max_datagram,
        )
        transfer = self._transfer(request, now)
        del self.puts[old.object_id]
        self.sender.drop(old)
        put.shorter = put.is_heard = False
        put.silent_since = _NEVER
        put.sealer = put.first_sealer = None
        put.transfer = transfer
        self.add(put, now)

    # Receiving

    def receive(self, now: float, limit: int, *, is_lone: bool = False, is_late: bool = False) -> int:
        """Take in at most `limit` datagrams, and of a lone put none after its last; how many there were.

        `is_late`: they may have waited here for long, and tell no round trip.
        """
        socket = self.route.socket
        if socket is None:
            self._join()
            return 0
        if is_late and self.channel.is_handshaking:
            self.channel.handshake_was_left()
        receive_into, buffer, view = socket.receive_into, self._buffer, self._buffer_view
        put, count = self.alone.put, 0
        while count < limit:
            try:
                size = receive_into(buffer)
            except BlockingIOError:
                break
            except OSError as error:
                self._join()
                self._trouble(error, now)
                break
            count += 1
            self._take_in(view[:size], now, is_late)
            if put is not None and put.is_done:
                return count
            if is_lone and self.sender.ended:
                break
        if self.sender.ended:
            self.finish_ended(now)
        if self.alone.put is not None and now >= self.alone.put.due:
            self._join()
        return count

    def _take_in(self, message: memoryview, now: float, is_late: bool) -> None:
        channel = self.channel
        try:
            plaintext = channel.receive(message, now)
            if plaintext is not None:
                self.doubt.heard_at = now
                state, put = parse_transfer_state(plaintext), self.alone.put
                if put is not None and state.object_id == put.request.object_id:
                    if not is_late and self.alone.confirm(put, state, now):
                        return
                    self._join()
                put = self.puts.get(state.object_id)
                if put is None and state.type is StateType.CANCELLED:
                    self.doubt.ping_answered_at = now
                if put is None or put.first_sealer is None or put.believes(state, channel.is_under(message, put.first_sealer)):
                    self.sender.receive_state(state, now, is_late=is_late)
                else:
                    self.sender.doubt(state.object_id, now)
                if put is not None and state.type is not StateType.CANCELLED:
                    self.doubt.was_heard(put, now)
            elif channel.renewed:
                self._join()
                self._renewed(now)
        except (WireGuardError, MalformedPacket) as error:
            self.malformed += 1
            _log.debug("%s: %s", self.settings.url, error)

    # Trouble

    def _trouble(self, error: OSError, now: float) -> None:
        """The kernel reports that the peer refuses, or that there is no way to it."""
        _log.debug("%s: %s", self.settings.url, error)
        sealer = self.channel.acquire(now)
        if sealer is None:
            if self._handshaking.leave_address(now):
                return
            self._fail_unstarted(error.strerror or str(error))
        elif isinstance(error, ConnectionRefusedError):
            # Whoever listens there now has none of our keys: puts that have not begun shake hands first.
            self.channel.suspect(sealer, now)
            return
        else:
            self.route.next_address()
        self.route.wants_addresses = True

    def save(self) -> None:
        """Keep what was learned and received for the next process."""
        self.channel.rest()
        self.channel.save_learned(memory.build(self.sender.learned, self.size, self.route.chosen))

    def close(self) -> None:
        self.route.close()
