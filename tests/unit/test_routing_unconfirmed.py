"""A conditional put whose confirmation was lost meets its own object over HTTPS, or another's: who is told what."""

import threading
import time

import boto3
import pytest
import s3_double
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from raptor_s3.errors import ConfirmationTimeout, HandshakeTimeout, TransferCancelled, TransferRejected
from raptor_s3.routing import listeners
from raptor_s3.routing.listeners import client_of
from raptor_s3.wire.put_header import TELLING_BYTES

BODY = b"written by the fast path"
LOST = ConfirmationTimeout("no final state within 5 s")


@pytest.fixture(params=["hook", "shortcuts"])
def rig(request):
    with s3_double.rig(request.param == "shortcuts") as made:
        yield made


@pytest.fixture
def client(rig):
    return rig.attach()


def lose(rig, error=LOST, *, write=True, body=None, age_s=0.0, **headers):
    """The receiver writes (`body` in place of what was sent), then the fast path ends with `error`."""

    def put(fields, sent, **_):
        if write:
            metadata = {f"x-amz-meta-{name.lower()}": value for name, value in fields.get("Metadata", {}).items()}
            checksum = {"x-amz-checksum-crc32": fields["ChecksumCRC32"]} if body is None else {}
            stored = {"content-type": fields.get("ContentType", "binary/octet-stream"), **metadata, **checksum, **headers}
            for name, header in (
                ("StorageClass", "x-amz-storage-class"),
                ("Expires", "expires"),
                ("CacheControl", "cache-control"),
            ):
                if name in fields:
                    stored.setdefault(header, fields[name])
            stored = {name: value for name, value in stored.items() if value}
            at = time.time() - age_s
            rig.s3.objects[f"/bucket/{fields['Key']}"] = s3_double.Stored(bytes(sent) if body is None else body, stored, at)
        raise error

    rig.engine.put = put


def refused(client, code="PreconditionFailed", **arguments):
    with pytest.raises(ClientError) as caught:
        client.put_object(**{"Bucket": "bucket", "Key": "key", "Body": BODY, "IfNoneMatch": "*", **arguments})
    assert caught.value.response["Error"] == {"Code": code, "Message": "S3's words"}


def test_its_own_object_is_a_success_in_the_shape_of_one(rig, client):
    lose(rig)
    response = client.put_object(
        Bucket="bucket", Key="key", Body=BODY, IfNoneMatch="*", ContentType="text/plain", Metadata={"Camel": "v"}
    )
    assert rig.s3.puts == ["/bucket/key"]
    assert response["ETag"] == rig.s3.objects["/bucket/key"].etag
    assert response["ChecksumCRC32"]
    metadata = response.pop("ResponseMetadata")
    assert "Error" not in response
    assert "ContentLength" not in response
    assert (metadata["HTTPStatusCode"], metadata["RequestId"]) == (200, "HEAD-REQUEST")
    assert metadata["Raptor"]["Route"] == "raptor"
    assert "confirmation lost, found in S3 after PreconditionFailed" in metadata["Raptor"]["Reason"]
    ((_, headers),) = rig.s3.heads
    assert headers["x-amz-checksum-mode"] == "ENABLED"
    (record,) = rig.records
    assert (record.route, record.status, record.etag, record.error) == ("raptor", 200, response["ETag"], "")


def test_parameters_that_come_back(rig, client):
    lose(rig)
    arguments = {"CacheControl": "no-cache", "StorageClass": "STANDARD_IA", "Expires": "Thu, 01 Jan 2026 00:00:00 GMT"}
    assert client.put_object(Bucket="bucket", Key="key", Body=BODY, IfNoneMatch="*", **arguments)["ETag"]
    lose(rig)
    client = rig.attach()
    assert client.put_object(Bucket="bucket", Key="other", Body=BODY, IfNoneMatch="*", StorageClass="STANDARD")["ETag"]


