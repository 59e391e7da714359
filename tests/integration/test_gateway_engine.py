"""The real sender (net.Engine) against the gateway as a process."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import signal
import threading

import pytest
from gateway_rig import GatewayProcess, local_aws, wait_until

from raptor_s3.errors import TransferError, TransferRejected, WireGuardError
from raptor_s3.net.engine import EndpointSettings, Engine
from raptor_s3.wire.put_header import crc32_field
from raptor_s3.wireguard.keys import key_from_base64

PEERS = {"cam": {"allow": [{"bucket": "data", "prefixes": ["cam/"]}]}}


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with local_aws(tmp_path_factory.mktemp("aws")) as client:
        client("s3").create_bucket(Bucket="data")
        yield client


@pytest.fixture
def gateway(aws, tmp_path):
    with GatewayProcess(tmp_path, "--aws-endpoint-url", aws.url, peers=PEERS) as gateway:
        yield gateway


def engine_for(gateway: GatewayProcess, tmp_path, name: str = "cam", **more) -> Engine:
    settings = EndpointSettings(
        url=gateway.ready["url"],
        server_key=key_from_base64(gateway.ready["public_key"]),
        client_key=gateway.private_keys[name],
        runtime_dir=tmp_path / "runtime",
        **more,
    )
    return Engine(settings)


def put(engine: Engine, key: str, body: bytes, **more):
    fields = {"Bucket": "data", "Key": key, "ChecksumCRC32": crc32_field(body)}
    return engine.put(fields, body, timeout_s=more.pop("timeout_s", 15.0), **more)


def stored(aws, key: str) -> bytes:
    return aws("s3").get_object(Bucket="data", Key=key)["Body"].read()


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 3_000_000])
def test_what_is_confirmed_is_in_s3(gateway, aws, tmp_path, size):
    body = os.urandom(size)
    outcome = put(engine_for(gateway, tmp_path), f"cam/{size}", body)
    assert outcome.fields["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert stored(aws, f"cam/{size}") == body


def test_a_refusal_says_whose_it_is(gateway, tmp_path):
    with pytest.raises(TransferRejected, match="gateway: peer cam may not write") as caught:
        put(engine_for(gateway, tmp_path), "elsewhere", b"x")
    assert (caught.value.code, caught.value.status) == ("AccessDenied", 403)


def test_threads_share_the_gateway(gateway, aws, tmp_path):
    engine = engine_for(gateway, tmp_path)
    bodies = {f"cam/thread-{number}": os.urandom(500 + 997 * number) for number in range(40)}
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda item: put(engine, *item), bodies.items()))
    for key, body in bodies.items():
        assert stored(aws, key) == body


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_puts_survive_a_restart_or_say_that_they_did_not(gateway, aws, tmp_path, number):
    """Confirmed means stored, whatever happens to the gateway; and after its return puts succeed again."""
    engine = engine_for(gateway, tmp_path)
    port = gateway.ready["port"]
    put(engine, "cam/first", b"first")
    stop = threading.Event()
    confirmed: dict[str, bytes] = {}
    unexpected: list[Exception] = []

    def work(worker: int) -> None:
        count = 0
        while not stop.wait(0.02):
            key, body = f"cam/restart-{number}-{worker}-{count}", os.urandom(2000)
            count += 1
            try:
                put(engine, key, body, timeout_s=3.0)
            except (TransferError, WireGuardError):
                continue
            except Exception as error:
                unexpected.append(error)
                raise
            confirmed[key] = body

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    wait_until(lambda: len(confirmed) >= 20, "puts do not succeed before the restart")
    before = set(confirmed)
    gateway.send_signal(number)
    gateway.process.wait(30)
    gateway.ready_file.unlink(missing_ok=True)
    gateway.start(f"127.0.0.1:{port}")
    wait_until(lambda: len(confirmed) >= len(before) + 50, "puts do not succeed after the restart")
    stop.set()
    for worker in workers:
        worker.join(30)
    for key, body in confirmed.items():
        assert stored(aws, key) == body
    assert not unexpected
