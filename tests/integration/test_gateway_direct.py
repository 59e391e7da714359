"""The gateway as a process, with the S3 of a local AWS behind it and WireGuard tunnels in front."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys

import pytest
from gateway_rig import Client, GatewayProcess, Transfer, local_aws, succeeded, wait_until

from raptor_s3.errors import AuthenticationFailed
from raptor_s3.wire.transfer_state import StateType
from raptor_s3.wireguard.keys import generate_private_key, key_to_base64

EVERYTHING = {"allow": [{"bucket": "data"}]}
PEERS = {"cam": {"allow": [{"bucket": "data", "prefixes": ["cam/", "k"]}]}, "other": EVERYTHING}


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with local_aws(tmp_path_factory.mktemp("aws")) as client:
        client("s3").create_bucket(Bucket="data")
        yield client


@pytest.fixture(scope="module")
def gateway(aws, tmp_path_factory):
    """One for all tests that leave it running."""
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), "--aws-endpoint-url", aws.url, peers=PEERS) as gateway:
        yield gateway


@pytest.fixture
def own_gateway(aws, tmp_path):
    """One for a test that stops it, or counts."""
    with GatewayProcess(tmp_path, "--aws-endpoint-url", aws.url, peers=PEERS) as gateway:
        yield gateway


@pytest.mark.parametrize("size", [0, 1, 1000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_objects_arrive_as_they_were_sent(gateway, aws, size, loss):
    body = os.urandom(size)
    client = gateway.client("cam").handshake()
    client.loss = loss
    state = client.put(body, Key=f"cam/{size}", ContentType="text/x-raptor", Metadata={"who": "camera"})
    assert succeeded(state), state
    stored = aws("s3").get_object(Bucket="data", Key=f"cam/{size}")
    assert stored["Body"].read() == body
    assert stored["ContentType"] == "text/x-raptor"
    assert stored["Metadata"] == {"who": "camera"}
    assert state.fields["ETag"] == stored["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'


@pytest.mark.skipif(sys.platform != "linux", reason="UDP GSO is Linux's")
def test_trains_of_datagrams_come_in_and_answers_go_out(own_gateway, aws):
    client = own_gateway.client("cam").handshake()
    transfers = {f"cam/train-{number:02}": Transfer.put(os.urandom(1000), Key=f"cam/train-{number:02}") for number in range(30)}
    client.send_train([transfer.source()[0] for transfer in transfers.values()])
    for transfer in transfers.values():
        assert succeeded(client.wait_final(transfer.object_id))
    large = Transfer.put(os.urandom(50_000), Key="cam/train")
    client.send_train(large.source())
    assert succeeded(client.wait_final(large.object_id))
    assert len(aws("s3").list_objects_v2(Bucket="data", Prefix="cam/train")["Contents"]) == 31
    assert own_gateway.stop()["data"] == 30 + len(large.sent)


def test_many_objects_at_once_over_one_session(gateway, aws):
    client = gateway.client("cam").handshake()
    transfers = {f"cam/many-{number}": Transfer.put(b"%d" % number * 500, Key=f"cam/many-{number}") for number in range(50)}
    for transfer in transfers.values():
        for datagram in transfer.source():
            client.send(datagram)
    for transfer in transfers.values():
        assert succeeded(client.wait_final(transfer.object_id))
    for number, key in enumerate(transfers):
        assert aws("s3").get_object(Bucket="data", Key=key)["Body"].read() == b"%d" % number * 500


def test_a_question_after_the_end_is_answered_again_and_writes_nothing(gateway, aws):
    client = gateway.client("cam").handshake()
    transfer = Transfer.put(b"once", Key="cam/once")
    first = client.send_until_final(transfer)
    aws("s3").delete_object(Bucket="data", Key="cam/once")
    client.states.clear()
    while client.receive(0.1):  # the second copy of the first answer, if there was one
        pass
    client.states.clear()
    assert client.send_until_final(transfer).fields == first.fields
    assert "Contents" not in aws("s3").list_objects_v2(Bucket="data", Prefix="cam/once")


def test_what_the_policy_does_not_name_is_refused(gateway, aws):
    client = gateway.client("cam").handshake()
    for fields in ({"Key": "elsewhere"}, {"Bucket": "other-bucket"}, {"Tagging": "a=b"}):
        state = client.put(b"x", **fields)
        assert state.type is StateType.FAILED
        assert state.fields["StatusCode"] == 403
        assert state.fields["Code"] == "AccessDenied"
    assert "Contents" not in aws("s3").list_objects_v2(Bucket="data", Prefix="elsewhere")


def test_s3s_own_errors_come_back(gateway):
    client = gateway.client("other").handshake()
    client.put(b"first", Key="only-once", IfNoneMatch="*")
    state = client.put(b"second", Key="only-once", IfNoneMatch="*")
    assert state.type is StateType.FAILED
    assert (state.fields["Code"], state.fields["StatusCode"]) == ("PreconditionFailed", 412)


def test_a_wrong_checksum_never_reaches_s3(gateway, aws):
    state = gateway.client("cam").handshake().put(b"body", Key="cam/bad", ChecksumCRC32="AAAAAA==")
    assert state.fields["Code"] == "BadDigest"
    assert "Contents" not in aws("s3").list_objects_v2(Bucket="data", Prefix="cam/bad")


def test_peers_do_not_meet_even_with_one_object_id(gateway, aws):
    cam, other = gateway.client("cam").handshake(), gateway.client("other").handshake()
    one, two = Transfer.put(b"1" * 3000, Key="cam/a"), Transfer.put(b"2" * 3000, Key="cam/b")
    two.object_id = one.object_id
    for left, right in zip(one.source(), two.source(), strict=True):
        cam.send(left)
        other.send(right)
    assert succeeded(cam.wait_final(one.object_id))
    assert succeeded(other.wait_final(one.object_id))
    assert aws("s3").get_object(Bucket="data", Key="cam/a")["Body"].read() == b"1" * 3000
    assert aws("s3").get_object(Bucket="data", Key="cam/b")["Body"].read() == b"2" * 3000


def test_a_cancel_before_the_end_leaves_nothing_and_holds(gateway, aws):
    client = gateway.client("cam").handshake()
    transfer = Transfer.put(b"z" * 5000, Key="cam/cancelled")
    *some, last = transfer.source()
    for datagram in some:
        client.send(datagram)
    client.send(transfer.cancel())
    assert client.wait_final(transfer.object_id).type is StateType.CANCELLED
    client.send(last)
    for datagram in transfer.repair(20):
        client.send(datagram)
    while client.receive(0.3):
        pass
    assert {state.type for state in client.states if state.is_final} == {StateType.CANCELLED}
    assert "Contents" not in aws("s3").list_objects_v2(Bucket="data", Prefix="cam/cancelled")


def test_a_passed_time_to_live_is_not_written(gateway, aws):
    client = gateway.client("cam").handshake()
    transfer = Transfer.put(b"z" * 5000, Key="cam/late", TtlMs=50)
    *some, last = transfer.source()
    for datagram in some:
        client.send(datagram)
    while client.receive(0.2):
        pass
    client.send(last)
    assert client.wait_final(transfer.object_id).type is StateType.CANCELLED
    assert "Contents" not in aws("s3").list_objects_v2(Bucket="data", Prefix="cam/late")


def test_garbage_is_dropped_counted_and_harmless(own_gateway):
    client = own_gateway.client("cam").handshake()
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.connect(client.address)
    good = client.tunnel.session.seal(Transfer.put(b"x").source()[0], 0)
    junk = [b"", b"\x01", b"\x04\0\0\0", os.urandom(1400), os.urandom(60_000), good[:40], good[:-1], b"\x01\0\0\0" + bytes(144)]
    junk += [bytes([kind, 0, 0, 0]) + os.urandom(size) for kind in range(6) for size in (0, 12, 28, 60, 88, 144)]
    for message in junk:
        raw.send(message)
    for inner in (b"", b"\x16", b"\0" * 40, os.urandom(100), Transfer.put(b"x").source()[0][:-1], b"\xff" * 1300):
        client.send(inner)
    assert succeeded(client.put(b"still there"))
    stats = own_gateway.stop()
    assert stats["dropped_malformed"] == 5 + 1  # one of the six sealed ones is a keepalive; one of the junk has no octets
    assert stats["dropped_unauthentic"] >= len(junk) - 2
    assert "Traceback" not in own_gateway.log


def test_strangers_get_no_answer(own_gateway):
    stranger = Client(own_gateway.ready, generate_private_key(os.urandom))
    with pytest.raises(TimeoutError):
        stranger.handshake(1.0)
    wrong_server = dict(own_gateway.ready, public_key=key_to_base64(os.urandom(32)))
    with pytest.raises(TimeoutError):
        Client(wrong_server, own_gateway.private_keys["cam"]).handshake(1.0)
    assert own_gateway.stop()["dropped_unauthentic"] >= 2


def test_a_preshared_key_counts(aws, tmp_path):
    psk = os.urandom(32)
    peers = {"cam": {**EVERYTHING, "preshared_key": key_to_base64(psk)}}
    with GatewayProcess(tmp_path, "--aws-endpoint-url", aws.url, peers=peers) as gateway:
        assert succeeded(gateway.client("cam", preshared_key=psk).handshake().put(b"secret"))
        with pytest.raises(AuthenticationFailed):
            gateway.client("cam").handshake(1.0)


def test_states_go_where_the_transfer_came_from(own_gateway):
    """Two processes of one device, one key: each hears of its own transfer, in its own session."""
    one, two = own_gateway.client("cam").handshake(), own_gateway.client("cam").handshake()
    first, second = Transfer.put(b"1" * 2000, Key="cam/1"), Transfer.put(b"2" * 2000, Key="cam/2")
    for left, right in zip(first.source(), second.source(), strict=True):
        one.send(left)
        two.send(right)
    assert succeeded(one.wait_final(first.object_id))
    assert succeeded(two.wait_final(second.object_id))
    assert {state.object_id for state in one.states} == {first.object_id}
    assert {state.object_id for state in two.states} == {second.object_id}


def test_legacy_objects_need_a_place_and_get_no_json(aws, tmp_path):
    peers = {"old": {"legacy": True}, "new": EVERYTHING}
    options = ("--aws-endpoint-url", aws.url, "--legacy-bucket", "data", "--legacy-prefix", "old/")
    with GatewayProcess(tmp_path, *options, peers=peers) as gateway:
        old = gateway.client("old").handshake()
        state = old.send_until_final(Transfer.legacy(b"published" * 500, "20260501/a file.zip"))
        assert succeeded(state)
        assert state.fields is None
        assert aws("s3").get_object(Bucket="data", Key="old/20260501/a file.zip")["Body"].read() == b"published" * 500
        for client, path in ((gateway.client("new").handshake(), "x"), (old, "../up"), (old, "/root"), (old, "a//b")):
            for datagram in Transfer.legacy(b"nope", path).source():
                client.send(datagram)
            while client.receive(0.3):
                pass
            assert not [state for state in client.states if state.object_id == path and state.type is not StateType.PACKETS]
        assert gateway.stop()["objects_unnamed"] == 4


def test_plaintext_is_a_policy_of_its_own(aws, tmp_path):
    options = ("--aws-endpoint-url", aws.url, "--plaintext", "--listen", "udp://127.0.0.1:0")
    gateway = GatewayProcess(tmp_path, *options, peers={}, plaintext={"allow": [{"bucket": "data", "prefixes": ["open/"]}]})
    gateway.start("wg://127.0.0.1:0")
    with gateway:
        wg_url, udp_url = gateway.ready["urls"]
        assert wg_url.startswith("wg://")
        ready = {"host": "127.0.0.1", "port": int(udp_url.rpartition(":")[2])}
        client = Client(ready, None)
        assert succeeded(client.put(b"in the clear", Key="open/1"))
        assert client.put(b"in the clear", Key="closed/1").fields["Code"] == "AccessDenied"


def test_hup_reads_the_peers_again_and_keeps_them_when_they_are_wrong(own_gateway):
    client = own_gateway.client("cam").handshake()
    own_gateway.peers_file.write_text("{nonsense")
    own_gateway.send_signal(signal.SIGHUP)
    wait_until(lambda: "peers not reloaded" in own_gateway.log, "the mistake is not logged")
    assert succeeded(client.put(b"x", Key="cam/hup"))
    own_gateway.write_peers({"cam": {"allow": []}, "late": EVERYTHING})
    own_gateway.send_signal(signal.SIGHUP)
    wait_until(lambda: "2 peers" in own_gateway.log, "peers are not read again")
    assert client.put(b"x", Key="cam/hup").fields["Code"] == "AccessDenied"
    assert succeeded(own_gateway.client("late").handshake().put(b"x", Key="late"))
    with pytest.raises(TimeoutError):
        own_gateway.client("other").handshake(1.0)


def test_term_finishes_the_writes_at_hand_and_a_restart_needs_a_handshake(own_gateway, aws):
    client = own_gateway.client("cam").handshake()
    transfers = [Transfer.put(os.urandom(3000), Key=f"cam/term-{number}") for number in range(30)]
    for transfer in transfers:
        for datagram in transfer.source():
            client.send(datagram)
    client.receive(5.0)
    own_gateway.process.terminate()
    while client.receive(1.0):
        pass
    assert own_gateway.process.wait(30) == 0
    assert not own_gateway.ready_file.exists()
    confirmed = [number for number, transfer in enumerate(transfers) if client.final(transfer.object_id)]
    keys = {entry["Key"] for entry in aws("s3").list_objects_v2(Bucket="data", Prefix="cam/term-").get("Contents", [])}
    assert confirmed
    assert keys == {f"cam/term-{number}" for number in confirmed}

    own_gateway.start(f"127.0.0.1:{client.address[1]}")
    client.states.clear()
    unanswered = Transfer.put(b"old session", Key="cam/after")
    for datagram in unanswered.source():
        client.send(datagram)
    assert not client.receive(0.5)
    assert succeeded(client.handshake().send_until_final(unanswered))


def test_the_null_sink_says_at_its_start_that_it_keeps_nothing(tmp_path):
    with GatewayProcess(tmp_path, "--sink", "null", peers={"any": EVERYTHING}) as gateway:
        assert succeeded(gateway.client("any").handshake().put(b"gone", Key="k"))
        assert "WARNING raptor_s3.gateway.command: --sink null" in gateway.log
        assert "NOTHING IS STORED" in gateway.log


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--listen", "nonsense"], "--listen nonsense: expected HOST:PORT"),
        (["--listen", "127.0.0.1:70000"], "a port is a number from 1 to 65535, or 0 for any"),
        (["--listen", "udp://127.0.0.1:0"], "only with --plaintext"),
        (["--listen", "192.0.2.1:5"], "--listen 192.0.2.1:5: Cannot assign"),
        (["--max-memory", "1MB"], "--max-memory is below"),
        (["--max-memory", "lots"], "expected a size"),
        (["--replies-queue", "http://x"], "goes with --forward"),
        (["--forward-sqs", "http://x"], "needs --replies-queue"),
        (["--legacy-prefix", "x"], "goes with --legacy-bucket"),
        (["--sink", "null", "--forward-lambda", "x"], "not allowed with"),
    ],
)
def test_mistakes_on_the_command_line_are_named(tmp_path, options, complaint):
    gateway = GatewayProcess(tmp_path, *options, peers={"a": {}})
    with pytest.raises(AssertionError, match="ended with 2"):
        gateway.start()
    assert complaint in gateway.log
    assert "Traceback" not in gateway.log


def test_a_port_in_use_and_an_open_key_file_are_refused(gateway, tmp_path_factory):
    second = GatewayProcess(tmp_path_factory.mktemp("second"), peers={"a": {}})
    with pytest.raises(AssertionError):
        second.start(f"127.0.0.1:{gateway.ready['port']}")
    assert "Address already in use" in second.log
    second.key_file.chmod(0o644)
    with pytest.raises(AssertionError):
        second.start()
    assert "chmod 600" in second.log
    second.key_file.unlink()
    with pytest.raises(AssertionError):
        second.start()
    assert "raptor keygen" in second.log
