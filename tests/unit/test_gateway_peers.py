"""The peers file: the policy, plus secrets that are neither shown nor read from an open file."""

from __future__ import annotations

import base64
import json
import logging

import pytest

from raptor_s3.errors import ConfigError
from raptor_s3.gateway.peers import load_peers, parse_peers

PUBLIC, SECRET = bytes(range(32)), bytes([7]) * 32
KEY, OTHER = (base64.b64encode(key).decode() for key in (PUBLIC, SECRET))
PUT = {"Bucket": "b", "Key": "k"}


def peers_with(**more) -> str:
    return json.dumps({"peers": [{"name": "cam", "public_key": KEY, "allow": [{"bucket": "b"}], **more}]})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "not a JSON object"),
        ('{"peers": {}}', "peers is not a list"),
        ('{"peers": [7]}', r"peers\[0\] is not a JSON object"),
        (peers_with(preshared_key="x"), r"peers\[0\].preshared_key is not a WireGuard key"),
        (peers_with(preshared_key=7), r"peers\[0\].preshared_key is not a WireGuard key"),
        ('{"plaintext": {"preshared_key": "x"}}', "plaintext has an unknown key"),
        (peers_with(presharedkey=OTHER), r"unknown key 'presharedkey' \(known: allow, legacy, name, preshared_key, public_key\)"),
    ],
)
def test_mistakes_are_named(text, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        parse_peers(text, source="peers.json")
    assert "peers.json" in str(caught.value)


def test_each_preshared_key_stays_with_its_peer():
    document = {"peers": [{"public_key": OTHER}, {"public_key": KEY, "preshared_key": OTHER, "allow": [{"bucket": "b"}]}]}
    peers = parse_peers(json.dumps(document), source="")
    assert {key: config.preshared_key for key, config in peers.tunnelled.items()} == {SECRET: None, PUBLIC: SECRET}
    assert not peers.policy.objection(KEY, PUT)
    assert peers.policy.objection(OTHER, PUT)


def test_plaintext_shakes_no_hands():
    peers = parse_peers(json.dumps({"peers": [{"public_key": KEY}], "plaintext": {"allow": [{"bucket": "b"}]}}), source="")
    assert not peers.policy.objection("", PUT)
    assert list(peers.tunnelled) == [PUBLIC]


def test_everyone_is_no_way_in_for_a_peer_whose_entry_was_removed(caplog):
    with caplog.at_level(logging.WARNING):
        peers = parse_peers(json.dumps({"everyone": {"allow": [{"bucket": "b"}]}}), source="peers.json")
    assert peers.policy.objection(KEY, PUT)
    assert '"everyone" grants nothing' in caplog.text


def test_secrets_are_neither_shown_nor_read_from_an_open_file(tmp_path):
    path = tmp_path / "peers.json"
    path.write_text(peers_with(preshared_key=OTHER))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_peers(path)
    path.chmod(0o600)
    peers = load_peers(path)
    assert peers.tunnelled[PUBLIC].preshared_key == SECRET
    assert "preshared" not in repr(peers)


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.json: can't read the peers file"):
        load_peers(tmp_path / "absent.json")
