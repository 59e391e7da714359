"""Objects of several blocks and of many datagrams through ingestor and completer, on moto."""

from __future__ import annotations

import hashlib
import json

import pytest
from backend_rig import BUCKET, Sender, rig, states

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


def md5(body: bytes) -> str:
    import base64

    return base64.b64encode(hashlib.md5(body).digest()).decode()


class TestLargeObjects:
    def test_blocks_are_staged_and_joined(self, backend):
        body = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(6 * 32768))
        assert len(body) == 6 << 20
        sender = Sender(body, fields={"ContentType": "x/y", "ContentMD5": md5(body)}, ttl_ms=60_000)
        datagrams = sender.source()
        seen = []
        for start in range(0, len(datagrams), 700):
            seen += states(backend.deliver(datagrams[start : start + 700]))
        final = states(backend.complete())
        assert [state.type for state in final[:-1]] == [StateType.BLOCK_COMPLETE] * (sender.oti.source_blocks - 1)
        assert final[-1].type is StateType.COMPLETE
        assert backend.object() == body
        assert backend.s3.head_object(Bucket=BUCKET, Key="in/file")["ContentType"] == "x/y"
        staged = backend.s3.list_objects_v2(Bucket="staging").get("Contents", [])
        assert not [entry["Key"] for entry in staged if "/blocks/" in entry["Key"]]
        # symbols of large objects do not go into the table
        assert max(len(json.dumps(item, default=str)) for item in backend.dynamodb.scan(TableName="inflight")["Items"]) < 20_000

    def test_a_wrong_body_is_not_joined(self, backend):
        body = bytes(6 << 20)
        sender = Sender(body, fields={"ChecksumCRC32": "AAAAAA=="}, ttl_ms=60_000)
        datagrams = sender.source()
        for start in range(0, len(datagrams), 2000):
            backend.deliver(datagrams[start : start + 2000])
        final = states(backend.complete())
        assert final[-1].fields["Code"] == "BadDigest"
        assert backend.object() is None
        assert "Uploads" not in backend.s3.list_multipart_uploads(Bucket=BUCKET)

    def test_a_joiner_that_died_is_followed_by_another(self, backend):
        body = bytes(6 << 20)
        sender = Sender(body, ttl_ms=600_000)
        datagrams = sender.source()
        for start in range(0, len(datagrams), 2000):
            backend.deliver(datagrams[start : start + 2000])
        delivery = backend.runtime.completion._delivery
        real, delivery.join = delivery.join, None
        with pytest.raises(TypeError):
            backend.complete()
        delivery.join = real
        backend.pending.clear()
        assert only(backend.deliver([sender.datagram(5000)])).type is StateType.BLOCK_COMPLETE
        assert only(backend.complete()).type is StateType.COMPLETE
        assert backend.object() == body
