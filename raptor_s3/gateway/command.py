"""`raptor gateway`: the command line, the parts put together, signals, and the file that says where it listens.

    SIGTERM, SIGINT   finish what is at hand, answer, exit 0        SIGHUP   read the peers file again

Invariant: the ready file exists only while the gateway listens.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raptor_s3.errors import ConfigError
from raptor_s3.gateway import settings as options
from raptor_s3.gateway.log_throttle import Throttle
from raptor_s3.gateway.settings import DEFAULT_PORT, settings_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from raptor_s3.gateway.assembly import Gateway

_log = logging.getLogger(__name__)

CLIENTS: Final = 3
"""Of S3, each with as many connections as there are workers (`assembly`)."""
SPARE_DESCRIPTORS: Final = 64

DESCRIPTION: Final = """\
Receive objects over WireGuard and write them to S3, or forward them to the serverless backend.

    devices ~~~ WireGuard, UDP ~~~> raptor gateway ---> S3                      --sink s3 (the default)
                                                   \\--> Lambda or SQS, backend  --forward-lambda, --forward-sqs
"""

EPILOG: Final = """\
example:
  raptor keygen gateway.key                       # prints the public key: the devices' server_key
  cat > peers.json <<END
  {"peers": [{"name": "camera-7", "public_key": "<camera 7's public key>",
              "allow": [{"bucket": "telemetry", "prefixes": ["camera-7/"]}]}]}
  END
  raptor gateway --listen 0.0.0.0:51820 --private-key-file gateway.key --peers-file peers.json

AWS credentials come from where boto3 finds them; a device needs none. What a peer is not allowed, it may not do.
SIGHUP reads the peers file again; SIGTERM finishes the writes at hand and exits 0.
More: docs/gateway.md, https://github.com/raptor-s3/raptor-s3/blob/main/docs/gateway.md
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Teach `parser` the options of `raptor gateway`."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter

    net = parser.add_argument_group("where it listens, and to whom")
    net.add_argument(
        "--listen",
        action="append",
        metavar="[wg://|udp://]HOST:PORT",
        help="UDP address, with wg:// (WireGuard) or udp:// (not encrypted; needs --plaintext) in front; without either it is "
        f"wg://, with --plaintext udp://; may be given several times; port 0: any (default: 0.0.0.0:{DEFAULT_PORT})",
    )
    net.add_argument("--private-key-file", type=Path, metavar="FILE", help="the gateway's WireGuard key; 0600 or refused")
    net.add_argument("--peers-file", type=Path, metavar="FILE", help="JSON: public keys, and what each may write")
    net.add_argument("--plaintext", action="store_true",
                     help="allow udp://, without encryption, for tests and closed networks only; a --listen without a scheme "
                          "is then udp://")  # fmt: skip

    out = parser.add_argument_group("where objects go")
    way = out.add_mutually_exclusive_group()
    way.add_argument(
        "--sink", choices=("s3", "null"), help="write to S3 (default), or confirm and store nothing, for tries and benchmarks"
    )
    way.add_argument("--forward-lambda", metavar="NAME_OR_ARN", help="invoke the backend's ingestor with batches of datagrams")
    way.add_argument("--forward-sqs", metavar="URL", help="send each datagram to the ingestor's queue")
    out.add_argument("--replies-queue", metavar="URL", help="SQS queue that is subscribed to the backend's reply topic")
    out.add_argument("--legacy-bucket", metavar="BUCKET", help="for objects without a put header (the published raptor CLI's)")
    out.add_argument("--legacy-prefix", metavar="PREFIX", help="in front of their paths")
    out.add_argument("--region", help="AWS region (default: boto3's)")
    out.add_argument("--aws-endpoint-url", metavar="URL", help="another AWS, such as a local one")

    bounds = parser.add_argument_group("bounds")
    bounds.add_argument("--workers", type=options.parse_count, default=16, metavar="N", help="AWS calls at a time (default: 16)")
    bounds.add_argument(
        "--max-memory",
        type=options.parse_size,
        default=256 << 20,
        metavar="SIZE",
        help="for objects and datagrams under way; more is dropped and counted (default: 256MB)",
    )
    bounds.add_argument(
        "--batch-count",
        type=options.parse_count,
        default=1000,
        metavar="N",
        help="datagrams in one invocation at most (default: 1000)",
    )
    bounds.add_argument("--batch-delay", type=options.parse_seconds, default=0.05, metavar="TIME",
                        help="how long a datagram waits for the rest of its object (default: 50ms)")  # fmt: skip

    watch = parser.add_argument_group("watching it")
    watch.add_argument(
        "--stats-interval",
        type=options.parse_seconds,
        default=60.0,
        metavar="TIME",
        help="log the counters this often, such as 30s or 5m (default: 60s)",
    )
    watch.add_argument("--ready-file", type=Path, metavar="FILE", help="write the bound address here, as JSON, when listening")
    watch.add_argument("--verbose", action="store_true", help="log every refusal and retry")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; 0. Raises ConfigError when it can't start."""
    from raptor_s3.gateway.assembly import Gateway  # boto3 comes with it; --help need not pay for that

    _log_to_stderr(is_verbose=args.verbose)
    settings = settings_from(args)
    _allow_descriptors(settings.workers)
    gateway = Gateway(settings)
    relax_garbage_collector()
    if settings.sink == "null":
        _log.warning("--sink null: objects are confirmed as if S3 had them, and NOTHING IS STORED")
    with _ready_file(settings.ready_file, gateway), _signals(gateway):
        gateway.server.run()
    _log.info("stopped: %s", gateway.server.stats_line())
    return 0


def main(argv: list[str] | None = None) -> int:
    """`python -m raptor_s3.gateway`."""
    parser = argparse.ArgumentParser(prog="raptor gateway", allow_abbrev=False)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except ConfigError as error:
        print(f"raptor gateway: {error}", file=sys.stderr)
        return 2


def relax_garbage_collector() -> None:
    """Tombstones make a large heap without cycles; looking for cycles in it takes a fifth of the time of small objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1_000)


def _log_to_stderr(*, is_verbose: bool) -> None:
    logging.getLogger("raptor_s3").setLevel(logging.DEBUG if is_verbose else logging.INFO)
    if logging.getLogger().hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Throttle(logging.WARNING if is_verbose else logging.NOTSET))
    logging.getLogger().addHandler(handler)


def _allow_descriptors(workers: int) -> None:
    """Raise the limit as far as that is allowed. Raises ConfigError where `workers` would not have enough all the same."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = CLIENTS * workers + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            raise ConfigError(f"--workers {workers} may need {wanted} file descriptors, and {soft} are allowed: see ulimit -n")


@contextlib.contextmanager
def _ready_file(path: Path | None, gateway: Gateway) -> Iterator[None]:
    described = gateway.describe()
    _log.info("listening on %s, public key %s", ", ".join(described["urls"]), described["public_key"])
    if path is None:
        yield
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(described) + "\n")
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"--ready-file: {error.strerror}", source=str(path)) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _signals(gateway: Gateway) -> Iterator[None]:
    """Handlers run in the main thread, which is the loop's; the wakeup descriptor ends its wait."""
    handlers: dict[int, Callable[[], None]] = {signal.SIGTERM: gateway.server.stop, signal.SIGINT: gateway.server.stop}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = lambda: gateway.server.call(gateway.reload_peers)
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        signal.signal(number, lambda *_, handler=handler: handler())
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
