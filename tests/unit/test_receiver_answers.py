"""What receivers say: our own refusals lead to HTTPS, S3's own word does not, and CANCELLED is said only where it is true."""

from __future__ import annotations

import ast
import datetime
import email.utils
import io
from pathlib import Path
from typing import get_args

import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
    SSLError,
)
from urllib3 import HTTPResponse

from backend import runtime
from raptor_s3.errors import TransferRejected
from raptor_s3.gateway import aws
from raptor_s3.receiver import admission, s3_answers
from raptor_s3.receiver.outcome import CANCELLED, Outcome, Receiver, given_up
from raptor_s3.receiver.policy import Grant, Policy, Rule
from raptor_s3.routing.ending import is_receivers_own
from raptor_s3.wire.put_header import TELLING_BYTES, crc32_field
from raptor_s3.wire.transfer_state import StateType

ROOT = Path(__file__).resolve().parents[2]
RECEIVERS = get_args(Receiver)
BODY = memoryview(b"a body that is nobody else's")


def leads_to_https(outcome: Outcome) -> bool:
    assert outcome.type is StateType.FAILED
    assert outcome.fields is not None
    return is_receivers_own(TransferRejected(*(outcome.fields[name] for name in ("Code", "Message", "StatusCode"))))


def said(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_our_own_refusals_lead_to_https(receiver):
    policy = Policy({"a": Grant("peer a", (Rule("b"),))})
    header = {"Bucket": "b", "Key": "k", "ChecksumCRC32": crc32_field(b"another")}
    refusals = [
        Outcome.refused(receiver, "InvalidRequest", "because", 400),
        given_up(receiver, may_have_written=True),
        admission.refusal(receiver, policy, "a", header, BODY),
        admission.refusal(receiver, policy, "stranger", header, BODY),
        s3_answers.failure(receiver, ParamValidationError(report="no")),
        s3_answers.failure(receiver, NoCredentialsError()),
        s3_answers.failure(receiver, ReadTimeoutError(endpoint_url="x")),
    ]
    assert all(leads_to_https(refusal) for refusal in refusals)


def test_s3s_word_goes_to_the_caller():
    assert not leads_to_https(s3_answers.failure("gateway", said("PreconditionFailed", 412)))


@pytest.mark.parametrize("room", ["raptor_s3/gateway", "backend", "raptor_s3/receiver"])
def test_nobody_makes_a_failure_without_saying_whose(room):
    """`Outcome.failed` is for S3's words only."""
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".failed"):
                assert path.name in ("outcome.py", "s3_answers.py"), f"{path}:{node.lineno}"


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_cancelled_is_said_only_where_nothing_can_have_been_written(receiver):
    assert given_up(receiver, may_have_written=False) == CANCELLED
    assert given_up(receiver, may_have_written=True).fields["Code"] == "RequestExpired"


def test_long_messages_are_cut_between_characters():
    message = Outcome.refused("gateway", "AccessDenied", "\N{SNOWMAN}" * 1000, 403).fields["Message"]
    assert 390 < len(message.encode()) <= 400


@pytest.mark.parametrize(
    ("error", "is_transient", "may_have_written"),
    [
        (said("InternalError", 500), True, True),
        (said("SlowDown", 503), True, False),
        (said("Throttling", 400), True, False),
        (said("TooManyRequests", 429), True, False),
        (said("RequestTimeout", 400), True, False),
        (said("AccessDenied", 403), False, False),
        (ReadTimeoutError(endpoint_url="x"), True, True),
        (ConnectionClosedError(endpoint_url="x"), True, True),
        (SSLError(endpoint_url="x", error="cut off"), True, True),
        (ConnectTimeoutError(endpoint_url="x"), True, False),
        (EndpointConnectionError(endpoint_url="x"), True, False),
    ],
)
def test_what_a_failed_attempt_leaves_open(error, is_transient, may_have_written):
    assert s3_answers.is_transient(error) is is_transient
    assert s3_answers.may_have_written(error) is may_have_written


@pytest.mark.parametrize(
    ("chosen", "stays"),
    [
        ({}, True),
        ({"ChecksumAlgorithm": "CRC32"}, True),
        ({"ChecksumAlgorithm": "SHA256"}, False),
        ({"ChecksumSHA1": "x"}, False),
    ],
)
def test_one_checksum_only_goes_to_s3(chosen, stays):
    parameters = s3_answers.put_parameters({"Bucket": "b", "Key": "k", "ChecksumCRC32": "x", "TtlMs": 5, **chosen})
    assert ("ChecksumCRC32" in parameters) is stays
    assert "TtlMs" not in parameters


