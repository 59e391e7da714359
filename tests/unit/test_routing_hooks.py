"""The hook in a real boto3 client: what it carries, what it leaves alone, and how it gives a put back to HTTPS."""

import base64
import hashlib
import io
import threading

import pytest
import s3_double
from botocore.exceptions import ClientError, ParamValidationError
from botocore.stub import Stubber

from raptor_s3.errors import ConfirmationTimeout, HandshakeTimeout, TransferCancelled, TransferRejected
from raptor_s3.routing import hooks

BODY = bytes(range(256)) * 4


@pytest.fixture(params=["hook", "shortcuts"])
def rig(request):
    """Everything holds on both ways."""
    with s3_double.rig(request.param == "shortcuts") as made:
        yield made


@pytest.fixture
def client(rig):
    return rig.attach()


class Stream:
    """Readable only."""

    def __init__(self, data):
        self._file = io.BytesIO(data)

    def read(self, size=-1):
        return self._file.read(size)


class TestCarried:
    def test_the_response_has_the_shape_of_a_direct_call(self, rig, client):
        ours = client.put_object(Bucket="bucket", Key="key", Body=BODY)
        theirs = s3_double.make_client(rig.s3).put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.s3.puts == ["/bucket/key"]
        assert ours["ETag"] == theirs["ETag"]
        assert (ours["ChecksumType"], ours["ServerSideEncryption"]) == ("FULL_OBJECT", "AES256")
        metadata = ours["ResponseMetadata"]
        assert metadata.keys() - {"Raptor"} >= theirs["ResponseMetadata"].keys()
        assert (metadata["HTTPStatusCode"], metadata["RequestId"], metadata["HostId"]) == (200, "REQUEST", "HOST")
        assert metadata["HTTPHeaders"]["etag"] == ours["ETag"]
        assert metadata["Raptor"] == {"Route": "raptor", "Datagrams": 3, "Lost": 1, "RoundTripTime": 0.015, "Handshake": False}

    def test_only_output_members_come_back(self, rig, client):
        rig.engine.answer = {"VersionId": "v1", "BucketKeyEnabled": True, "Internal": "secret"}
        response = client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert response["VersionId"] == "v1"
        assert response["ResponseMetadata"]["HTTPHeaders"]["x-amz-server-side-encryption-bucket-key-enabled"] == "true"
        assert "Internal" not in response

    def test_parameters(self, rig, client):
        client.put_object(
            Bucket="bucket", Key="/a b/ü+%20?#\n", Body="text ü", CacheControl="no-cache", ContentType="text/plain",
            ContentDisposition="inline", ContentEncoding="gzip", ContentLanguage="de", Expires="2030-01-01T00:00:00Z",
            Metadata={"Camel": "v"}, ServerSideEncryption="AES256", StorageClass="STANDARD_IA", IfNoneMatch="*",
            WebsiteRedirectLocation="/x", ExpectedBucketOwner="123456789012", ContentLength=7,
        )  # fmt: skip
        ((fields, body),) = rig.engine.puts
        assert body == "text ü".encode()
        assert fields == {
            "Bucket": "bucket", "Key": "/a b/ü+%20?#\n", "CacheControl": "no-cache", "ContentType": "text/plain",
            "ContentDisposition": "inline", "ContentEncoding": "gzip", "ContentLanguage": "de",
            "Expires": "Tue, 01 Jan 2030 00:00:00 GMT", "Metadata": {"Camel": "v"}, "ServerSideEncryption": "AES256",
            "StorageClass": "STANDARD_IA", "IfNoneMatch": "*", "WebsiteRedirectLocation": "/x",
            "ExpectedBucketOwner": "123456789012", "ChecksumCRC32": fields["ChecksumCRC32"],
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda: BODY, BODY),
            (lambda: bytearray(BODY), BODY),
            (lambda: BODY.decode("latin-1"), BODY.decode("latin-1").encode()),
            (lambda: b"", b""),
            (lambda: io.BytesIO(BODY), BODY),
            (lambda: Stream(BODY), BODY),
        ],
    )
    def test_kinds_of_body(self, rig, client, make, expected):
        client.put_object(Bucket="bucket", Key="key", Body=make())
        assert rig.engine.bodies == [expected]

    def test_no_body_at_all(self, rig, client):
        client.put_object(Bucket="bucket", Key="key")
        assert rig.engine.bodies == [b""]

    def test_a_file_from_where_it_stands(self, rig, client, tmp_path):
        (tmp_path / "f").write_bytes(BODY)
        with (tmp_path / "f").open("rb") as file:
            file.seek(100)
            client.put_object(Bucket="bucket", Key="key", Body=file)
            assert file.tell() == len(BODY)
        assert rig.engine.bodies == [BODY[100:]]

    def test_memoryview_is_refused_as_ever(self, client):
        with pytest.raises(ParamValidationError):
            client.put_object(Bucket="bucket", Key="key", Body=memoryview(BODY))

    def test_other_operations_are_not_touched(self, rig, client):
        client.put_object(Bucket="other", Key="key", Body=BODY)
        assert client.get_object(Bucket="other", Key="key")["Body"].read() == BODY
        assert rig.engine.puts == []


