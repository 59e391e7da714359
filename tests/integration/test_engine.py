"""Engine.put over loopback, against a real listener and Collector, with real WireGuard."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from raptor_s3.errors import ConfirmationTimeout, HandshakeTimeout, TransferCancelled, TransferRejected
from raptor_s3.net import clock
from raptor_s3.net.engine import Engine
from raptor_s3.transfer.path import INITIAL_REPAIR
from raptor_s3.wire.transfer_state import StateType, TransferState
from raptor_s3.wireguard.messages import TYPE_INITIATION, TYPE_TRANSPORT
from raptor_s3.wireguard.session import Session
from tests.responder import Responder, put_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from raptor_s3.net.put import Put
    from raptor_s3.transfer.events import ObjectReady
    from raptor_s3.transfer.outcome import PutOutcome


@pytest.fixture
def engine(responder: Responder) -> Iterator[Engine]:
    made = Engine(responder.settings())
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1, 1000, 10_000, 100_000, 700_000])
def test_put_arrives_byte_for_byte(responder: Responder, engine: Engine, size: int) -> None:
    body = os.urandom(size)
    outcome = engine.put(put_fields("key", body), body, timeout_s=10)
    assert responder.objects[("bucket", "key")] == [body]
    assert outcome.fields["ETag"].startswith('"')
    assert outcome.stats.handshake


def test_second_put_needs_no_handshake(responder: Responder, engine: Engine) -> None:
    engine.put(put_fields("a", b"1"), b"1", timeout_s=10)
    assert not engine.put(put_fields("b", b"2"), b"2", timeout_s=10).stats.handshake
    for number in range(INITIAL_REPAIR):
        engine.put(put_fields(f"c{number}", b"3"), b"3", timeout_s=10)
    before = responder.received
    outcome = engine.put(put_fields("d", b"4"), b"4", timeout_s=10)
    assert responder.received - before == outcome.stats.datagrams_sent == 1


def test_a_fresh_engine_uses_the_stored_session(responder: Responder, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for index in range(3):
        engine = Engine(responder.settings(directory))
        body = b"%d" % index
        outcome = engine.put(put_fields(f"k{index}", body), body, timeout_s=10)
        assert outcome.stats.handshake == (index == 0)
        engine.close()


def test_rejection_carries_the_receivers_words() -> None:
    def refuse(ready: object) -> TransferState:
        fields = {"Code": "AccessDenied", "Message": "no", "StatusCode": 403}
        return TransferState(StateType.FAILED, ready.transfer.object_id, fields=fields)

    with Responder(sink=refuse) as responder:
        engine = Engine(responder.settings())
        with pytest.raises(TransferRejected) as caught:
            engine.put(put_fields("k", b"x"), b"x", timeout_s=10)
        assert (caught.value.code, caught.value.message, caught.value.status) == ("AccessDenied", "no", 403)
        engine.close()


def test_nobody_there_is_noticed_without_waiting_for_the_timeout(responder: Responder) -> None:
    settings = responder.settings()
    responder.stop()
    engine = Engine(settings)
    with pytest.raises(HandshakeTimeout):
        engine.put(put_fields("k", b"x"), b"x", timeout_s=60)
    engine.close()
    responder.__init__()  # type: ignore[misc]


def test_a_silent_receiver_times_out(responder: Responder, engine: Engine) -> None:
    engine.put(put_fields("k", b"x"), b"x", timeout_s=10)
    responder.drop = lambda message: True
    with pytest.raises(ConfirmationTimeout):
        engine.put(put_fields("k", b"y"), b"y", timeout_s=0.5)
    assert responder.objects[("bucket", "k")] == [b"x"]


def test_threads_share_one_socket(responder: Responder, engine: Engine) -> None:
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for index in range(20):
                body = os.urandom(1 + 97 * index)
                engine.put(put_fields(f"{thread}/{index}", body), body, timeout_s=20)
                assert responder.objects[("bucket", f"{thread}/{index}")] == [body]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_thousand_futures_at_once(responder: Responder, engine: Engine) -> None:
    threads = threading.active_count()
    futures = [engine.submit(put_fields(f"{index}", b"%d" % index), b"%d" % index, timeout_s=60) for index in range(1000)]
    for future in futures:
        future.result(timeout=60)
    assert len(responder.objects) == 1000
    assert threading.active_count() <= threads + 2, "one that leads, one that resolves"


def test_an_outage_does_not_end_a_put_that_the_receiver_knows(responder: Responder) -> None:
    """After its blind part it may go on only in its own session, which a new handshake does not end."""
    engine = Engine(responder.settings(rate_mbps=8.0))
    engine.put(put_fields("warm", b"1"), b"1", timeout_s=10)
    body = os.urandom(1_500_000)
    future = engine.submit(put_fields("k", body), body, timeout_s=8)
    time.sleep(1.0)
    kinds: set[int] = set()

    def drop(message: bytes) -> bool:
        kinds.add(message[0])
        return True

    responder.drop = drop
    time.sleep(0.5)
    assert kinds == {TYPE_INITIATION, TYPE_TRANSPORT}, "it doubts its session"
    responder.drop = None
    assert not future.done()
    assert future.result(timeout=10).fields["ETag"]
    assert responder.objects[("bucket", "k")] == [body]
    engine.close()


def restarted_after_decoding(responder: Responder, engine: Engine, body: bytes, **options: Any) -> Future[PutOutcome]:
    """A put whose object the responder has, and still writes, when it ends. The next one, with `options`, has its keys."""
    engine.put(put_fields("warm", b"1"), b"1", timeout_s=10)
    decoded = threading.Event()
    responder.sink = lambda ready: decoded.set()
    future = engine.submit(put_fields("k", body), body, timeout_s=3)
    assert decoded.wait(5)
    responder.stop()
    time.sleep(options.pop("pause_s", 0.0))
    responder.__init__(port=responder.port, keys=(responder.server_key, responder.client_key), **options)  # type: ignore[misc]
    return future


@pytest.mark.parametrize("size", [500, 300_000])
def test_who_has_restarted_can_not_say_that_nothing_was_written(responder: Responder, size: int) -> None:
    """The one before may have handed the object to S3, which still works on it."""
    engine = Engine(responder.settings())
    future = restarted_after_decoding(responder, engine, b"x" * size, pause_s=0.5)  # past the blind part: it can't begin anew
    assert engine.ping(timeout_s=2).stats.rtt_s
    with pytest.raises(ConfirmationTimeout):
        future.result(timeout=10)
    assert not responder.objects
    engine.close()


@pytest.mark.parametrize(("status", "error"), [(412, ConfirmationTimeout), (403, TransferRejected)])
def test_who_has_restarted_can_not_say_whose_object_is_in_the_way(
    responder: Responder, status: int, error: type[Exception]
) -> None:
    def refuse(ready: ObjectReady) -> TransferState:
        fields = {"Code": "a code", "Message": "", "StatusCode": status}
        return TransferState(StateType.FAILED, ready.transfer.object_id, fields=fields)

    engine = Engine(responder.settings())
    future = restarted_after_decoding(responder, engine, b"x", sink=refuse)
    with pytest.raises(error):
        future.result(timeout=10)
    engine.close()


@pytest.fixture
def moved(responder: Responder) -> Iterator[tuple[Engine, Put]]:
    """A put that went on under new keys within its blind part, after an outage; they are good for both."""
    engine = Engine(responder.settings(rate_mbps=4.0))
    engine.put(put_fields("warm", b"1"), b"1", timeout_s=10)
    body = os.urandom(1_500_000)
    engine.submit(put_fields("k", body), body, timeout_s=20)
    time.sleep(0.2)
    assert engine._link is not None
    [sent] = engine._link.puts.values()
    responder.drop = lambda message: True
    time.sleep(0.5)
    responder.drop = None
    deadline = time.monotonic() + 5
    while sent.first_sealer is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield engine, sent
    engine.close()


def test_who_was_there_all_the_time_can(moved: tuple[Engine, Put]) -> None:
    """The cancel goes out under the keys that the put began under, too."""
    _, sent = moved
    assert sent.future is not None
    future = sent.future
    future.cancel()
    with pytest.raises(TransferCancelled):
        future.result(timeout=10)


def test_first_keys_that_are_spent_cast_no_doubt_on_the_present_ones(moved: tuple[Engine, Put]) -> None:
    engine, sent = moved
    first, present = sent.first_sealer, sent.sealer
    assert isinstance(first, Session)
    first.created_at -= 1000
    assert sent.future is not None
    sent.future.cancel()
    time.sleep(0.3)
    assert engine._link is not None
    assert engine._link.channel.acquire(clock.now()) is present
    assert engine.put(put_fields("after", b"1"), b"1", timeout_s=10).fields
    with engine._lock:  # nobody can say any more that nothing was written: it would wait for its timeout
        engine._link.abandon(sent, clock.now())
