"""What the command line says, checked: every mistake is a ConfigError that names the option or the file.

Invariant: a Settings that exists can be built, but for what only the network knows (ports, AWS).
"""

from __future__ import annotations

import argparse
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from raptor_s3.errors import ConfigError
from raptor_s3.transfer.incoming import CollectorLimits
from raptor_s3.wireguard.keys import key_from_base64

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_PORT: Final = 51820
MIN_MEMORY: Final = 16 << 20
_MAX_OBJECT: Final = 64 << 20
_TOMBSTONE_BYTES: Final = 704
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TIME_UNITS: Final = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0}


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to listen on; `is_plaintext` is udp://, without WireGuard."""

    host: str
    port: int
    is_plaintext: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """One gateway. Exactly one of `sink`, `forward_lambda` and `forward_sqs` is set."""

    listen: tuple[Listen, ...]
    private_key: bytes | None = field(repr=False)
    peers_file: Path | None
    sink: str | None
    forward_lambda: str | None
    forward_sqs: str | None
    replies_queue: str | None
    legacy: tuple[str, str] | None
    endpoint_url: str | None
    region: str | None
    workers: int
    max_memory: int
    batch_count: int
    batch_delay_s: float
    stats_interval_s: float
    ready_file: Path | None

    def collector_limits(self) -> CollectorLimits:
        """A quarter of the memory for objects, whose octets are held up to three times on their way; a quarter for tombstones."""
        objects = self.max_memory // 4
        return CollectorLimits(
            max_object_bytes=min(_MAX_OBJECT, objects // 2),
            max_bytes_per_peer=objects // 2,
            max_bytes=objects,
            max_tombstones=self.max_memory // 4 // _TOMBSTONE_BYTES,
        )


def parse_listen(text: str, *, allow_plaintext: bool) -> Listen:
    """`HOST:PORT`, `[IPv6]:PORT`, with wg:// or udp:// in front; without either, udp:// only where plaintext is allowed."""
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme not in ("wg", "udp"):
        raise ConfigError(f"--listen {text}: {scheme}:// is neither wg:// nor udp://")
    is_plaintext = scheme == "udp" if separator else allow_plaintext
    if is_plaintext and not allow_plaintext:
        raise ConfigError(f"--listen {text}: udp:// is not encrypted; closed networks only, and only with --plaintext")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        if re.search(r":\d+$", rest):
            raise ConfigError(f"--listen {text}: a port is a number from 1 to 65535, or 0 for any") from None
        host, port = None, None
    if host is None or port is None or parts.netloc != rest or "@" in rest:
        raise ConfigError(f"--listen {text}: expected HOST:PORT, such as 0.0.0.0:{DEFAULT_PORT}")
    return Listen(host, port, is_plaintext)


def parse_size(text: str) -> int:
    """Octets: `268435456`, `256MB`. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d+)\s*([kmg]?)i?b?", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 256MB, got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def parse_seconds(text: str) -> float:
    """Seconds, above zero. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(ms|s|min|m|)", text.strip().lower())
    value = float(match[1]) * _TIME_UNITS[match[2]] if match else 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a time above zero such as 5s, 50ms or 1m, got {text!r}")
    return value


def parse_count(text: str) -> int:
    """A whole number above zero. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 10000, got {text!r}")
    return int(text)


def read_private_key(path: Path) -> bytes:
    """The base64 key in `path`. Raises ConfigError when it is missing, no key, or readable by others."""
    source = str(path)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(1024)
    except OSError as error:
        hint = f"; make one: raptor keygen {path}" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"can't read the private key: {error.strerror}{hint}", source=source) from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"others can read this private key (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}", source=source)
    try:
        return key_from_base64(content.decode("ascii"))
    except ValueError:
        raise ConfigError("holds no WireGuard key (32 octets in base64)", source=source) from None


def settings_from(args: argparse.Namespace) -> Settings:
    """Check what argparse has read. Raises ConfigError."""
    listen = tuple(parse_listen(text, allow_plaintext=args.plaintext) for text in args.listen or [f"0.0.0.0:{DEFAULT_PORT}"])
    is_tunnelled = any(not entry.is_plaintext for entry in listen)
    is_forwarding = bool(args.forward_lambda or args.forward_sqs)
    if is_tunnelled and args.private_key_file is None:
        raise ConfigError(
            "--private-key-file is missing: make a key with `raptor keygen FILE` and tell the devices its public key"
        )
    if (is_tunnelled or not is_forwarding) and args.peers_file is None:
        raise ConfigError("--peers-file is missing: without it nobody may write anything; an example: raptor gateway --help")
    if args.replies_queue and not is_forwarding:
        raise ConfigError("--replies-queue goes with --forward-lambda or --forward-sqs: a sink answers by itself")
    if args.forward_sqs and not args.replies_queue:
        raise ConfigError("--forward-sqs needs --replies-queue: the backend's answers come through it")
    if args.legacy_prefix and not args.legacy_bucket:
        raise ConfigError("--legacy-prefix goes with --legacy-bucket")
    if args.max_memory < MIN_MEMORY:
        raise ConfigError(f"--max-memory is below {MIN_MEMORY >> 20}MB")
    return Settings(
        listen=listen,
        private_key=read_private_key(args.private_key_file) if is_tunnelled else None,
        peers_file=args.peers_file,
        sink=None if is_forwarding else args.sink or "s3",
        forward_lambda=args.forward_lambda,
        forward_sqs=args.forward_sqs,
        replies_queue=args.replies_queue,
        legacy=(args.legacy_bucket, args.legacy_prefix or "") if args.legacy_bucket else None,
        endpoint_url=args.aws_endpoint_url,
        region=args.region,
        workers=args.workers,
        max_memory=args.max_memory,
        batch_count=args.batch_count,
        batch_delay_s=args.batch_delay,
        stats_interval_s=args.stats_interval,
        ready_file=args.ready_file,
    )
