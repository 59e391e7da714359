"""boto3 clients for the gateway: without retries of their own, and without raptor-s3's own plugin.

Invariant: no AWS call of the gateway can end up at a gateway.
"""

from __future__ import annotations

import os
from typing import Any, Final

from raptor_s3.receiver.s3_client import guard

CONNECT_TIMEOUT_S: Final = 3


def make_client(service: str, *, region: str | None, endpoint_url: str | None, connections: int, read_timeout_s: int) -> Any:
    """A boto3 client without retries of its own, and without raptor-s3's plugin, which would send its puts back to us."""
    import boto3  # half a second of CPU that --help need not pay
    import botocore.session
    from botocore.config import Config

    from raptor_s3.gateway.late_credentials import look_for_late_ones

    disable_plugin()
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=connections,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        tcp_keepalive=True,
    )
    session = botocore.session.get_session()
    look_for_late_ones(session)
    client = boto3.session.Session(botocore_session=session).client(
        service, region_name=region, endpoint_url=endpoint_url, config=config
    )
    if service == "s3":
        guard(client)
    return client


def disable_plugin() -> None:
    """Take raptor-s3 out of BOTOCORE_EXPERIMENTAL__PLUGINS for this process."""
    name = "BOTOCORE_EXPERIMENTAL__PLUGINS"
    plugins = [plugin for plugin in os.environ.get(name, "").split(",") if plugin]
    others = [plugin for plugin in plugins if not plugin.partition("=")[2].strip().startswith("raptor_s3")]
    if others:
        os.environ[name] = ",".join(others)
    else:
        os.environ.pop(name, None)
