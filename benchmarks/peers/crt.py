"""s3transfer's upload through the AWS Common Runtime (`preferred_transfer_client = crt`): the peer that needs no `Expect:
100-continue`.

cold: a new CRT client, hence a new connection, for each put; warm: one client, its connections pooled. Making the client is not
timed.
"""

from __future__ import annotations

import io
import time

import botocore.session
from s3transfer.crt import (
    BotocoreCRTCredentialsWrapper,
    BotocoreCRTRequestSerializer,
    CRTTransferManager,
    create_s3_crt_client,
)

from benchmarks.peers import BUCKET, REGION, Target, body_of


class CrtPeer:
    """What boto3's `upload_fileobj` does once it has chosen the CRT."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session = botocore.session.Session()
        self._manager: CRTTransferManager | None = None

    def setup(self) -> None:
        """Make the client; warm: connect."""
        self._serializer = BotocoreCRTRequestSerializer(self._session, {"region_name": REGION, "endpoint_url": self._target.url})
        wrapper = BotocoreCRTCredentialsWrapper(self._session.get_credentials())
        self._credentials = wrapper.to_crt_credentials_provider()
        if self._target.mode == "warm":
            self._manager = self._new_manager()
            self._upload(self._manager, 1)

    def put(self, size_bytes: int) -> dict[str, float]:
        """One upload, waited for."""
        manager = self._manager or self._new_manager()
        body_of(size_bytes)
        start = time.monotonic()
        self._upload(manager, size_bytes)
        return {"seconds": time.monotonic() - start}

    def close(self) -> None:
        """Drop the client."""
        self._manager = None

    def _new_manager(self) -> CRTTransferManager:
        client = create_s3_crt_client(
            region=REGION, crt_credentials_provider=self._credentials, verify=self._target.ca_file, num_threads=1
        )
        return CRTTransferManager(client, self._serializer)

    def _upload(self, manager: CRTTransferManager, size_bytes: int) -> None:
        manager.upload(io.BytesIO(body_of(size_bytes)), BUCKET, f"object-{size_bytes}").result()


def create(target: Target) -> CrtPeer:
    """Called by `benchmarks.peers.load`."""
    return CrtPeer(target)
