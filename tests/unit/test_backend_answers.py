"""What the ingestor and the completer make of S3's answers and of the policy, on moto."""

from __future__ import annotations

import hashlib
import time

import pytest
from backend_rig import BUCKET, PEER, STRANGER, Sender, client_error, rig, throttled

from raptor_s3.wire.transfer_state import StateType

BODY = bytes(range(256)) * 20


@pytest.fixture
def backend():
    with rig() as made:
        yield made


@pytest.fixture
def unguarded():
    with rig(guard=False) as made:
        yield made


def only(answers):
    assert len(answers) == 1
    return answers[0].state


class TestS3Says:
    def test_no(self, backend):
        backend.fail_s3([client_error("AccessDenied", 403)])
        sender = Sender(BODY)
        state = only(backend.deliver(sender.source()))
        assert state.fields == {"Code": "AccessDenied", "Message": "because", "StatusCode": 403}
        assert only(backend.deliver(sender.source())) == state
        assert backend.object() is None

    def test_no_such_bucket(self):
        with rig({"peers": [{"public_key": PEER, "allow": [{"bucket": "*"}]}]}) as backend:
            state = only(backend.deliver(Sender(BODY, fields={"Bucket": "nowhere"}).source()))
            assert (state.fields["Code"], state.fields["StatusCode"]) == ("NoSuchBucket", 404)

    def test_slow_down_and_then_yes(self, backend):
        log = backend.fail_s3([throttled(), throttled()])
        assert only(backend.deliver(Sender(BODY).source())).type is StateType.COMPLETE
        assert len(log) == 3

    def test_slow_down_until_the_end_can_be_cancelled(self, backend):
        backend.fail_s3([throttled()] * 1000)
        sender = Sender(BODY)
        with pytest.raises(Exception, match="SlowDown"):
            backend.deliver(sender.source())
        assert only(backend.deliver([sender.cancel()])).type is StateType.CANCELLED

    def test_nothing_until_the_end_can_not_be_cancelled(self, backend):
        backend.fail_s3([client_error("InternalError", 500)] * 1000)
        sender = Sender(BODY)
        with pytest.raises(Exception, match="InternalError"):
            backend.deliver(sender.source())
        assert backend.deliver([sender.cancel()]) == []

    def test_body_that_is_not_its_checksum(self, backend):
        state = only(backend.deliver(Sender(BODY, fields={"ChecksumCRC32": "AAAAAA=="}).source()))
        assert state.fields["Code"] == "BadDigest"
        assert backend.object() is None

    def test_another_checksum_is_carried_to_s3(self, backend):
        good = "nkqZpOSwd94UDrUZgUwVMnWsYgSUJTVVXUCIOAVc3oE="
        state = only(backend.deliver(Sender(BODY, fields={"ChecksumSHA256": good}).source()))
        assert state.type in (StateType.FAILED, StateType.COMPLETE)
        assert backend.called("s3") == ["PutObject"]


class TestIfNoneMatch:
    def test_exists_is_the_real_412(self, backend):
        backend.s3.put_object(Bucket=BUCKET, Key="in/file", Body=b"other")
        state = only(backend.deliver(Sender(BODY, fields={"IfNoneMatch": "*"}).source()))
        assert (state.fields["Code"], state.fields["StatusCode"]) == ("PreconditionFailed", 412)

    @pytest.mark.parametrize("guard", [True, False])
    def test_a_second_delivery_is_no_false_412(self, guard):
        with rig(guard=guard) as backend:
            sender = Sender(BODY, fields={"IfNoneMatch": "*"})
            first = only(backend.deliver(sender.source()))
            assert first.type is StateType.COMPLETE
            assert only(backend.deliver(sender.source())) == first

    def test_a_lost_answer_of_s3_is_no_false_412(self, backend):
        backend.now = time.time()
        errors = [client_error("InternalError", 500)]

        def answer_is_lost(real, **parameters):
            response = real(**parameters)
            if errors:
                raise errors.pop()
            return response

        backend.replace_s3("put_object", answer_is_lost)
        state = only(backend.deliver(Sender(BODY, fields={"IfNoneMatch": "*"}).source()))
        assert state.type is StateType.COMPLETE
        assert state.fields["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'

    def test_a_sandbox_that_died_after_the_write_is_no_false_412(self, backend):
        backend.now = time.time()
        sender = Sender(BODY, fields={"IfNoneMatch": "*"}, ttl_ms=600_000)
        inflight = backend.runtime.ingestion._delivery._inflight
        inflight.finish = None
        with pytest.raises(TypeError):
            backend.deliver(sender.source())
        backend.runtime = backend.assemble()
        assert only(backend.deliver(sender.source())).type is StateType.BLOCK_COMPLETE  # the dead one's lease still holds
        backend.now += 60
        assert only(backend.deliver(sender.source())).type is StateType.COMPLETE

    def test_another_objects_content_is_never_taken_for_ours(self, backend):
        backend.now = time.time()
        backend.s3.put_object(Bucket=BUCKET, Key="in/file", Body=b"other")
        backend.fail_s3([client_error("InternalError", 500)])
        state = only(backend.deliver(Sender(BODY, fields={"IfNoneMatch": "*"}).source()))
        assert state.fields["StatusCode"] == 412


class TestPolicy:
    def test_unknown_peers_are_told_and_nothing_of_theirs_is_kept(self, backend):
        state = only(backend.deliver(Sender(BODY).source()[:1], peer=STRANGER))
        assert (state.type, state.fields["Code"]) == (StateType.FAILED, "AccessDenied")
        assert backend.called("dynamodb") == ["GetItem", "UpdateItem"]  # the outcome, so that it stays true

    def test_datagrams_without_wireguard_are_not_answered(self, backend):
        assert backend.deliver(Sender(BODY).source(), peer="") == []
        assert backend.called("dynamodb") == []

    @pytest.mark.parametrize(
        "fields", [{"Key": "elsewhere/x"}, {"Bucket": "other"}, {"SSEKMSKeyId": "k"}, {"ServerSideEncryption": "aws:kms"}]
    )
    def test_what_the_policy_does_not_name_is_refused(self, backend, fields):
        state = only(backend.deliver(Sender(BODY, fields=fields).source()))
        assert (state.fields["Code"], state.fields["StatusCode"]) == ("AccessDenied", 403)
        assert backend.called("s3") == []

    def test_gated_parameters_that_it_names_are_carried(self, backend):
        assert only(backend.deliver(Sender(BODY, fields={"Tagging": "a=b"}).source())).type is StateType.COMPLETE
        tags = backend.s3.get_object_tagging(Bucket=BUCKET, Key="in/file")["TagSet"]
        assert tags == [{"Key": "a", "Value": "b"}]

    def test_a_broken_policy_allows_nothing(self):
        with rig("{") as backend:
            assert only(backend.deliver(Sender(BODY).source())).fields["Code"] == "AccessDenied"

    def test_a_change_is_seen_within_a_minute(self, backend):
        backend.deliver(Sender(BODY).source())
        backend.set_policy({})
        backend.now += 61
        assert only(backend.deliver(Sender(BODY, 2).source())).fields["Code"] == "AccessDenied"
