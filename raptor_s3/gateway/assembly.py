"""A gateway from its Settings: endpoints, WireGuard, and direct or forward mode behind them.

Invariant: a Gateway that exists is bound and can be run; whatever stands in the way is a ConfigError.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError

from raptor_s3.errors import ConfigError
from raptor_s3.gateway.aws import make_client
from raptor_s3.gateway.direct import DirectReceiver
from raptor_s3.gateway.endpoint import Endpoint
from raptor_s3.gateway.forward import Forwarder, LambdaDestination, SqsDestination
from raptor_s3.gateway.null import NullSink
from raptor_s3.gateway.peers import Peers, load_peers
from raptor_s3.gateway.replies import ReplyQueue
from raptor_s3.gateway.s3 import S3Sink
from raptor_s3.gateway.server import Server
from raptor_s3.gateway.stats import Stats
from raptor_s3.net import clock
from raptor_s3.transfer.incoming import Collector
from raptor_s3.wireguard.keys import key_to_base64
from raptor_s3.wireguard.listener import Listener

if TYPE_CHECKING:
    from raptor_s3.gateway.settings import Settings
    from raptor_s3.gateway.sink import Sink

_log = logging.getLogger(__name__)

AWS_READ_TIMEOUT_S: Final = 10
HASTY_READ_TIMEOUTS_S: Final = (1, 3)
"""Of S3 clients for puts with little time left."""
LAMBDA_READ_TIMEOUT_S: Final = 60
MAX_WAITING_WRITES: Final = 16_384
"""Four peers' worth of CollectorLimits.max_transfers_per_peer; their bytes are bounded by the Collector."""


class Gateway:
    """The parts of one gateway. `server.run()` serves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._peers = load_peers(settings.peers_file) if settings.peers_file else Peers()
        self._direct: DirectReceiver | None = None
        self.stats = Stats()
        self.listener: Listener | None = None
        if settings.private_key is not None:
            self.listener = Listener(settings.private_key, self._peers.tunnelled, random=os.urandom)
        self.endpoints = [
            Endpoint(entry.host, entry.port, is_plaintext=entry.is_plaintext, stats=self.stats) for entry in settings.listen
        ]
        self.server = Server(self.endpoints, self.listener, self.stats, stats_interval_s=settings.stats_interval_s)
        if settings.sink:
            self._write_to(settings)
        else:
            self._forward_to(settings)

    def reload_peers(self) -> None:
        """Read the peers file again; with a mistake in it, the peers stay as they are."""
        if self._settings.peers_file is None:
            return
        try:
            self._peers = load_peers(self._settings.peers_file)
        except ConfigError as error:
            _log.error("peers not reloaded: %s", error)
            return
        if self.listener is not None:
            self.listener.set_peers(self._peers.tunnelled)
        if self._direct is not None:
            self._direct.policy = self._peers.policy
        _log.info("%d peers", len(self._peers.tunnelled))

    def describe(self) -> dict[str, Any]:
        """What the ready file says; `host`, `port` and `url` are those of the first --listen."""
        first = self.endpoints[0]
        return {
            "host": first.host,
            "port": first.port,
            "url": first.url,
            "urls": [endpoint.url for endpoint in self.endpoints],
            "public_key": key_to_base64(self.listener.public_key) if self.listener else None,
            "pid": os.getpid(),
        }

    def _write_to(self, settings: Settings) -> None:
        sink: Sink = NullSink()
        if settings.sink == "s3":
            client = _client("s3", settings, AWS_READ_TIMEOUT_S)
            hasty = [(timeout_s, _client("s3", settings, timeout_s)) for timeout_s in HASTY_READ_TIMEOUTS_S]
            sink = S3Sink(client, self.server.completions, workers=settings.workers, limit=MAX_WAITING_WRITES, hasty=hasty)
        self._direct = DirectReceiver(
            Collector(settings.collector_limits()),
            sink,
            self._peers.policy,
            self.stats,
            send=self.server.send,
            clock=clock.now,
            legacy=settings.legacy,
        )
        self.server.attach(self._direct)
        if self._peers.policy.plaintext is None and any(entry.is_plaintext for entry in settings.listen):
            _log.warning('nobody may write anything over udp://: %s has no "plaintext"', settings.peers_file)

    def _forward_to(self, settings: Settings) -> None:
        destination: LambdaDestination | SqsDestination
        if settings.forward_lambda:
            client = _client("lambda", settings, LAMBDA_READ_TIMEOUT_S)
            destination = LambdaDestination(client, settings.forward_lambda, max_count=settings.batch_count)
        else:
            client = _client("sqs", settings, AWS_READ_TIMEOUT_S)
            destination = SqsDestination(client, settings.forward_sqs or "")
        region: str = client.meta.region_name
        forwarder = Forwarder(
            destination,
            self.server.completions,
            self.stats,
            send=self.server.send,
            region=region,
            local=(self.endpoints[0].host, self.endpoints[0].port),
            workers=settings.workers,
            delay_s=settings.batch_delay_s,
            max_memory=settings.max_memory,
        )
        self.server.attach(forwarder)
        if settings.replies_queue:
            ReplyQueue(
                _client("sqs", settings, AWS_READ_TIMEOUT_S + ReplyQueue.WAIT_S),
                settings.replies_queue,
                self.server.completions,
                region=region,
                deliver=forwarder.deliver_packet,
                count_dropped=forwarder.count_unroutable,
            )


def _client(service: str, settings: Settings, read_timeout_s: int) -> Any:
    try:
        return make_client(
            service,
            region=settings.region,
            endpoint_url=settings.endpoint_url,
            connections=settings.workers,
            read_timeout_s=read_timeout_s,
        )
    except (BotoCoreError, ValueError) as error:  # no region, a malformed URL
        raise ConfigError(f"AWS {service}: {error}") from None
