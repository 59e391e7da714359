"""How the hook gives a put back to HTTPS, and who hears of it; S3's own errors."""

import os
import subprocess
import sys
import time

import pytest
import s3_double
from botocore.exceptions import ClientError, EndpointConnectionError
from s3_double import Stream

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

    def test_puts_that_were_on_their_way_fail_once_together(self, rig, client):
        """Each of sixteen threads' puts would otherwise double how long the circuit breaker stays open."""

        class Slow(Stream):
            def read(self, *arguments):
                if not rig.breaker.state.failures:
                    rig.breaker.failed("another put's failure", time.time())
                return super().read(*arguments)

        rig.engine.error = ConfirmationTimeout("no answer")
        client.put_object(Bucket="bucket", Key="key", Body=Slow(BODY))
        assert rig.over_https("key") == BODY
        assert rig.breaker.state.failures == 1

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


POLICY = TransferRejected("AccessDenied", "gateway: peer me may not write s3://bucket/key", 403)


class TestWhoHearsOfIt:
    def test_a_refusal_that_https_makes_good_is_a_warning_now_and_then(self, rig, client, caplog):
        rig.engine.error = POLICY
        for folder in range(5):
            client.put_object(Bucket="bucket", Key=f"{folder}/key", Body=BODY)
        (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert "the receiver refuses s3://bucket/0/key, HTTPS takes over: AccessDenied (403)" in record.getMessage()

    @pytest.mark.parametrize("settings", [{"transport": "raptor"}, {"on_failure": "raise"}], ids=str)
    def test_who_does_not_want_https_gets_the_receivers_words(self, rig, settings, caplog):
        client = rig.attach(**settings)
        rig.engine.error = POLICY
        for _ in range(2):
            with pytest.raises(ClientError) as caught:
                client.put_object(Bucket="bucket", Key="key", Body=BODY)
            assert caught.value.response["Error"] == {"Code": "AccessDenied", "Message": POLICY.message}
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        assert rig.s3.puts == []
        assert caplog.text == ""

    def test_an_exception_over_https_carries_the_reason(self, rig, client):
        rig.engine.error = POLICY
        rig.s3.close()
        with pytest.raises(EndpointConnectionError) as caught:
            client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert caught.value.__notes__ == [f"raptor_s3: not on the fast path: refused: {POLICY}"]

    def test_a_face_can_ask_to_be_told_of_puts_that_fail_on_both_ways(self, rig):
        client, told = s3_double.make_client(rig.s3), []
        hooks.attach(
            client, s3_double.make_config(rig.s3), make_fast_path=rig.make_fast_path, make_journal=lambda _: rig,
            on_https_error=lambda record: told.append((record.key, record.reason, record.error)),
        )  # fmt: skip
        rig.s3.fail_next = [403]
        with pytest.raises(ClientError):
            client.put_object(Bucket="elsewhere", Key="not ours", Body=BODY)
        rig.engine.error = POLICY
        client.put_object(Bucket="bucket", Key="a/works", Body=BODY)
        assert told == []
        rig.s3.fail_next = [403]
        with pytest.raises(ClientError):
            client.put_object(Bucket="bucket", Key="b/fails", Body=BODY)
        assert told == [("b/fails", f"refused: {POLICY}", "403")]


UNCONFIGURED = """if True:
    import boto3, logging, sys
    import s3_double
    from raptor_s3.errors import TransferRejected
    {setup}
    with s3_double.rig() as rig:
        client = boto3.client("s3", region_name="us-east-1", endpoint_url=rig.s3.url)
        rig.attach(client)
        rig.engine.error = TransferRejected("AccessDenied", "gateway: peer me may not write", 403)
        client.put_object(Bucket="bucket", Key="key", Body=b"body")
"""


@pytest.mark.parametrize(
    ("setup", "expected"),
    [
        ("", "raptor_s3: the receiver refuses s3://bucket/key"),
        ("logging.basicConfig(format='root: %(message)s')", "root: the receiver refuses s3://bucket/key"),
        ("logging.getLogger('raptor_s3').addHandler(logging.NullHandler())", "Traceback"),
    ],
    ids=["nobody listens", "root", "told to be silent"],
)
def test_a_refusal_is_on_stderr_before_the_want_of_credentials(setup, expected):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAPTOR_"))}
    environment |= {"PYTHONPATH": os.path.dirname(__file__), "HOME": "/nonexistent"}
    script = UNCONFIGURED.format(setup=setup)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.startswith(expected)
    assert done.stderr.count("the receiver refuses") == (expected != "Traceback")
    assert done.stderr.index("NoCredentialsError: Unable to locate credentials") > done.stderr.index("Traceback")
    assert done.stderr.rstrip().endswith(
        "raptor_s3: not on the fast path: refused: AccessDenied (403): gateway: peer me may not write"
    )