def test_if_match(rig, client):
    before = client.put_object(Bucket="bucket", Key="key", Body=b"before")["ETag"]
    rig.s3.objects["/bucket/key"] = s3_double.Stored(b"before", {})
    lose(rig)
    client.put_object(Bucket="bucket", Key="key", Body=BODY, IfMatch=before, ExpectedBucketOwner="123456789012")
    ((_, headers),) = rig.s3.heads
    assert headers["x-amz-expected-bucket-owner"] == "123456789012"
    assert rig.over_https("key") == BODY


def test_a_conflict_is_looked_into_as_well(rig, client):
    lose(rig)
    rig.s3.fail_next = [409]
    assert client.put_object(Bucket="bucket", Key="key", Body=BODY, IfNoneMatch="*")["ETag"]
    lose(rig, write=False)
    rig.s3.fail_next = [409]
    rig.s3.objects.clear()
    refused(client, "ConditionalRequestConflict", Key="other")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ({"body": b"of the same length, not!"}, {}),
        ({"body": b"longer or shorter"}, {}),
        ({"age_s": 60.0}, {}),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, {}),
        ({"content-type": "text/html"}, {"ContentType": "text/plain"}),
        ({"x-amz-meta-owner": "somebody"}, {"Metadata": {"Owner": "me"}}),
        ({"x-amz-meta-owner": "somebody"}, {}),
        ({"content-type": "text/html"}, {}),
        ({"cache-control": "no-cache"}, {}),
        ({"cache-control": ""}, {"CacheControl": "no-cache"}),
        ({"x-amz-storage-class": "STANDARD_IA"}, {}),
        ({"x-amz-storage-class": ""}, {"StorageClass": "STANDARD_IA"}),
        ({"expires": ""}, {"Expires": "Thu, 01 Jan 2026 00:00:00 GMT"}),
        ({"expires": "Thu, 01 Jan 2026 00:00:00 GMT"}, {}),
    ],
    ids=[
        "content",
        "length",
        "age",
        "checksum",
        "type",
        "metadata",
        "more metadata",
        "a type",
        "more parameters",
        "fewer parameters",
        "a class",
        "another class",
        "no expiry",
        "an expiry",
    ],
)
def test_anothers_object_is_s3s_own_refusal(rig, client, written, sent):
    lose(rig, **written)
    refused(client, **sent)
    assert len(rig.s3.heads) == 1
    assert rig.records[-1].error == "PreconditionFailed"
    assert rig.records[-1].route == "https"


def test_who_may_not_look_gets_s3s_own_refusal(rig, client):
    lose(rig)
    rig.s3.deny_heads = True
    refused(client)


@pytest.mark.parametrize("size", [0, TELLING_BYTES - 1])
def test_a_few_octets_without_metadata_are_nobodys(rig, client, size):
    lose(rig)
    refused(client, Body=b"x" * size)
    assert rig.s3.heads == []
    lose(rig)
    client.put_object(Bucket="bucket", Key="marked", Body=b"x" * size, Metadata={"owner": "me"}, IfNoneMatch="*")


