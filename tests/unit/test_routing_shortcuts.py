"""Shortcuts past botocore: when they are taken, when they must not be, and that boto3's uploads keep their manners.

That puts come out the same is the business of test_routing_hooks, _fallback and _company: they run everything both ways.
"""

import io
import os
from unittest import mock

import pytest
import s3_double
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.history import get_global_history_recorder
from botocore.stub import Stubber

from raptor_s3.errors import ConfirmationTimeout, TransferRejected
from raptor_s3.routing import shortcuts

BODY = b"body" * 100


@pytest.fixture
def rig():
    with s3_double.rig(with_shortcuts=True) as made:
        yield made


@pytest.fixture
def client(rig):
    return rig.attach()


@pytest.fixture
def serialized(client):
    """How often botocore has serialized a request: never on a shortcut."""
    with mock.patch.object(client._serializer, "serialize_to_request", wraps=client._serializer.serialize_to_request) as spy:
        yield spy


def put(client, **arguments):
    return client.put_object(**{"Bucket": "bucket", "Key": "key", "Body": BODY, **arguments})


class TestTaken:
    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"Body": io.BytesIO(BODY)},
            {"Body": bytearray(BODY)},
            {"Body": "text"},
            {"Key": "ü/€ x"},
            {"Metadata": {"a": "b"}, "ContentType": "text/plain", "ServerSideEncryption": "AES256", "CacheControl": "no-cache"},
            {"IfNoneMatch": "*", "StorageClass": "STANDARD_IA"},
        ],
    )
    def test_by_plain_puts(self, rig, client, serialized, arguments):
        put(client, **arguments)
        assert serialized.call_count == 0
        assert len(rig.engine.puts) == 1

    def test_the_first_put_to_a_bucket_asks_botocore(self, rig):
        client = rig.attach(buckets="*")
        with mock.patch.object(client._serializer, "serialize_to_request", wraps=client._serializer.serialize_to_request) as spy:
            for _ in range(3):
                put(client, Bucket="third")
        assert spy.call_count == 1
        assert len(rig.engine.puts) == 3


class TestNotTaken:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"Expires": "2030-01-01"},
            {"ChecksumAlgorithm": "SHA256"},
            {"ServerSideEncryption": "aws:kms"},
            {"Metadata": {"a": ""}},
            {"CacheControl": ""},
            {"ContentLength": len(BODY)},
            {"ACL": "private"},
        ],
    )
    def test_by_puts_that_need_a_closer_look(self, rig, client, serialized, arguments):
        put(client, **arguments)
        assert serialized.call_count == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            {"Key": ""},
            {"Key": 5},
            {"Bucket": "no/such"},
            {"Body": 5},
            {"CacheControl": 5},
            {"Nonsense": 1},
        ],
    )
    def test_mistakes_are_botocores_to_name(self, rig, client, arguments):
        with pytest.raises(BotoCoreError):  # mostly ParamValidationError
            put(client, **arguments)
        assert rig.engine.puts == []

    def test_metadata_beyond_ascii(self, client):
        with pytest.raises(ParamValidationError, match="Non ascii"):
            put(client, Metadata={"a": "ü"})

    @pytest.mark.parametrize(
        "event",
        ["provide-client-params.s3", "before-parameter-build.s3.PutObject", "before-call", "before-send", "after-call.s3"],
    )
    def test_while_somebody_listens(self, client, serialized, event):
        def listen(**_):
            seen.append(event)

        seen = []
        put(client)
        client.meta.events.register(event, listen)
        put(client)
        client.meta.events.unregister(event, listen)
        put(client)
        assert seen == [event]
        assert serialized.call_count == 1

    def test_while_a_stubber_is_on(self, rig, client):
        with Stubber(client) as stubber:
            stubber.add_client_error("put_object", "Stubbed")
            with pytest.raises(ClientError, match="Stubbed"):
                put(client)
        assert rig.engine.puts == []

    def test_while_botocore_is_instrumented(self, rig, client):
        with mock.patch("botocore.client.BaseClient._make_api_call", return_value="traced") as traced:
            assert put(client) == "traced"
        traced.assert_called_once_with("PutObject", {"Bucket": "bucket", "Key": "key", "Body": BODY})
        assert rig.engine.puts == []

    def test_while_history_is_recorded(self, client, serialized):
        recorder = get_global_history_recorder()
        recorder.enable()
        try:
            put(client)
        finally:
            recorder.disable()
        assert serialized.call_count == 1

    def test_in_lambda(self, rig, monkeypatch):
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "function")
        assert not shortcuts.is_supported(s3_double.make_client(rig.s3))

    def test_on_a_botocore_that_is_built_otherwise(self, rig):
        class Rebuilt:
            meta = None

        client = s3_double.make_client(rig.s3)
        assert shortcuts.is_supported(client)
        assert not shortcuts.is_supported(Rebuilt())
        with mock.patch.object(client.meta.events._emitter, "_handlers", None):
            assert not shortcuts.is_supported(client)
            shortcuts.install(client, None)()

    def test_over_somebody_elses_override(self, rig):
        client = s3_double.make_client(rig.s3)
        client.upload_file = mine = lambda *_: None
        rig.attach(client)
        assert client.upload_file is mine
        assert "_make_api_call" not in vars(client)