class TestChecksums:
    def field(self, rig):
        return {name: value for name, value in rig.engine.puts[-1][0].items() if name.startswith(("Checksum", "ContentMD5"))}

    def test_default(self, rig, client):
        client.put_object(Bucket="bucket", Key="key", Body=b"123456789")
        assert self.field(rig) == {"ChecksumCRC32": base64.b64encode(bytes.fromhex("cbf43926")).decode()}

    @pytest.mark.parametrize("name", ["SHA1", "SHA256"])
    def test_chosen_algorithm(self, rig, client, name):
        client.put_object(Bucket="bucket", Key="key", Body=BODY, ChecksumAlgorithm=name)
        fields = self.field(rig)
        assert fields[f"Checksum{name}"] == base64.b64encode(hashlib.new(name.lower(), BODY).digest()).decode()
        assert fields["ChecksumAlgorithm"] == name
        assert "ChecksumCRC32" in fields

    @pytest.mark.parametrize(("name", "expected"), [("CRC32C", "4waSgw=="), ("CRC64NVME", "rosUhgp5mIg=")])
    def test_algorithms_of_awscrt(self, rig, client, name, expected):
        pytest.importorskip("awscrt")
        client.put_object(Bucket="bucket", Key="key", Body=b"123456789", ChecksumAlgorithm=name)
        assert self.field(rig)[f"Checksum{name}"] == expected

    @pytest.mark.parametrize("name", ["SHA512", "XXHASH64"])
    def test_algorithms_that_the_put_header_can_not_carry(self, rig, client, name):
        if name not in client.meta.service_model.operation_model("PutObject").input_shape.members["ChecksumAlgorithm"].enum:
            pytest.skip("not in this botocore")
        if name.startswith("XXHASH"):
            pytest.importorskip("awscrt")
        client.put_object(Bucket="bucket", Key="key", Body=io.BytesIO(BODY), ChecksumAlgorithm=name)
        assert rig.over_https("key") == BODY

    def test_a_given_value_is_carried(self, rig, client):
        digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
        client.put_object(Bucket="bucket", Key="key", Body=BODY, ChecksumSHA256=digest)
        assert self.field(rig)["ChecksumSHA256"] == digest

    def test_content_md5_is_checked_before_it_leaves(self, rig, client):
        right = base64.b64encode(hashlib.md5(BODY).digest()).decode()
        client.put_object(Bucket="bucket", Key="key", Body=BODY, ContentMD5=right)
        assert self.field(rig)["ContentMD5"] == right
        client.put_object(Bucket="bucket", Key="wrong", Body=BODY + b"x", ContentMD5=right)
        assert rig.over_https("wrong") == BODY + b"x"  # where S3 itself says BadDigest
        assert "ContentMD5 does not match" in rig.records[-1].reason

    def test_a_wrong_crc32_is_left_to_s3(self, rig, client):
        client.put_object(Bucket="bucket", Key="key", Body=BODY, ChecksumCRC32="AAAAAA==")
        assert rig.engine.puts == []
        assert rig.over_https("key") == BODY


