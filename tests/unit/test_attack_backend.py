"""Attacks on the backend's promises: what was refused stays unwritten."""

import json

import backend_rig
import pytest
from backend_rig import BUCKET, PEER, Sender, rig

from raptor_s3.codec import ObjectTransmissionInformation
from raptor_s3.wire.transfer_state import StateType

ALLOWED = {"peers": [{"public_key": PEER, "allow": [{"bucket": BUCKET, "prefixes": ["in/"]}]}]}


def test_a_refused_put_is_not_written_by_another_sandbox_with_a_newer_policy():
    with rig({}) as backend:
        sender = Sender(b"old")
        (answer,) = backend.deliver([sender.datagram(0)])
        assert answer.state.type is StateType.FAILED  # the sender turns to HTTPS at once, and may have put something newer
        backend.set_policy(ALLOWED)
        backend.runtime = backend.assemble()  # a sandbox that has just started
        backend.now += 0.2
        backend.deliver([sender.datagram(1)])  # the other datagram of the same first flight
        assert backend.object() is None


@pytest.mark.parametrize("policy", [{}, {"peers": [{"public_key": PEER, "allow": [{"bucket": "another"}]}]}])
def test_a_refusal_is_not_said_while_another_sandbox_writes(policy):
    with rig(ALLOWED) as backend:
        sender = Sender(b"", oti=ObjectTransmissionInformation(len(Sender(b"")._data), 500, 1))
        answers = []

        def slow(real, **parameters):
            newer, backend.runtime = backend.runtime, older
            answers.extend(backend.deliver(sender.source()))
            backend.runtime = newer
            return real(**parameters)

        backend.replace_s3("put_object", slow)
        newer = backend.runtime
        backend.set_policy(policy)
        older = backend.assemble()
        older.ingestion._policy()
        backend.set_policy(ALLOWED)
        backend.runtime = newer
        (final,) = backend.deliver(sender.source())
        assert final.state.type is StateType.COMPLETE
        assert {answer.state.type for answer in answers} == {StateType.BLOCK_COMPLETE}


def test_unguarded_a_refusal_by_the_policy_is_not_said():
    with rig({}, guard=False) as backend:
        assert backend.deliver(Sender(b"old").source()) == []


def no_check(fields):
    header = json.dumps(fields).encode()
    return len(header).to_bytes(2, "big") + header


def test_a_key_that_boto3_can_not_send_is_refused_at_once(monkeypatch):
    """Else it holds its claim, comes again five times, and ends in the dead-letter queue, with an alarm."""
    monkeypatch.setattr(backend_rig, "build_put_header", no_check)
    with rig(ALLOWED) as backend:
        (answer,) = backend.deliver([Sender(b"x", key="in/\ud800").datagram(0)])
        assert answer.state.type is StateType.FAILED


def test_a_value_that_boto3_can_not_send_is_an_outcome():
    """Whatever the check of the put header may miss."""
    with rig(ALLOWED) as backend:

        def refuse(real, **parameters):
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

        backend.replace_s3("put_object", refuse)
        (answer,) = backend.deliver([Sender(b"x").datagram(0)])
        assert (answer.state.type, answer.state.fields["Code"]) == (StateType.FAILED, "InvalidArgument")