def test_the_response_is_put_objects_and_names_the_request():
    response = {
        "ETag": '"e"',
        "ContentLength": 4,
        "SSEKMSEncryptionContext": "x" * 600,
        "ResponseMetadata": {"RequestId": "r", "HostId": "", "HTTPStatusCode": 200},
    }
    assert s3_answers.response_fields(response) == {"ETag": '"e"', "RequestId": "r"}


class Head:
    """HeadObject's answer for an object of a given age."""

    def __init__(self, age_s: float | None) -> None:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        headers = {} if age_s is None else {"date": email.utils.format_datetime(now, usegmt=True)}
        self.answer = {
            "ContentLength": len(BODY),
            "ETag": '"e"',
            "ChecksumCRC32": crc32_field(BODY),
            "LastModified": now - datetime.timedelta(seconds=age_s or 0),
            "ResponseMetadata": {"RequestId": "head", "HTTPHeaders": headers},
        }

    def head_object(self, **_):
        return self.answer


@pytest.mark.parametrize(
    ("given", "found", "is_ours"),
    [
        ({}, {}, True),
        ({"Owner": "me"}, {"owner": "me"}, True),
        ({"Owner": "me"}, {"owner": "another"}, False),
        ({"Owner": "me"}, {}, False),
        ({}, {"owner": "another"}, False),
    ],
)
def test_an_object_whose_metadata_name_another_is_anothers(given, found, is_ours):
    head = Head(0)
    head.answer["Metadata"] = found
    fields = {"Bucket": "b", "Key": "k", **({"Metadata": given} if given else {})}
    assert (s3_answers.own_write(head, fields, lambda _: True, elapsed_s=10.0) is not None) is is_ours


@pytest.mark.parametrize(("age_s", "is_ours"), [(0, True), (11, True), (13, False), (None, False)])
def test_an_object_is_ours_by_content_and_by_s3s_clock(age_s, is_ours):
    def holds(found):
        return s3_answers.holds(found, BODY, crc32_field(BODY))

    outcome = s3_answers.own_write(Head(age_s), {"Bucket": "b", "Key": "k"}, holds, elapsed_s=10.0)
    assert (outcome is not None) is is_ours
    if outcome is not None:
        assert outcome == Outcome(StateType.COMPLETE, {"ETag": '"e"', "ChecksumCRC32": crc32_field(BODY)})
    assert s3_answers.own_write(Head(age_s), {"Bucket": "b", "Key": "k"}, lambda _: False, elapsed_s=10.0) is None


def test_a_few_octets_are_nobodys() -> None:
    head = Head(0)
    head.answer["ContentLength"] = TELLING_BYTES - 1
    assert s3_answers.own_write(head, {"Bucket": "b", "Key": "k"}, lambda _: True, elapsed_s=10.0) is None


def gateways_client():
    return aws.make_client("s3", region="us-east-1", endpoint_url=None, connections=1, read_timeout_s=1)


@pytest.mark.parametrize("make_client", [gateways_client, lambda: runtime.make_client.__wrapped__("s3")])
@pytest.mark.parametrize(("size", "understood"), [("abc", {}), ("", {}), ("7", {"Size": 7}), (None, {})])
def test_an_unreadable_size_is_left_out_of_the_answer(monkeypatch, make_client, size, understood):
    for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "us-east-1")
    headers = HeadersDict({"ETag": '"e"'} | ({} if size is None else {"x-amz-object-size": size}))
    client = make_client()
    client.meta.events.register(
        "before-send.s3", lambda **_: AWSResponse("https://s3", 200, headers, HTTPResponse(io.BytesIO(), preload_content=False))
    )
    response = client.put_object(Bucket="b", Key="k", Body=b"x")
    assert s3_answers.response_fields(response) == {"ETag": '"e"'} | understood


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/../b", "./a", "a\\b", "a\nb", "a/"])
def test_paths_that_leave_their_prefix_are_refused(path):
    policy = Policy({"a": Grant("peer a", legacy=True), "b": Grant("peer b")})
    assert isinstance(admission.published_key("gateway", policy, "a", "in/", path), Outcome)


def test_a_path_needs_a_peer_that_may_send_such():
    policy = Policy({"a": Grant("peer a", legacy=True), "b": Grant("peer b")})
    assert admission.published_key("gateway", policy, "a", "in/", "x/y.txt") == "in/x/y.txt"
    assert isinstance(admission.published_key("gateway", policy, "b", "in/", "x/y.txt"), Outcome)
    assert isinstance(admission.published_key("gateway", policy, "a", "in/", "x" * 1022), Outcome)