class TestDeclined:
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ({"ACL": "private"}, "ACL"),
            ({"Tagging": "a=b"}, "Tagging"),
            ({"ServerSideEncryption": "aws:kms"}, "SSEKMSKeyId"),
            ({"Bucket": "elsewhere"}, "not listed"),
            ({"Body": bytes(256 * 1024 + 1)}, "> threshold 256 KB"),
            ({"Body": lambda: Stream(bytes(256 * 1024 + 1))}, "unknown length"),
            ({"Body": lambda: Stream(bytes(300_000)), "ContentLength": 300_000}, "> threshold 256 KB"),
            ({"Body": lambda: Stream(b"1234"), "ContentLength": 5}, "ended after 4 of 5"),
            ({"Body": BODY, "ContentLength": 5}, "ContentLength 5"),
            ({"Key": "k" * 1025}, "longer than 1024"),
        ],
    )
    def test_with_a_reason(self, rig, client, arguments, reason):
        arguments = {name: value() if callable(value) else value for name, value in arguments.items()}
        response = client.put_object(**{"Bucket": "bucket", "Key": "key", "Body": BODY, **arguments})
        assert rig.engine.puts == []
        assert len(rig.s3.puts) == 1
        assert response["ResponseMetadata"]["Raptor"]["Route"] == "https"
        assert reason in response["ResponseMetadata"]["Raptor"]["Reason"]
        assert reason in rig.records[-1].reason

    def test_gated_parameters_go_where_the_setting_allows(self, rig):
        client = rig.attach(backend_allows="Tagging, SSEKMSKeyId, BucketKeyEnabled")
        client.put_object(
            Bucket="bucket", Key="key", Tagging="a=b", ServerSideEncryption="aws:kms", SSEKMSKeyId="id", BucketKeyEnabled=True
        )
        fields = rig.engine.puts[0][0]
        assert (fields["Tagging"], fields["ServerSideEncryption"], fields["BucketKeyEnabled"]) == ("a=b", "aws:kms", True)

    def test_transport_https(self, rig):
        rig.attach(transport="https").put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.over_https("key") == BODY

    def test_another_endpoint_than_the_profiles(self, rig):
        client = rig.attach(s3_endpoint="http://localhost:1")
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.over_https("key") == BODY

    def test_a_stream_over_the_threshold_arrives_whole(self, rig):
        client = rig.attach(threshold=1000)
        data = bytes(5000)
        client.put_object(Bucket="bucket", Key="key", Body=Stream(data), ContentLength=len(data))
        assert rig.over_https("key") == data


FAILURES = [
    ConfirmationTimeout("no answer"),
    HandshakeTimeout("nobody there"),
    TransferCancelled("cancelled"),
    TransferRejected("AccessDenied", "gateway: peer may not write", 403),
    TransferRejected("SlowDown", "gateway: too many writes are waiting", 503),
    TransferRejected("InternalError", "We encountered an internal error", 500),
    TransferRejected("ExpiredToken", "The provided token has expired.", 400),
    OSError(101, "Network is unreachable"),
    ZeroDivisionError("a bug of ours"),
]