def test_a_put_that_failed_is_tried_once_and_the_reason_kept(rig, client):
    rig.engine.error = ConfirmationTimeout("no answer")
    with mock.patch.object(rig.engine, "put", wraps=rig.engine.put) as engine:
        response = put(client)
    assert engine.call_count == 1
    assert "no answer" in response["ResponseMetadata"]["Raptor"]["Reason"]
    assert "no answer" in rig.records[-1].reason
    assert len(rig.records) == 1
    assert rig.over_https("key") == BODY


class TestUploads:
    """Each on the shortcut and by boto3 alone, which must agree."""

    @pytest.fixture(params=["shortcut", "boto3"])
    def uploader(self, request, rig):
        if request.param == "shortcut":
            made = rig.attach()
            yield made
        else:
            made = s3_double.make_client(rig.s3)
            yield made

    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "file ü"
        path.write_bytes(BODY)
        return path

    def stored(self, rig, key="key"):
        return next((body for fields, body in rig.engine.puts if fields["Key"] == key), rig.over_https(key))

    @pytest.mark.parametrize("kind", [str, os.fspath, lambda path: path])
    def test_a_file(self, rig, uploader, file, kind):
        seen = []
        assert uploader.upload_file(kind(file), "bucket", "key", Callback=seen.append) is None
        assert self.stored(rig) == BODY
        assert sum(seen) == len(BODY)

    def test_an_empty_file_and_one_that_is_none(self, rig, tmp_path):
        client = rig.attach()
        (tmp_path / "empty").touch()
        client.upload_file(str(tmp_path / "empty"), "bucket", "empty", Callback=pytest.fail)
        assert rig.engine.bodies == [b""]
        os.mkfifo(tmp_path / "pipe")
        with mock.patch("boto3.s3.inject.S3Transfer", side_effect=RuntimeError("boto3")):
            for other in (tmp_path / "pipe", tmp_path, 5, os.fsencode(tmp_path / "empty")):
                with pytest.raises(RuntimeError, match="boto3"):
                    client.upload_file(other, "bucket", "key")

    def test_with_arguments(self, rig, file):
        rig.attach().upload_file(
            str(file), "bucket", "key", ExtraArgs={"ContentType": "text/plain", "Metadata": {"a": "b"}}, Config=TransferConfig()
        )
        assert rig.engine.puts[0][0]["ContentType"] == "text/plain"
        assert rig.engine.puts[0][0]["Metadata"] == {"a": "b"}

    def test_a_file_object_from_its_position_and_closed_afterwards(self, rig, uploader, file):
        opened = file.open("rb")
        opened.seek(10)
        uploader.upload_fileobj(opened, "bucket", "key")
        assert self.stored(rig) == BODY[10:]
        assert opened.closed

    def test_a_stream(self, rig, uploader):
        class Stream:
            def __init__(self):
                self._file = io.BytesIO(BODY)

            def read(self, size=-1):
                return self._file.read(size)

        uploader.upload_fileobj(Stream(), "bucket", "key")
        assert self.stored(rig) == BODY

    def test_no_such_file(self, uploader, tmp_path):
        with pytest.raises(FileNotFoundError):
            uploader.upload_file(str(tmp_path / "missing"), "bucket", "key")

    def test_mistakes(self, uploader, file):
        with pytest.raises(ValueError, match="path-like"):
            uploader.upload_file(5, "bucket", "key")
        with pytest.raises(ValueError, match="must implement read"):
            uploader.upload_fileobj(BODY, "bucket", "key")
        with pytest.raises(ValueError, match="Invalid extra_args key"):
            uploader.upload_file(str(file), "bucket", "key", ExtraArgs={"Nonsense": 1})

    def test_errors_of_s3(self, rig, file):
        client = rig.attach()
        rig.engine.error = TransferRejected("AccessDenied", "no", 403)
        with pytest.raises(
            S3UploadFailedError, match=r"Failed to upload .*file ü to bucket/key: An error occurred \(AccessDenied\)"
        ):
            client.upload_file(str(file), "bucket", "key")
        with pytest.raises(ClientError, match="AccessDenied"):
            client.upload_fileobj(io.BytesIO(BODY), "bucket", "key")

    def test_https_takes_over(self, rig, file):
        client = rig.attach()
        rig.engine.error = ConfirmationTimeout("no answer")
        seen = []
        client.upload_file(str(file), "bucket", "key", Callback=seen.append)
        assert rig.over_https("key") == BODY
        assert seen == [len(BODY)]

    @pytest.mark.parametrize(
        ("size", "options"),
        [(300_000, {}), (400, {"Config": TransferConfig(max_bandwidth=1_000_000)}), (400, {"ExtraArgs": {"ACL": "private"}})],
    )
    def test_others_are_boto3s(self, rig, tmp_path, size, options):
        client = rig.attach()
        (tmp_path / "f").write_bytes(bytes(size))
        with (
            mock.patch("boto3.s3.inject.create_transfer_manager", side_effect=RuntimeError("boto3")),
            mock.patch("boto3.s3.inject.S3Transfer", side_effect=RuntimeError("boto3")),
            pytest.raises(RuntimeError, match="boto3"),
        ):
            client.upload_file(str(tmp_path / "f"), "bucket", "key", **options)
        with (
            mock.patch("boto3.s3.inject.create_transfer_manager", side_effect=RuntimeError("boto3")),
            pytest.raises(RuntimeError, match="boto3"),
        ):
            client.upload_fileobj(io.BytesIO(bytes(size)), "bucket", "key", **options)

    def test_multipart_uploads_are_not_touched(self, rig, tmp_path):
        client = rig.attach(threshold="1MB")
        config = TransferConfig(multipart_threshold=100)
        with (
            mock.patch("boto3.s3.inject.create_transfer_manager", side_effect=RuntimeError("boto3")),
            pytest.raises(RuntimeError, match="boto3"),
        ):
            client.upload_fileobj(io.BytesIO(BODY), "bucket", "key", Config=config)


def test_uninstalling_leaves_nothing(rig):
    client = s3_double.make_client(rig.s3)
    before = dict(vars(client))
    attachment = rig.attach_to(client, s3_double.make_config(rig.s3))
    uninstall = shortcuts.install(client, attachment)
    assert vars(client).keys() - before.keys() == {"_make_api_call", "upload_file", "upload_fileobj"}
    uninstall()
    uninstall()
    before["_exceptions"] = client._exceptions  # botocore's own cache
    assert dict(vars(client)) == before
