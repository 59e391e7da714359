"""`put_object` of stock boto3 over HTTPS. cold: a new client and connection for each put; warm: one client, its connection kept
alive.

Making the client is not timed (a program does it once), loading the CA bundle and connecting are: botocore does both at the
first call.
"""

from __future__ import annotations

import time
from typing import Any

import botocore.config
import botocore.session

from benchmarks.peers import BUCKET, REGION, Target, body_of


class Boto3Peer:
    """Stock botocore, its default configuration."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session = botocore.session.Session()
        self._client: Any = None

    def setup(self) -> None:
        """Load the S3 model; warm: connect."""
        self._client = self._new_client()
        if self._target.mode == "warm":
            self._put(1)

    def put(self, size_bytes: int) -> dict[str, float]:
        """One `put_object`."""
        if self._target.mode == "cold":
            self._client.close()
            self._client = self._new_client()
        body_of(size_bytes)
        start = time.monotonic()
        self._put(size_bytes)
        return {"seconds": time.monotonic() - start}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _new_client(self) -> Any:
        return self._session.create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self._target.url,
            verify=self._target.ca_file,
            config=botocore.config.Config(s3={"addressing_style": "path"}),
        )

    def _put(self, size_bytes: int) -> None:
        self._client.put_object(Bucket=BUCKET, Key=f"object-{size_bytes}", Body=body_of(size_bytes))


def create(target: Target) -> Boto3Peer:
    """Called by `benchmarks.peers.load`."""
    return Boto3Peer(target)
