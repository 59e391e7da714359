"""DynamoDB did what it was asked, the answer was lost, and boto3 asked again: nothing is different (backend.inflight)."""

from __future__ import annotations

import pytest
from backend_rig import Sender, client_error, published, rig, throttled

from backend.inflight import PATH_TOMBSTONE_S
from raptor_s3.wire.transfer_state import StateType

BODY = bytes(range(256)) * 20


@pytest.fixture
def repeated():
    with rig() as made:
        made.lose_answers()
        yield made


def only(answers):
    assert len(answers) == 1
    return answers[0].state


def slots(backend):
    items = backend.dynamodb.scan(TableName="inflight")["Items"]
    return [slot for item in items for slot in item.get("slots", {}).get("SS", ())]


def test_a_claim_is_known_for_ones_own(repeated):
    sender = Sender(BODY)
    assert only(repeated.deliver(sender.source())).type is StateType.COMPLETE
    assert only(repeated.deliver(sender.source())).type is StateType.COMPLETE
    assert repeated.called("s3") == ["PutObject"]


def test_a_claim_is_no_earlier_attempt(repeated):
    """So a 412 is the truth, and a claim that was given back leaves nothing that forbids a cancel."""
    repeated.deliver(Sender(BODY).source())
    late = Sender(BODY, 2, fields={"IfNoneMatch": "*"})
    assert only(repeated.deliver(late.source())).fields["Code"] == "PreconditionFailed"
    slow = Sender(BODY, 3)
    repeated.fail_s3([throttled()] * 1000)
    with pytest.raises(Exception, match="SlowDown"):
        repeated.deliver(slow.source())
    assert only(repeated.deliver([slow.cancel()])).type is StateType.CANCELLED


def test_an_earlier_attempt_is_remembered(repeated):
    sender = Sender(BODY, ttl_ms=60_000)
    repeated.fail_s3([client_error("InternalError", 500)] * 1000)
    with pytest.raises(Exception, match="InternalError"):
        repeated.deliver(sender.source())
    assert repeated.deliver([sender.cancel()]) == []
    repeated.now += 60
    assert only(repeated.deliver(sender.source())).fields["Code"] == "RequestExpired"


def test_a_claim_of_another_still_holds(repeated):
    sender = Sender(BODY)
    seen = []

    def meanwhile(real, **parameters):
        seen.append(only(repeated.deliver(sender.source())).type)
        return real(**parameters)

    repeated.replace_s3("put_object", meanwhile)
    assert only(repeated.deliver(sender.source())).type is StateType.COMPLETE
    assert seen == [StateType.BLOCK_COMPLETE]


def test_what_is_finished_or_cancelled_frees_its_slot(repeated):
    for number, is_cancelled in ((1, False), (2, True)):
        sender = Sender(BODY, number)
        repeated.deliver(sender.source()[:-1])
        assert len(slots(repeated)) == 1
        repeated.deliver([sender.cancel() if is_cancelled else sender.datagram(40)])
        repeated.complete()
        assert slots(repeated) == []


def test_a_path_may_come_again(repeated):
    for body in (BODY, BODY[::-1]):
        repeated.deliver(published("file", body).source())
        assert repeated.object("in/published/file") == body
        repeated.now += PATH_TOMBSTONE_S
