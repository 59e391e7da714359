"""The hook beside others: handlers of users, Stubber, moto; attaching, detaching, and what the journal gets."""

import hashlib
import time

import pytest
import s3_double
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from raptor_s3.errors import ConfirmationTimeout, TransferRejected
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
        assert (slow.route, slow.status, slow.etag, slow.size_bytes) == ("https", 200, fast.etag, 1024)
        assert (denied.route, denied.status, denied.error) == ("raptor", 403, "AccessDenied")
        assert all(record.elapsed_s > 0 for record in rig.records)

    def test_the_time_in_the_journal_is_that_of_both_ways(self, rig, client):
        def put(fields, body, **_):
            time.sleep(0.2)
            raise ConfirmationTimeout("no answer")

        rig.engine.put = put
        before = time.time()
        client.put_object(Bucket="bucket", Key="key", Body=BODY)
        (record,) = rig.records
        assert record.elapsed_s >= 0.2
        assert record.at < before + 0.2
        assert (record.route, record.size_bytes) == ("https", len(BODY))

    def test_an_https_call_that_fails_is_in_the_journal_too(self, rig):
        client = rig.attach(transport="https")
        rig.s3.close()
        with pytest.raises(Exception, match=r"connect|closed|endpoint"):
            client.put_object(Bucket="bucket", Key="key", Body=BODY)
        assert rig.records[-1].error