class TestFallback:
    @pytest.mark.parametrize("error", FAILURES, ids=lambda error: str(error)[:30])
    @pytest.mark.parametrize("kind", ["bytes", "file", "stream"])
    def test_the_body_arrives_whole(self, rig, client, tmp_path, error, kind):
        (tmp_path / "f").write_bytes(BODY)
        rig.engine.error = error
        with (tmp_path / "f").open("rb") as file:
            file.seek(10)
            body = {"bytes": BODY[10:], "file": file, "stream": Stream(BODY[10:])}[kind]
            response = client.put_object(Bucket="bucket", Key="key", Body=body, Metadata={"a": "b"})
        assert rig.over_https("key") == BODY[10:]
        assert rig.s3.objects["/bucket/key"].headers["x-amz-meta-a"] == "b"
        assert response["ResponseMetadata"]["Raptor"]["Route"] == "https"

    def test_https_may_still_retry(self, rig, client):
        rig.engine.error = ConfirmationTimeout("no answer")
        rig.s3.fail_next = [503, 500]
        client.put_object(Bucket="bucket", Key="key", Body=Stream(BODY))
        assert rig.over_https("key") == BODY
        assert rig.s3.puts == ["/bucket/key"] * 3

    def test_the_next_puts_do_not_wait(self, rig, client):
        rig.engine.error = ConfirmationTimeout("no answer")
        client.put_object(Bucket="bucket", Key="one", Body=BODY)
        rig.engine.error = None
        response = client.put_object(Bucket="bucket", Key="two", Body=BODY)
        assert "circuit breaker open" in response["ResponseMetadata"]["Raptor"]["Reason"]
        assert rig.engine.puts == []

    def test_a_refusal_by_policy_is_remembered_for_its_folder(self, rig, client):
        rig.engine.error = TransferRejected("AccessDenied", "gateway: peer may not write", 403)
        client.put_object(Bucket="bucket", Key="secret/one", Body=BODY)
        rig.engine.error = None
        client.put_object(Bucket="bucket", Key="secret/two", Body=BODY)
        client.put_object(Bucket="bucket", Key="public/three", Body=BODY)
        assert rig.s3.puts == ["/bucket/secret/one", "/bucket/secret/two"]
        assert [fields["Key"] for fields, _ in rig.engine.puts] == ["public/three"]

    def test_on_failure_raise(self, rig):
        client = rig.attach(on_failure="raise")
        rig.engine.error = ConfirmationTimeout("no answer within 5 s")
        for _ in range(2):  # the second time by the breaker
            with pytest.raises(ClientError, match="no answer within 5 s") as caught:
                client.put_object(Bucket="bucket", Key="key", Body=BODY)
            assert caught.value.response["Error"]["Code"] == "RaptorUnavailable"
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        client.put_object(Bucket="bucket", Key="key", Body=BODY, ACL="private")  # no failure, a decision
        assert rig.s3.puts == ["/bucket/key"]

    def test_transport_raptor_never_goes_over_https(self, rig):
        client = rig.attach(transport="raptor")
        client.put_object(Bucket="bucket", Key="large", Body=bytes(1 << 20))
        assert len(rig.engine.puts) == 1
        for arguments in ({"ACL": "private"}, {"Bucket": "elsewhere"}):
            with pytest.raises(ClientError, match="RaptorUnavailable"):
                client.put_object(**{"Bucket": "bucket", "Key": "key", "Body": BODY, **arguments})
        with pytest.raises(ClientError, match="multipart"):
            client.create_multipart_upload(Bucket="bucket", Key="key")
        rig.engine.error = ConfirmationTimeout("no answer")
        with pytest.raises(ClientError, match="no answer"):
            client.put_object(Bucket="bucket", Key="key", Body=BODY)
        rig.engine.error = None
        client.put_object(Bucket="bucket", Key="key", Body=BODY)  # tried although the breaker is open
        assert rig.s3.puts == []


class TestErrorsOfS3:
    @pytest.mark.parametrize(
        ("code", "status"),
        [("AccessDenied", 403), ("NoSuchBucket", 404), ("PreconditionFailed", 412), ("InvalidRequest", 400), ("BadDigest", 400)],
    )
    def test_surface_as_the_clients_own(self, rig, client, code, status):
        rig.engine.error = TransferRejected(code, "S3's own words", status)
        with pytest.raises(ClientError) as caught:
            client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert caught.value.response["Error"] == {"Code": code, "Message": "S3's own words"}
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        assert str(caught.value) == f"An error occurred ({code}) when calling the PutObject operation: S3's own words"
        assert rig.s3.puts == []

    def test_modelled_exceptions(self, rig, client):
        rig.engine.error = TransferRejected("NoSuchBucket", "gone", 404)
        with pytest.raises(client.exceptions.NoSuchBucket):
            client.put_object(Bucket="bucket", Key="key", Body=BODY)


