"""Large uploads of s3transfer's: who cancels one doesn't wait for the fast path."""

import io
import threading
from concurrent.futures import Future

import pytest
import s3_double
from s3transfer.exceptions import CancelledError
from s3transfer.manager import TransferConfig, TransferManager
from s3transfer.subscribers import BaseSubscriber

from raptor_s3.errors import ConfirmationTimeout
from raptor_s3.routing.body import Body

LARGE = bytes(range(256)) * 4096 * 3
SMALL = bytes(1000)


@pytest.fixture(params=["hook", "shortcuts"])
def rig(request):
    """Everything holds on both ways."""
    with s3_double.rig(request.param == "shortcuts") as made:
        yield made


@pytest.fixture(params=["raptor", "https after it"])
def manager(request, rig):
    client = rig.attach(**({"transport": "raptor"} if request.param == "raptor" else {"threshold": "8MB"}))
    with TransferManager(client, TransferConfig(max_bandwidth=1 << 30)) as made:
        yield made


class Progress(BaseSubscriber):
    def __init__(self, seen):
        self._seen = seen

    def on_progress(self, future, bytes_transferred, **kwargs):
        self._seen.append(bytes_transferred)


class Endless(Future):
    """A put that nobody answers."""

    def __init__(self):
        super().__init__()
        self.set_running_or_notify_cancel()
        self.began = threading.Event()
        self.was_cancelled = threading.Event()

    def cancel(self):
        self.was_cancelled.set()
        return True


@pytest.fixture
def endless(rig):
    future = Endless()

    def submit(*_, **__):
        future.began.set()
        return future

    rig.engine.submit = submit
    yield future
    if not future.done():
        future.set_exception(ConfirmationTimeout("nobody"))


def test_a_cancelled_upload_ends_and_its_put_is_cancelled(rig, manager, endless):
    upload = manager.upload(io.BytesIO(LARGE), "bucket", "key")
    assert endless.began.wait(10)
    upload.cancel()
    assert endless.was_cancelled.wait(10)
    with pytest.raises(CancelledError):
        upload.result()
    assert rig.s3.puts == []
    assert rig.breaker.state.failures == 0


def test_one_that_nobody_cancels_is_as_ever(rig, manager):
    seen = []
    manager.upload(io.BytesIO(LARGE), "bucket", "key", subscribers=[Progress(seen)]).result()
    assert rig.engine.bodies == [LARGE]
    assert sum(seen) == len(LARGE)


def test_the_body_is_asked_without_being_read(rig, manager, endless, monkeypatch):
    asked, seen = threading.Semaphore(0), []
    ask = Body.ask
    monkeypatch.setattr(Body, "ask", lambda body: ask(body) or asked.release())
    upload = manager.upload(io.BytesIO(LARGE), "bucket", "key", subscribers=[Progress(seen)])
    for _ in range(2):
        assert asked.acquire(timeout=10)
    endless.set_result(s3_double.Outcome({"ETag": '"e"'}))
    upload.result()
    assert sum(seen) == len(LARGE)
    assert not endless.was_cancelled.is_set()


def test_a_failure_goes_over_https_with_the_body_whole(rig):
    rig.engine.error = ConfirmationTimeout("no answer")
    with TransferManager(rig.attach(threshold="8MB")) as manager:
        manager.upload(io.BytesIO(LARGE), "bucket", "key").result()
    assert rig.over_https("key") == LARGE


def test_small_uploads_and_other_bodies_wait_in_the_engine_itself(rig, endless):
    client = rig.attach(transport="raptor")
    with TransferManager(client) as manager:
        manager.upload(io.BytesIO(SMALL), "bucket", "key").result()
    for body in (LARGE, io.BytesIO(LARGE), s3_double.Stream(LARGE)):
        client.put_object(Bucket="bucket", Key="key", Body=body)
    assert rig.engine.bodies == [SMALL, LARGE, LARGE, LARGE]
    assert not endless.began.is_set()


def test_a_small_upload_with_much_patience_can_be_cancelled_too(rig, endless):
    with TransferManager(rig.attach(timeout="5min")) as manager:
        upload = manager.upload(io.BytesIO(SMALL), "bucket", "key")
        assert endless.began.wait(10)
        upload.cancel()
        assert endless.was_cancelled.wait(10)
