"""Attacks on the drop-in: calls that the fast path must not spoil, and waits that it must remember."""

import os
import signal
import threading

import pytest
import s3_double
from botocore.exceptions import ClientError

from raptor_s3.errors import ConfirmationTimeout, TransferRejected
from raptor_s3.net import engine
from raptor_s3.routing import endpoint, hooks
from raptor_s3.routing.breaker import LONGEST_COOLDOWN_S, Breaker
from raptor_s3.routing.fast_path import Declined
from raptor_s3.routing.policy import bucket_reason
from raptor_s3.routing.unconfirmed import unconfirmed


@pytest.fixture
def rig():
    with s3_double.rig() as made:
        yield made


def test_a_runtime_directory_that_others_can_read_spoils_no_multipart_upload(rig, tmp_path):
    shared = tmp_path / "run"
    shared.mkdir(mode=0o755)
    client = s3_double.make_client(rig.s3)
    hooks.attach(client, s3_double.make_config(rig.s3, runtime_dir=str(shared)))
    client.put_object(Bucket="bucket", Key="key", Body=b"body")  # goes over HTTPS
    with pytest.raises(ClientError):  # the double's answer to a POST, instead of ConfigError
        client.create_multipart_upload(Bucket="bucket", Key="key")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_a_thread_attaches_leaves_the_child_usable(rig):
    client = s3_double.make_client(rig.s3)
    held, release = threading.Event(), threading.Event()

    def hold():
        with hooks._registration:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(3)
        try:
            hooks.attach(client, s3_double.make_config(rig.s3))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    release.set()
    thread.join()
    assert status == 0


def test_a_receiver_that_can_not_reach_s3_is_not_waited_for_each_time(rig):
    """The gateway is alive, S3 behind it answers 500: each put waits for the whole time to live, then HTTPS carries it."""
    client = rig.attach()
    tried = []
    answer = TransferRejected("RequestExpired", "gateway: no time is left, and an attempt may have written", 400)

    def put(fields, body, **_):
        tried.append(fields["Key"])
        raise answer

    rig.engine.put = put
    for number in range(5):
        client.put_object(Bucket="bucket", Key=f"key{number}", Body=b"body")
    assert len(tried) < 5


def test_a_lost_confirmation_of_a_conditional_put_is_no_false_412(rig):
    client = rig.attach()

    def put(fields, body, **_):
        rig.s3.objects["/bucket/key"] = s3_double.Stored(bytes(body), {})  # written; then the answers are lost
        rig.s3.fail_next = [412]  # what S3 says to If-None-Match now
        raise ConfirmationTimeout("no final state within 5 s")

    rig.engine.put = put
    response = client.put_object(Bucket="bucket", Key="key", Body=b"a body that nobody else has written", IfNoneMatch="*")
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_an_open_breaker_spares_the_resolver(rig, tmp_path, monkeypatch):
    lookups = []

    def resolve(host, port, *_):
        lookups.append(host)
        raise OSError(-3, "Temporary failure in name resolution")  # after ten seconds or more

    monkeypatch.setattr(engine, "resolve", resolve)
    config = s3_double.make_config(rig.s3, threshold="auto", endpoint="wg://gateway.invalid:9", runtime_dir=str(tmp_path / "run"))
    client = s3_double.make_client(rig.s3)
    hooks.attach(client, config)
    client.put_object(Bucket="bucket", Key="key", Body=b"body")
    assert endpoint.breaker_for(config).state.failures == 1
    del lookups[:]
    client.put_object(Bucket="bucket", Key="key", Body=b"body")
    assert lookups == []


def test_a_clock_that_was_set_back_leaves_the_breaker_working():
    now = 1_700_000_000.0
    breaker = Breaker(None, clock=lambda: now)
    breaker.failed("x", now)
    now -= 3600
    for _ in range(8):  # an hour of failures, each at its own time
        now += LONGEST_COOLDOWN_S / 2
        if breaker.admit(5) == "":
            breaker.failed("x", now)
    assert breaker.state.failures > 2


def test_a_bucket_of_another_partition_is_not_the_profiles(rig):
    config = s3_double.RaptorConfig(endpoint="wg://h:1", server_key=s3_double.KEY, client_key=s3_double.KEY, buckets="telemetry")
    regions = ("us-west-2.amazonaws.com", "us-gov-west-1.amazonaws.com", "cn-north-1.amazonaws.com.cn")
    routed = [host for host in regions if not bucket_reason("telemetry", f"https://telemetry.s3.{host}", config)]
    assert len(routed) <= 1


def test_attempts_that_never_report_back_do_not_grow_the_reason():
    now = 1_700_000_000.0
    breaker = Breaker(None, clock=lambda: now)
    breaker.failed("no handshake", now)
    for _ in range(20):  # each attempt's process is killed
        now += LONGEST_COOLDOWN_S + 100
        assert breaker.admit(5) == ""
    assert len(breaker.state.reason) < 200


@pytest.mark.parametrize(
    "stored",
    [
        {"failures": float("inf")},
        {"failures": 1, "open_until": 10**400},
        {"failures": float("nan")},
        {"failures": [], "open_until": {}},
        {"failures": 10**400, "open_until": float("-inf"), "reason": 1},
    ],
    ids=repr,
)
def test_nonsense_in_the_breakers_record_is_no_exception(stored):
    class Store:
        def load(self):
            return stored

        def update(self, change):
            change(stored)

    breaker = Breaker(Store())
    assert isinstance(breaker.admit(1.0), str)
    breaker.failed("timeout", 0.0)
    breaker.succeeded()


def test_what_a_shortcut_heard_of_one_put_is_not_taken_for_another(rig):
    """It is left for the hook by thread: a fork in between leaves it in the child, where another thread may get that number."""
    client = s3_double.make_client(rig.s3)
    attachment = rig.attach_to(client, s3_double.make_config(rig.s3))
    puts = attachment.puts
    fields = {"Bucket": "bucket", "Key": "one", "IfNoneMatch": "*"}
    sent = unconfirmed(ConfirmationTimeout("lost"), fields, b"body", 0.0)
    call = puts.new_call()
    call.record.bucket, call.record.key = "bucket", "one"
    puts.declined[threading.get_ident()] = Declined("fast path failed", b"body", after_failure=True, unconfirmed=sent), call
    response = client.put_object(Bucket="bucket", Key="another", Body=b"body", IfNoneMatch="*")
    assert response["ResponseMetadata"]["Raptor"]["Route"] == "raptor"
    assert rig.s3.puts == []
    assert puts.declined == {}
