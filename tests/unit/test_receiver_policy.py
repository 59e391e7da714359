"""Who may write what: deny by default, whatever the document looks like; complaints say where."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raptor_s3.errors import ConfigError
from raptor_s3.receiver.policy import parse_policy

A, B = (base64.b64encode(bytes([n]) * 32).decode() for n in (250, 2))


def policy(**document):
    return parse_policy(json.dumps(document))


def put(key="k", bucket="b", **fields):
    return {"Bucket": bucket, "Key": key, **fields}


def peer_with(*rules: dict, **more) -> str:
    return json.dumps({"peers": [{"name": "cam", "public_key": A, "allow": list(rules), **more}]})


def test_nobody_may_anything_by_default():
    assert policy().objection(A, put())
    assert policy().objection("", put())
    assert policy(peers=[{"public_key": A}]).objection(A, put())


@pytest.mark.parametrize(
    ("rules", "parameters", "is_allowed"),
    [
        ([], {}, False),
        ([{"bucket": "data"}], {}, True),
        ([{"bucket": "dat*"}], {}, True),
        ([{"bucket": "dat"}], {}, False),
        ([{"bucket": "*ata"}], {"Bucket": "data2"}, False),
        ([{"bucket": "data", "prefixes": ["cam/"]}], {}, True),
        ([{"bucket": "data", "prefixes": ["cam/"]}], {"Key": "camera/1"}, False),
        ([{"bucket": "data", "prefixes": ["x/", "cam/"]}], {}, True),
        ([{"bucket": "data", "prefixes": []}], {}, False),
        ([{"bucket": "data"}], {"Tagging": "a=b"}, False),
        ([{"bucket": "data", "options": ["Tagging"]}], {"Tagging": "a=b"}, True),
        ([{"bucket": "data", "options": ["Tagging"]}], {"Tagging": "a=b", "SSEKMSKeyId": "k"}, False),
        ([{"bucket": "data", "prefixes": ["x/"], "options": ["Tagging"]}, {"bucket": "data"}], {"Tagging": "a"}, False),
        ([{"bucket": "data"}], {"ServerSideEncryption": "AES256"}, True),
        ([{"bucket": "data"}], {"ServerSideEncryption": "aws:kms"}, False),
        ([{"bucket": "data", "options": ["SSEKMSKeyId"]}], {"ServerSideEncryption": "aws:kms"}, True),
        ([{"bucket": "other"}, {"bucket": "data"}], {}, True),
    ],
)
def test_bucket_prefix_and_options_must_all_be_named_by_one_rule(rules, parameters, is_allowed):
    made = parse_policy(peer_with(*rules))
    fields = {"Bucket": "data", "Key": "cam/1", **parameters}
    assert (made.objection(A, fields) == "") is is_allowed
    assert made.objection(B, fields)
    assert made.objection("", fields)


def test_a_bucket_name_made_to_make_patterns_slow_is_just_refused():
    assert parse_policy(peer_with({"bucket": "a*a*a*a*a*a*a*a*a*a*a*a*a*b"})).objection(A, put(bucket="a" * 60_000))


def test_an_objection_names_the_peer_as_the_document_does():
    assert "peer cam may not write" in parse_policy(peer_with()).objection(A, put())
    assert "peer cam may not set Tagging" in parse_policy(peer_with({"bucket": "b"})).objection(A, put(Tagging="a=b"))


@pytest.mark.parametrize("entry", ["everyone", "peers"])
def test_the_placeholder_is_the_peers_own_key(entry):
    grant = {"allow": [{"bucket": "b", "prefixes": ["devices/${PeerKey}/"]}]}
    made = policy(everyone=grant) if entry == "everyone" else policy(peers=[{"public_key": key, **grant} for key in (A, B)])
    own = A.replace("+", "-").replace("/", "_").rstrip("=")
    assert not made.objection(A, put(f"devices/{own}/x"))
    assert made.objection(B, put(f"devices/{own}/x"))
    assert made.objection(A, put("devices/${PeerKey}/x"))
    assert made.objection("", put("devices//x"))


def test_an_entry_of_ones_own_replaces_everyones():
    everyone = {"allow": [{"bucket": "b"}]}
    for entry in ({"public_key": A, "allow": []}, {"public_key": A}):
        made = policy(peers=[entry], everyone=everyone)
        assert made.objection(A, put())
        assert not made.objection(B, put())


def test_plaintext_is_only_for_datagrams_without_a_key():
    made = policy(plaintext={"allow": [{"bucket": "b"}]})
    assert not made.objection("", put())
    assert made.objection(A, put())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (b"\xff", "not JSON"),
        ('{\n "peers": [\n}', r"peers.json, line 3 column 1.*not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"peers": [], "peers": []}', "twice"),
        ('{"peer": []}', "unknown key 'peer'"),
        ('{"peers": 3}', "peers is not a list"),
        ('{"peers": [{}]}', r"peers\[0\] has no public_key"),
        ('{"peers": [{"public_key": "AAAA"}]}', r"peers\[0\].public_key is not a WireGuard key"),
        ('{"peers": [{"public_key": 7}]}', r"peers\[0\].public_key is not a string"),
        (peer_with(preshared_key="x"), r"peers\[0\] has an unknown key 'preshared_key'"),
        (peer_with(legacy="yes"), r"peers\[0\].legacy is neither true nor false"),
        (peer_with({"prefixes": []}), r"peers\[0\].allow\[0\] has no bucket"),
        (peer_with({"bucket": ""}), r"allow\[0\].bucket"),
        (peer_with({"bucket": "Data/x"}), r"allow\[0\].bucket"),
        (peer_with({"bucket": "data", "prefixes": "cam/"}), r"allow\[0\].prefixes is not a list"),
        (peer_with({"bucket": "data", "prefixes": [1]}), r"allow\[0\].prefixes\[0\] is not a string"),
        (peer_with({"bucket": "data", "options": ["ACL"]}), r"allow\[0\].options has 'ACL'; known: .*Tagging"),
        (peer_with({"bucket": "data", "options": [[]]}), r"allow\[0\].options"),
        (json.dumps({"peers": [{"public_key": A}, {"public_key": A}]}), r"peers\[1\].public_key is also that of"),
        (json.dumps({"peers": [{"public_key": A, "name": "a"}, {"public_key": B, "name": "a"}]}), "'a' stands twice"),
        ('{"plaintext": {"public_key": ""}}', "plaintext has an unknown key"),
        ('{"plaintext": {"allow": [{"bucket": "b", "prefixes": ["${PeerKey}/"]}]}}', "plaintext.allow has"),
        ('{"everyone": {"allow": [{}]}}', r"everyone.allow\[0\] has no bucket"),
    ],
)
def test_mistakes_are_named(text, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        parse_policy(text, source="peers.json")
    assert "peers.json" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([A, "peers", "allow", "bucket"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["peers", "everyone", "public_key", "allow", "bucket", "prefixes", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_document_parses_or_is_a_config_error(document):
    try:
        parse_policy(json.dumps(document))
    except ConfigError:
        pass