class TestOthersHooks:
    def test_handlers_at_before_call_are_heard_first(self, rig, client):
        def add_header(params, **_):
            params["headers"]["x-amz-storage-class"] = "GLACIER_IR"

        client.meta.events.register_last("before-call.s3.PutObject", add_header)
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.engine.puts[0][0]["StorageClass"] == "GLACIER_IR"

    def test_a_handler_that_comes_after_ours_is_heard_too(self, rig, client):
        seen = []

        def listen(event_name, **_):
            seen.append(event_name)

        client.meta.events.register_last("before-call", listen)
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert seen == ["before-call.s3.PutObject"]
        assert rig.over_https("key") == BODY

    def test_a_changed_url_goes_over_https(self, rig, client):
        client.meta.events.register("before-call.s3", lambda params, **_: params.update(url=rig.s3.url + "/bucket/moved"))
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.over_https("moved") == BODY

    def test_after_call_sees_the_response(self, rig, client):
        seen = []
        client.meta.events.register(
            "after-call.s3.PutObject", lambda http_response, parsed, **_: seen.append((http_response, parsed))
        )
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        ((http, parsed),) = seen
        assert http.status_code == 200
        assert http.headers["x-amz-request-id"] == "REQUEST"
        assert parsed["ETag"]

    @pytest.mark.parametrize(
        "event", ["before-send.s3", "before-sign", "request-created.s3.PutObject", "needs-retry.s3.PutObject"]
    )
    def test_who_wants_the_https_request_gets_it(self, rig, client, event):
        seen = []

        def listen(**_):
            seen.append(event)

        client.put_object(Bucket="bucket", Key="before", Body=BODY)
        client.meta.events.register(event, listen)
        response = client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.over_https("key") == BODY
        assert seen
        assert "listen" in response["ResponseMetadata"]["Raptor"]["Reason"]
        client.meta.events.unregister(event, listen)
        client.put_object(Bucket="bucket", Key="after", Body=BODY)
        assert [fields["Key"] for fields, _ in rig.engine.puts] == ["before", "after"]

    def test_partials_and_callable_objects_are_recognized(self, rig, client):
        class Listener:
            def __call__(self, **_):
                pass

        client.meta.events.register("before-send", Listener())
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert "Listener" in rig.records[-1].reason

    def test_stubber(self, rig, client):
        with Stubber(client) as stubber:
            stubber.add_response("put_object", {"ETag": "stubbed"}, {"Bucket": "bucket", "Key": "key", "Body": BODY})
            assert client.put_object(Bucket="bucket", Key="key", Body=BODY)["ETag"] == "stubbed"
        assert rig.engine.puts == []
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert len(rig.engine.puts) == 1

    def test_moto(self, rig):
        moto = pytest.importorskip("moto")
        import boto3

        with moto.mock_aws():
            client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
            rig.attach(client)
            client.create_bucket(Bucket="bucket")
            client.put_object(Bucket="bucket", Key="key", Body=BODY)
            assert client.get_object(Bucket="bucket", Key="key")["Body"].read() == BODY
        after = rig.attach()
        after.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert len(rig.engine.puts) == 1


class TestTransfers:
    def test_upload_fileobj_and_progress(self, rig, client):
        seen = []
        client.upload_fileobj(io.BytesIO(BODY), "bucket", "key", Callback=seen.append)
        assert rig.engine.bodies == [BODY]
        assert sum(seen) == len(BODY)

    def test_upload_file_over_https_reports_progress_once(self, rig, client, tmp_path):
        (tmp_path / "f").write_bytes(BODY)
        rig.engine.error = ConfirmationTimeout("no answer")
        seen = []
        client.upload_file(str(tmp_path / "f"), "bucket", "key", Callback=seen.append)
        assert rig.over_https("key") == BODY
        assert sum(seen) == len(BODY)

    def test_errors_of_s3_become_upload_failed(self, rig, client, tmp_path):
        from boto3.exceptions import S3UploadFailedError

        (tmp_path / "f").write_bytes(BODY)
        rig.engine.error = TransferRejected("AccessDenied", "no", 403)
        with pytest.raises(S3UploadFailedError, match="AccessDenied"):
            client.upload_file(str(tmp_path / "f"), "bucket", "key")

    def test_bandwidth_limit_and_cancellation_are_heard(self, rig, client):
        from s3transfer.exceptions import CancelledError
        from s3transfer.manager import TransferConfig, TransferManager

        release = threading.Event()

        class Slow(io.BytesIO):
            def read(self, size=-1):
                release.wait(10)
                return super().read(size)

        manager = TransferManager(client, TransferConfig(max_bandwidth=10_000_000))
        future = manager.upload(Slow(BODY), "bucket", "cancelled")
        future.cancel()
        release.set()
        with pytest.raises(CancelledError):
            future.result()
        manager.upload(io.BytesIO(BODY), "bucket", "key").result()
        manager.shutdown()
        assert rig.engine.bodies == [BODY]
        assert rig.s3.puts == []


