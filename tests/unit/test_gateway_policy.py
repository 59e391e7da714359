"""The peers file, and what it allows: deny by default, complaints that say where."""

from __future__ import annotations

import base64
import json

import pytest

from raptor_s3.errors import ConfigError
from raptor_s3.gateway.policy import load_peers, parse_peers

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(32)).decode()


def peers_with(*rules: dict, **more) -> str:
    return json.dumps({"peers": [{"name": "cam", "public_key": KEY, "allow": list(rules), **more}]})


def objection(rules: list[dict], **parameters) -> str:
    peer = parse_peers(peers_with(*rules), source="peers.json")[bytes(range(32))]
    return peer.objection({"Bucket": "data", "Key": "cam/1", **parameters})


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
def test_a_put_needs_a_rule_that_names_it(rules, parameters, is_allowed):
    assert (objection(rules, **parameters) == "") is is_allowed


def test_a_bucket_name_made_to_make_patterns_slow_is_just_refused():
    assert objection([{"bucket": "a*a*a*a*a*a*a*a*a*a*a*a*a*b"}], Bucket="a" * 60_000)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "the file is not a JSON object"),
        ('{\n "peers": [\n}', r"peers.json, line 3 column 1.*not JSON"),
        ('{"peers": [], "peers": []}', "twice"),
        ('{"peer": []}', "unknown key 'peer'"),
        ('{"peers": {}}', "peers is not a list"),
        ('{"peers": [{}]}', r"peers\[0\] has no public_key"),
        ('{"peers": [{"public_key": "abc"}]}', r"peers\[0\].public_key is not a WireGuard key"),
        ('{"peers": [{"public_key": 7}]}', r"peers\[0\].public_key is not a string"),
        (peers_with(preshared_key="x"), r"peers\[0\].preshared_key"),
        (peers_with(legacy="yes"), r"peers\[0\].legacy is neither true nor false"),
        (peers_with({"prefixes": []}), r"peers\[0\].allow\[0\] has no bucket"),
        (peers_with({"bucket": "Data/x"}), r"allow\[0\].bucket"),
        (peers_with({"bucket": "data", "prefixes": "cam/"}), r"allow\[0\].prefixes is not a list"),
        (peers_with({"bucket": "data", "options": ["ACL"]}), r"allow\[0\].options has 'ACL'; known: .*Tagging"),
        (peers_with({"bucket": "data", "options": [[]]}), r"allow\[0\].options"),
        (json.dumps({"peers": [{"public_key": KEY}, {"public_key": KEY}]}), r"peers\[1\].public_key is also that of"),
        (json.dumps({"peers": [{"public_key": KEY, "name": "a"}, {"public_key": OTHER, "name": "a"}]}), "'a' stands twice"),
        ('{"plaintext": {"public_key": ""}}', "plaintext has an unknown key"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_mistakes_are_named(text, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        parse_peers(text, source="peers.json")
    assert "peers.json" in str(caught.value)


def test_plaintext_is_a_peer_of_its_own():
    peers = parse_peers(json.dumps({"peers": [{"public_key": KEY}], "plaintext": {"allow": [{"bucket": "b"}]}}), source="")
    assert peers.plaintext is not None
    assert not peers.plaintext.objection({"Bucket": "b", "Key": "k"})
    assert list(peers.tunnelled()) == [bytes(range(32))]


def test_secrets_are_neither_shown_nor_read_from_an_open_file(tmp_path):
    path = tmp_path / "peers.json"
    path.write_text(peers_with(preshared_key=OTHER))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_peers(path)
    path.chmod(0o600)
    (peer,) = load_peers(path).values()
    assert peer.preshared_key == bytes(32)
    assert "preshared" not in repr(peer)


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.json: can't read the peers file"):
        load_peers(tmp_path / "absent.json")
