"""The backend's policy: a document that SSM may not give, or that may be wrong."""

from __future__ import annotations

import base64
import json

import pytest

from backend.authorize import REFRESH_S, PolicyCache

A = base64.b64encode(bytes([250]) * 32).decode()


def put():
    return {"Bucket": "b", "Key": "k"}


@pytest.mark.parametrize(
    "document",
    [
        '{"everyone": {"allow": [{"bucket": "b"}]}, "pears": []}',
        json.dumps({"peers": [{"public_key": A, "allow": [{"bucket": "b"}], "preshared_key": A}]}),
    ],
)
def test_a_document_with_a_mistake_or_a_secret_allows_nothing(document):
    reports = []
    assert PolicyCache(lambda: document, lambda: 0.0, reports.append).get().objection(A, put())
    assert "unknown key" in reports[0]
    assert A not in reports[0]


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
