"""Conditional puts whose confirmations are lost on the way: gateway, S3 and boto3 are real, the link loses what comes back."""

from __future__ import annotations

import os
import select
import socket
import threading

import boto3
import pytest
from botocore.exceptions import ClientError
from gateway_rig import AWS_ENV, GatewayProcess, local_aws

import raptor_s3
from raptor_s3.wireguard.keys import key_to_base64

PEERS = {"device": {"allow": [{"bucket": "data"}]}}


class Relay:
    """Between client and gateway; while `is_one_way`, nothing comes back but handshake responses."""

    def __init__(self, target):
        self._near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._near.bind(("127.0.0.1", 0))
        self._far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._far.connect(target)
        self._client = None
        self._is_closed = False
        self.is_one_way = False
        self.url = f"wg://127.0.0.1:{self._near.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while not self._is_closed:
            for ready in select.select([self._near, self._far], [], [], 0.1)[0]:
                if ready is self._near:
                    data, self._client = self._near.recvfrom(65536)
                    self._far.send(data)
                else:
                    data = self._far.recv(65536)
                    if self._client is not None and not (self.is_one_way and data[0] == 4):  # transport data
                        self._near.sendto(data, self._client)

    def close(self):
        self._is_closed = True


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with (
        local_aws(tmp_path_factory.mktemp("aws")) as aws,
        GatewayProcess(tmp_path_factory.mktemp("gateway"), "--aws-endpoint-url", aws.url, peers=PEERS) as gateway,
    ):
        aws("s3").create_bucket(Bucket="data")
        yield aws, gateway


@pytest.fixture
def link(world, tmp_path, monkeypatch):
    """A client with the fast path, the relay that it goes through, and a client without."""
    aws, gateway = world
    for name in [name for name in os.environ if name.startswith(("AWS_", "RAPTOR_"))]:
        monkeypatch.delenv(name)
    for name, value in AWS_ENV.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    relay = Relay((gateway.ready["host"], gateway.ready["port"]))
    client = boto3.session.Session().client("s3")
    raptor_s3.enable(
        client, endpoint=relay.url, server_key=gateway.ready["public_key"], buckets="data", timeout="1.5s",
        client_key=key_to_base64(gateway.private_keys["device"]), runtime_dir=str(tmp_path / "run"),
    )  # fmt: skip
    yield client, relay, aws("s3")
    relay.close()


def test_the_writer_is_told_that_it_has_won(link):
    client, relay, plain = link
    relay.is_one_way = True
    response = client.put_object(
        Bucket="data", Key="lease", Body=b"held by me", IfNoneMatch="*", Metadata={"Owner": "me"}, ContentType="text/plain"
    )
    stored = plain.get_object(Bucket="data", Key="lease")
    assert stored["Body"].read() == b"held by me"
    assert response["ETag"] == stored["ETag"]
    found = response["ResponseMetadata"]
    assert (found["HTTPStatusCode"], found["Raptor"]["Route"]) == (200, "raptor")
    assert "confirmation lost" in found["Raptor"]["Reason"]


def test_who_comes_second_is_told_so(link):
    client, relay, plain = link
    plain.put_object(Bucket="data", Key="taken", Body=b"held by another")
    relay.is_one_way = True
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="data", Key="taken", Body=b"held by me", IfNoneMatch="*")
    assert plain.get_object(Bucket="data", Key="taken")["Body"].read() == b"held by another"


def test_a_compare_and_swap_that_was_done_is_done(link):
    client, relay, plain = link
    before = plain.put_object(Bucket="data", Key="counter", Body=b"1")["ETag"]
    relay.is_one_way = True
    after = client.put_object(Bucket="data", Key="counter", Body=b"2, as counted by this very writer", IfMatch=before)["ETag"]
    assert plain.get_object(Bucket="data", Key="counter")["ETag"] == after
