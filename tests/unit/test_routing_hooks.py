"""The hook in a real boto3 client: what it carries, and what it leaves alone."""

import base64
import hashlib
import io
import threading

import pytest
import s3_double
from botocore.exceptions import ParamValidationError
from s3_double import Stream

from raptor_s3.errors import ConfirmationTimeout, TransferRejected

BODY = bytes(range(256)) * 4


@pytest.fixture(params=["hook", "shortcuts"])
def rig(request):
    """Everything holds on both ways."""
    with s3_double.rig(request.param == "shortcuts") as made:
        yield made


@pytest.fixture
def client(rig):
    return rig.attach()


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
            ({"Body": bytes(256 * 1024 + 1)}, "> threshold 262,144 B"),
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
