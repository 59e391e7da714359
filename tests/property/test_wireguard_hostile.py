"""Whatever arrives, in whatever order: only authentic, fresh messages have an effect, and nothing raises what it should not."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raptor_s3.errors import MalformedPacket, WireGuardError
from raptor_s3.wireguard import arena
from raptor_s3.wireguard.constants import REJECT_AFTER_MESSAGES, WINDOW_SIZE
from raptor_s3.wireguard.listener import Data as Received
from raptor_s3.wireguard.listener import Send
from raptor_s3.wireguard.replay import ReplayWindow
from raptor_s3.wireguard.tunnel import Data, HandshakeComplete

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from wireguard_pair import SOURCE, Pair

MAC2_SIZE = 16  # may be anything while there is no load
HEADERS = st.sampled_from([bytes((kind, 0, 0, 0)) for kind in range(6)])
GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda head, body: head + body, HEADERS, st.binary(max_size=200)),
    st.builds(
        lambda kind_and_size, seed: bytes((kind_and_size[0], 0, 0, 0)) + hashlib.shake_128(seed).digest(kind_and_size[1] - 4),
        st.sampled_from([(1, 148), (2, 92), (3, 64), (4, 32), (4, 1400)]),
        st.binary(max_size=8),
    ),
)


@given(GARBAGE)
def test_garbage_is_harmless(garbage: bytes) -> None:
    pair = Pair()
    session = pair.shake_hands()
    pair.deliver(session.seal(b"before", pair.clock))
    count = pair.listener.session_count
    assert pair.listener.receive(garbage, SOURCE, pair.clock) == []
    with pytest.raises((MalformedPacket, WireGuardError)):
        pair.tunnel.receive(garbage, pair.clock)
    with pytest.raises((MalformedPacket, WireGuardError)):
        session.open(garbage, pair.clock)
    assert pair.listener.session_count == count
    assert pair.deliver(session.seal(b"after", pair.clock)).plaintext == b"after"


@given(st.data())
def test_changed_and_cut_messages_are_harmless(data: st.DataObject) -> None:
    """Each kind of message of a real handshake, damaged: no effect, and the real one still works."""
    pair = Pair()

    def damaged(message: bytes, ignored: int = 0) -> bytes:
        if data.draw(st.booleans()):
            return message[: data.draw(st.integers(0, len(message) - 1))]
        position = data.draw(st.integers(0, len(message) - 1 - ignored))
        flip = data.draw(st.integers(1, 255))
        return message[:position] + bytes((message[position] ^ flip,)) + message[position + 1 :]

    initiation = pair.initiation()
    assert pair.listener.receive(damaged(initiation, MAC2_SIZE), SOURCE, pair.clock) == []
    response = pair.answer(initiation)
    with pytest.raises((MalformedPacket, WireGuardError)):
        pair.tunnel.receive(damaged(response, MAC2_SIZE), pair.clock)
    event = pair.tunnel.receive(response, pair.clock)
    assert isinstance(event, HandshakeComplete)
    request = event.session.seal(b"request", pair.clock)
    assert pair.listener.receive(damaged(request), SOURCE, pair.clock) == []
    received = pair.deliver(request)
    reply = received.session.seal(b"reply", pair.clock)
    with pytest.raises((MalformedPacket, WireGuardError)):
        pair.tunnel.receive(damaged(reply), pair.clock)
    assert pair.tunnel.receive(reply, pair.clock) == Data(b"reply", event.session)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "rekey", "tick"]), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40
    ),
    st.randoms(use_true_random=False),
)
def test_everything_is_delivered_at_most_once_in_any_order(steps, shuffle) -> None:  # type: ignore[no-untyped-def]
    """Messages are delayed, reordered and duplicated at will, over rekeys: data arrives once or not at all, and unforged."""
    pair = Pair(shuffle.random())
    pair.shake_hands()
    to_server: list[bytes] = []
    to_client: list[bytes] = []
    sent: set[bytes] = set()
    received: list[bytes] = []
    for number, (action, copies, deliveries) in enumerate(steps):
        if action == "send" and pair.tunnel.session is not None and not pair.tunnel.session.is_expired(pair.clock):
            data = b"%d" % number
            sent.add(data)
            to_server += [pair.tunnel.session.seal(data, pair.clock)] * (copies + 1)
        elif action == "rekey":
            to_server += [pair.initiation()] * (copies + 1)
        else:
            pair.clock += 20.0
        for _ in range(deliveries):
            if to_server and shuffle.random() < 0.6:
                message = to_server.pop(shuffle.randrange(len(to_server)))
                for outcome in pair.listener.receive(message, SOURCE, pair.clock):
                    if isinstance(outcome, Received):
                        received.append(outcome.plaintext)
                        to_client += [outcome.session.seal(b"re " + outcome.plaintext, pair.clock)] * (copies + 1)
                    else:
                        assert isinstance(outcome, Send)
                        to_client += [outcome.message] * (copies + 1)
            elif to_client:
                message = to_client.pop(shuffle.randrange(len(to_client)))
                try:
                    event = pair.tunnel.receive(message, pair.clock)
                except WireGuardError:
                    continue
                if isinstance(event, Data):
                    received.append(event.plaintext)
    assert len(received) == len(set(received))
    assert {data.removeprefix(b"re ") for data in received} <= sent
    pair.clock += 1000
    session = pair.shake_hands()
    assert pair.deliver(session.seal(b"end", pair.clock)).plaintext == b"end"


def has_openssl() -> bool:
    try:
        arena.choose("openssl")
    except ValueError:
        return False
    arena.choose("auto")
    return True


SEALERS = [
    arena.seal_messages_in_python,
    *([arena.seal_messages_in_c] if arena.HAS_C else []),
    *([arena.seal_messages_with_openssl] if has_openssl() else []),
]


@pytest.mark.skipif(len(SEALERS) < 2, reason="_arena.c is not built")
@given(
    st.integers(-2, 40),
    st.integers(-2, 1500),
    st.integers(-2, 1520),
    st.one_of(st.integers(0, 4000), st.just(60_000)),
    st.one_of(st.integers(0, 6000), st.just(62_000)),
    st.one_of(st.integers(0, 2**64 - 1), st.integers(2**64 - 50, 2**64 + 1)),
)
def test_runs_are_the_same_in_every_way(count: int, size: int, stride: int, arena_size: int, out_size: int, counter: int) -> None:
    key, source = bytes(range(32)), (bytes(range(251)) * 240)[:arena_size]
    results: list[tuple[object, bytes]] = []
    for seal_messages in SEALERS:
        out = bytearray(out_size)
        try:
            result: object = seal_messages(key, 0xFFFFFFFF, counter, source, count, size, stride, out)
        except (ValueError, OverflowError):
            result = ValueError
        results.append((result, bytes(out)))
    assert all(result == results[0] for result in results[1:])


@pytest.mark.skipif(not arena.HAS_C, reason="_arena.c is not built")
@given(st.binary(max_size=1500), st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32), st.data())
def test_one_message_is_the_same_in_c(plaintext: bytes, counter: int, key: bytes, data: st.DataObject) -> None:
    message = bytearray(arena.seal_message(key, 0x01020304, counter, plaintext))
    assert message == arena.seal_message_in_python(key, 0x01020304, counter, plaintext)
    for _ in range(data.draw(st.integers(0, 2))):
        message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(0, 255))
    del message[data.draw(st.integers(0, len(message))) :]
    window, twin = ReplayWindow(), ReplayWindow()
    opened = arena.open_fresh(key, 0x01020304, window, message, 2**64 - 1)
    assert opened == arena.open_fresh_in_python(key, 0x01020304, twin, message, 2**64 - 1)
    assert window == twin
    whole = arena.seal_message(key, 0x01020304, counter, plaintext)
    assert opened == plaintext if message == whole and counter < 2**64 - 1 else isinstance(opened, int)


COUNTERS = st.one_of(st.integers(0, 20_000), st.integers(2**40 - 9_000, 2**40 + 9_000), st.integers(2**64 - 20_000, 2**64 - 1))
JUMPS = st.sampled_from([0, 1, 63, 64, 65, 8127, 8128, 8191, 8192, 2**40])
MESSAGES = st.lists(
    st.tuples(
        st.one_of(COUNTERS, *[st.tuples(st.sampled_from([-1, 1]), JUMPS)] * 3),
        st.sampled_from(["good"] * 5 + ["forged", "not ours", "short"]),
    ),
    max_size=60,
)


@pytest.mark.skipif(not arena.HAS_C, reason="_arena.c is not built")
@given(MESSAGES, st.one_of(st.just(-1), COUNTERS.filter(lambda floor: floor < REJECT_AFTER_MESSAGES)))
def test_windows_are_the_same_in_c(steps, floor: int) -> None:  # type: ignore[no-untyped-def]
    """Whatever comes, C and Python say the same of it, leave the same window, and change nothing but for good messages."""
    key, index = bytes(range(32)), 7
    window, twin = ReplayWindow(floor), ReplayWindow(floor)
    taken: set[int] = set()
    for step, kind in steps:
        counter = step if isinstance(step, int) else min(max(window.greatest + step[0] * step[1], 0), 2**64 - 1)
        message = bytearray(arena.seal_message(key, index, counter, b"%d" % counter))
        if kind == "forged":
            message[-1] ^= 1
        elif kind == "not ours":
            message[4] ^= 1
        elif kind == "short":
            del message[31:]
        before, was_fresh = bytes(window), window.is_fresh(counter)
        opened = arena.open_fresh(key, index, window, message, REJECT_AFTER_MESSAGES)
        assert opened == arena.open_fresh_in_python(key, index, twin, message, REJECT_AFTER_MESSAGES)
        assert window == twin
        if isinstance(opened, bytes):
            assert (kind, was_fresh, opened) == ("good", True, b"%d" % counter)
            assert floor < counter < REJECT_AFTER_MESSAGES
            assert counter not in taken
            taken.add(counter)
            assert window.greatest == max(taken)
            assert not window.is_fresh(counter)
        else:
            assert window == before
            assert kind != "good" or not was_fresh or counter >= REJECT_AFTER_MESSAGES


class Model:
    """The window as a set: what RFC 6479 is an efficient form of."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def take(self, counter: int) -> bool:
        fresh = counter not in self.seen and counter + 8192 > max(self.seen, default=0)
        if fresh:
            self.seen.add(counter)
        return fresh


@given(st.lists(st.one_of(st.integers(0, 20_000), st.integers(8_000, 8_400), st.integers(0, 2**63)), max_size=300))
def test_window_against_a_set(counters: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    for counter in counters:
        fresh = window.is_fresh(counter)
        too_old_to_tell = window.greatest - 8192 < counter <= window.greatest - WINDOW_SIZE
        if fresh:
            window.mark(counter)
        if not too_old_to_tell:
            assert fresh == model.take(counter)
        else:
            assert not fresh