@pytest.mark.parametrize(
    "error",
    [
        HandshakeTimeout("nobody there"),
        TransferCancelled("acknowledged"),
        TransferRejected("AccessDenied", "gateway: peer may not write", 403),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_put_that_can_not_have_been_written_needs_no_look(rig, client, error):
    lose(rig, error, write=False)
    rig.s3.objects["/bucket/key"] = s3_double.Stored(BODY, {})  # somebody else's, by chance the same
    refused(client)
    assert rig.s3.heads == []


@pytest.mark.parametrize(
    "error",
    [
        TransferRejected("RequestExpired", "gateway: no time is left, and an attempt may have written", 400),
        TransferRejected("InternalError", "We encountered an internal error", 500),
        OSError(101, "Network is unreachable"),
    ],
    ids=str,
)
def test_whatever_else_may_have_written_is_looked_into(rig, client, error):
    lose(rig, error)
    assert client.put_object(Bucket="bucket", Key="key", Body=BODY, IfNoneMatch="*")["ETag"]


def test_other_answers_over_https_stay_what_they_are(rig, client):
    lose(rig, write=False)
    assert (
        client.put_object(Bucket="bucket", Key="key", Body=BODY, IfNoneMatch="*")["ResponseMetadata"]["Raptor"]["Route"]
        == "https"
    )
    refused(client)  # with the breaker open nothing was tried: the object may be anybody's
    lose(rig, write=False)
    client = rig.attach()
    rig.s3.fail_next = [400]
    with pytest.raises(ClientError, match="400"):
        client.put_object(Bucket="bucket", Key="other", Body=BODY)
    assert rig.s3.heads == []


def test_handlers_of_after_call_see_what_the_caller_sees(rig, client):
    seen = []
    client.meta.events.register(
        "after-call.s3.PutObject", lambda http_response, parsed, **_: seen.append((http_response.status_code, parsed["ETag"]))
    )
    lose(rig)
    response = client.put_object(Bucket="bucket", Key="key", Body=BODY, IfNoneMatch="*")
    assert seen == [(200, response["ETag"])]


def test_a_stubber_sees_no_request_that_nobody_expects(rig, client):
    with Stubber(client) as stubber:
        stubber.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
        with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
            client.put_object(Bucket="bucket", Key="key", Body=BODY, IfNoneMatch="*")
        stubber.assert_no_pending_responses()


def test_a_client_of_a_session_is_found_too(rig):
    session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    rig.attach_to(session.events, s3_double.make_config(rig.s3))
    client = session.client("s3", endpoint_url=rig.s3.url, verify=s3_double.certificate())
    other = session.client("s3", endpoint_url=rig.s3.url, verify=s3_double.certificate())
    assert client_of(client.meta.events).meta is client.meta
    assert client_of(other.meta.events).meta is other.meta
    assert client_of(session.events) is None
    assert client_of(None) is None
    lose(rig)
    assert client.put_object(Bucket="bucket", Key="key", Body=BODY, IfNoneMatch="*")["ETag"]


def test_a_client_that_can_not_be_found_gets_s3s_own_refusal(rig, monkeypatch):
    monkeypatch.setattr(listeners, "client_of", lambda emitter: None)
    session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    rig.attach_to(session.events, s3_double.make_config(rig.s3))
    lose(rig)
    refused(session.client("s3", endpoint_url=rig.s3.url, verify=s3_double.certificate()))


def test_threads_do_not_take_each_others_puts_for_their_own(rig, client):
    """Eight writers of one key: one wins by the fast path and isn't told; over HTTPS exactly that one succeeds."""
    winner, lock, barrier = [], threading.Lock(), threading.Barrier(8)

    def put(fields, body, **_):
        barrier.wait()
        with lock:
            if not winner:
                winner.append(bytes(body))
                rig.s3.objects["/bucket/key"] = s3_double.Stored(bytes(body), {})
        raise LOST

    rig.engine.put = put
    succeeded = []

    def write(number):
        body = f"lease of the writer {number}".encode().ljust(TELLING_BYTES)
        try:
            client.put_object(Bucket="bucket", Key="key", Body=body, IfNoneMatch="*")
            succeeded.append(body)
        except ClientError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert succeeded == winner


def test_of_two_writers_of_the_same_few_octets_one_is_refused(rig, client):
    """A lock whose object says 'locked': the other writer's came first, ours was lost on its way."""
    lose(rig, write=False)
    rig.s3.objects["/bucket/key"] = s3_double.Stored(b"locked", {"content-type": "binary/octet-stream"}, time.time() - 1.0)
    refused(client, Body=b"locked")


@pytest.mark.parametrize("confirm", ["none", "packets", "block"])
@pytest.mark.parametrize("condition", [{"IfNoneMatch": "*"}, {"IfMatch": '"0123456789abcdef0123456789abcdef"'}])
def test_whether_a_condition_held_is_waited_for(rig, confirm, condition):
    """A weaker `confirm` would call it a success before S3 has been asked."""
    asked = []

    def put(fields, body, *, confirm, **_):
        asked.append(confirm)
        raise TransferRejected("PreconditionFailed", "S3's words", 412)

    rig.engine.put = put
    client = rig.attach(confirm=confirm)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="bucket", Key="key", Body=BODY, **condition)
    with pytest.raises(ClientError):
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
    assert asked == ["file", confirm]