class TestAttachment:
    def test_the_latest_holds_and_detaching_leaves_nothing(self, rig):
        client = s3_double.make_client(rig.s3)
        plain = client.meta.events._emitter._handlers.prefix_search("before-call.s3.PutObject")
        rig.attach(client)
        rig.attach(client)
        with rig.attach_to(client, s3_double.make_config(rig.s3)):
            client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert len(rig.engine.puts) == 1
        assert client.meta.events._emitter._handlers.prefix_search("before-call.s3.PutObject") == plain

    def test_on_a_sessions_emitter_for_clients_to_come(self, rig):
        import boto3

        session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
        attachment = rig.attach_to(session.events, s3_double.make_config(rig.s3))
        client = session.client("s3", endpoint_url=rig.s3.url, verify=s3_double.certificate())
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert len(rig.engine.puts) == 1
        attachment.detach()
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert len(rig.engine.puts) == 1

    def test_settings_found_late_and_wrong_cost_nothing_but_a_log_line(self, rig, caplog):
        from raptor_s3.errors import ConfigError

        def provider():
            raise ConfigError("malformed", source="file", key="threshold")

        client = s3_double.make_client(rig.s3)
        rig.attach_to(client, provider)
        for _ in range(2):
            client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.over_https("key") == BODY
        assert caplog.text.count("raptor.threshold") == 1

    def test_a_botocore_that_speaks_otherwise_goes_over_https(self, rig, client):
        def forget(context, **_):
            del context["input_params"], context["s3_redirect"]

        def confuse(context, **_):
            context["input_params"] = 5

        for change, reason in ((forget, "which bucket"), (confuse, "in another way")):
            client.meta.events.register("before-call", change)
            response = client.put_object(Bucket="bucket", Key=change.__name__, Body=BODY)
            client.meta.events.unregister("before-call", change)
            assert rig.over_https(change.__name__) == BODY
            assert reason in response["ResponseMetadata"]["Raptor"]["Reason"]

    def test_a_strict_fast_path_that_can_not_be_made_is_an_error(self, rig):
        from raptor_s3.errors import ConfigError

        def make_fast_path(config):
            raise ConfigError("can be read by others", source="/run")

        client = s3_double.make_client(rig.s3)
        config = s3_double.make_config(rig.s3, transport="raptor")
        hooks.attach(client, config, make_fast_path=make_fast_path, make_journal=lambda config: rig)
        with pytest.raises(ClientError, match="can be read by others"):
            client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.s3.puts == []

    def test_what_the_journal_gets(self, rig, client):
        client.put_object(Bucket="bucket", Key="fast", Body=BODY)
        client.put_object(Bucket="elsewhere", Key="slow", Body=BODY)
        rig.engine.error = TransferRejected("AccessDenied", "no", 403)
        with pytest.raises(ClientError):
            client.put_object(Bucket="bucket", Key="denied", Body=BODY)
        fast, slow, denied = rig.records
        assert (fast.route, fast.size_bytes, fast.status, fast.datagrams, fast.lost) == ("raptor", 1024, 200, 3, 1)
        assert fast.etag.strip('"') == hashlib.md5(BODY).hexdigest()
        assert (slow.route, slow.status, slow.etag) == ("https", 200, fast.etag)
        assert (denied.route, denied.status, denied.error) == ("raptor", 403, "AccessDenied")
        assert all(record.elapsed_s > 0 for record in rig.records)

    def test_an_https_call_that_fails_is_in_the_journal_too(self, rig):
        client = rig.attach(transport="https")
        rig.s3.close()
        with pytest.raises(Exception, match=r"connect|closed|endpoint"):
            client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.records[-1].error
