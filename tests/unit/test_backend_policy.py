"""Who may write what: deny by default, whatever the document looks like."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.authorize import REFRESH_S, PolicyCache, parse_policy
from raptor_s3.errors import ConfigError

A, B = (base64.b64encode(bytes([n]) * 32).decode() for n in (250, 2))


def policy(**document):
    return parse_policy(json.dumps(document))


def put(key="k", bucket="b", **fields):
    return {"Bucket": bucket, "Key": key, **fields}


def test_nobody_may_anything_by_default():
    assert policy().objection(A, put())
    assert policy(peers=[{"public_key": A}]).objection(A, put())


def test_bucket_prefix_and_option_must_all_be_named_by_one_rule():
    rules = [
        {"bucket": "b", "prefixes": ["in/", "tmp/"]},
        {"bucket": "b", "prefixes": ["tagged/"], "options": ["Tagging"]},
        {"bucket": "log-*"},
    ]
    made = policy(peers=[{"public_key": A, "allow": rules}])
    assert not made.objection(A, put("in/x"))
    assert not made.objection(A, put("tmp/x"))
    assert not made.objection(A, put("x", "log-2026"))
    assert not made.objection(A, put("tagged/x", Tagging="a=b"))
    assert made.objection(A, put("x"))
    assert made.objection(A, put("in/x", Tagging="a=b"))
    assert made.objection(A, put("x", "logs"))
    assert made.objection(B, put("in/x"))
    assert made.objection("", put("in/x"))


def test_kms_needs_the_option_that_names_keys():
    without, having = (
        policy(peers=[{"public_key": A, "allow": [{"bucket": "b", "options": options}]}]) for options in ([], ["SSEKMSKeyId"])
    )
    assert not without.objection(A, put(ServerSideEncryption="AES256"))
    assert without.objection(A, put(ServerSideEncryption="aws:kms"))
    assert not having.objection(A, put(ServerSideEncryption="aws:kms", SSEKMSKeyId="k"))


def test_everyone_is_every_wireguard_peer_and_has_a_place_of_its_own():
    made = policy(everyone={"allow": [{"bucket": "b", "prefixes": ["devices/${PeerKey}/"]}]})
    own = A.replace("+", "-").replace("/", "_").rstrip("=")
    assert not made.objection(A, put(f"devices/{own}/x"))
    assert made.objection(B, put(f"devices/{own}/x"))
    assert made.objection("", put("devices//x"))


def test_an_entry_of_ones_own_replaces_everyones():
    made = policy(peers=[{"public_key": A, "allow": []}], everyone={"allow": [{"bucket": "b"}]})
    assert made.objection(A, put())
    assert not made.objection(B, put())


def test_plaintext_is_only_for_datagrams_without_a_key():
    made = policy(plaintext={"allow": [{"bucket": "b"}]})
    assert not made.objection("", put())
    assert made.objection(A, put())


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"peers": [{}]}', r"peers\[0\].public_key"),
        ('{"peers": [{"public_key": "AAAA"}]}', r"peers\[0\].public_key"),
        ('{"peers": 3}', "peers is not a list"),
        ('{"pears": []}', "unknown keys"),
        (f'{{"peers": [{{"public_key": "{A}"}}, {{"public_key": "{A}"}}]}}', "stands twice"),
        (f'{{"peers": [{{"public_key": "{A}", "preshared_key": "x"}}]}}', "unknown keys"),
        (f'{{"peers": [{{"public_key": "{A}", "allow": [{{}}]}}]}}', r"allow\[0\].bucket"),
        (f'{{"peers": [{{"public_key": "{A}", "allow": [{{"bucket": "b", "options": ["ACL"]}}]}}]}}', "options"),
        (f'{{"peers": [{{"public_key": "{A}", "legacy": "yes"}}]}}', "neither true nor false"),
        ('{"peers": [], "peers": []}', "stands twice"),
    ],
)
def test_mistakes_are_named(document, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse_policy(document)


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


def test_the_cache_keeps_the_last_good_policy_when_ssm_is_away():
    now, texts, reports = [0.0], [json.dumps({"everyone": {"allow": [{"bucket": "b"}]}})], []

    def read():
        if not texts:
            raise OSError("no SSM")
        return texts.pop()

    cache = PolicyCache(read, lambda: now[0], reports.append)
    assert not cache.get().objection(A, put())
    now[0] += REFRESH_S
    assert not cache.get().objection(A, put())
    assert "no SSM" in reports[0]
    now[0] += REFRESH_S
    texts.append("{")
    assert cache.get().objection(A, put())


def test_without_ever_a_policy_the_work_waits():
    def read():
        raise OSError("no SSM")

    with pytest.raises(OSError):
        PolicyCache(read, lambda: 0.0, print).get()
