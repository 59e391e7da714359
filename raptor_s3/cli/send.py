"""`raptor FILE_OR_FOLDER DESTINATION`: files through the engine, many in flight, a line or a bar for what became of each.

    s3://bucket/key   with a put header, over the profile's endpoint; the answer carries S3's ETag
    wg://host:port    as the published CLI sends: a timestamped relative path for a name, RFC 5053's degrees, no put header

Invariant: of file content a Window and one more file are in memory, and exit code 0 means that every file was confirmed as
`--confirm` asks.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from raptor_s3.cli.destination import Bucket, Receiver, Upload, list_uploads, parse_destination, timestamp_prefix
from raptor_s3.cli.options import EXIT_FAILED, EXIT_OK, JSON, PROFILE, Option, UsageError, Verb
from raptor_s3.cli.profile import no_endpoint
from raptor_s3.cli.window import SLOW_LINK_BPS
from raptor_s3.errors import ConfigError
from raptor_s3.routing.parsers import parse_duration, parse_pause

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from concurrent.futures import Future

    from raptor_s3.cli.output import Output
    from raptor_s3.net.engine import Engine, PutOutcome
    from raptor_s3.routing.config import RaptorConfig

CONFIRMATIONS = ("none", "any", "packets", "block", "file")


def run(args: argparse.Namespace, output: Output) -> int:
    destination = parse_destination(args.destination)
    _warn_about_secrets(args, output)
    prefix = timestamp_prefix(time.time()) if isinstance(destination, Receiver) and not args.no_prefix else ""
    uploads = list(list_uploads(args.source, destination, recursive=args.recursive, prefix=prefix, warn=output.warn))
    if not uploads:
        hint = "" if args.recursive else "; to send what its folders hold: --recursive"
        raise UsageError(f"{args.source} holds no file to send{hint}")
    config = load_config(args, destination)
    from raptor_s3.cli.aftermath import Aftermath
    from raptor_s3.cli.report import Report
    from raptor_s3.cli.transfer import Transfer
    from raptor_s3.net.engine import Engine
    from raptor_s3.routing.endpoint import breaker_for, journal_for

    engine = Engine.for_endpoint(config.endpoint_settings())
    sender = Sender(engine, destination, config, args)
    with Report(output, destination, uploads) as report:
        aftermath = Aftermath(engine, destination, report, journal_for(config), breaker_for(config))
        Transfer(sender, report, aftermath).run(uploads)
    return EXIT_FAILED if report.failed else EXIT_OK


class Sender:
    """Turns an upload and its content into a put on the engine."""

    def __init__(self, engine: Engine, destination: Bucket | Receiver, config: RaptorConfig, args: argparse.Namespace) -> None:
        self._engine = engine
        self._destination = destination
        self._timeout_s: float | None = args.timeout
        self._config = config
        default = config.confirm if isinstance(destination, Bucket) else "packets"
        self.confirm = "none" if args.block_timeout == 0 else args.confirm or default
        self._content_type: str | None = args.content_type
        self._metadata: dict[str, str] | None = args.metadata

    def submit(self, upload: Upload, body: bytes, wait_s: float) -> Future[PutOutcome]:
        """`wait_s`: how long it may wait for others. Raises ValueError for a body or a name that is too long to be coded."""
        timeout_s = wait_s + self.patience_s(len(body))
        if isinstance(self._destination, Receiver):
            return self._engine.submit(None, body, timeout_s=timeout_s, confirm=self.confirm, object_id=upload.name)
        fields = self.fields(self._destination, upload, body)
        return self._engine.submit(fields, body, timeout_s=timeout_s, confirm=self.confirm)

    def patience_s(self, size_bytes: int) -> float:
        """How long a file may take when nothing else is under way."""
        return self._timeout_s or self._config.timeout_s + size_bytes * 8 / SLOW_LINK_BPS

    def fields(self, bucket: Bucket, upload: Upload, body: bytes) -> dict[str, Any]:
        """The PutObject parameters of this upload."""
        from raptor_s3.wire.put_header import crc32_field

        fields: dict[str, Any] = {"Bucket": bucket.name, "Key": upload.name, "ChecksumCRC32": crc32_field(body)}
        content_type = self._content_type or _guess_content_type(upload.name)
        if content_type:
            fields["ContentType"] = content_type
        if self._metadata:
            fields["Metadata"] = self._metadata
        return fields


def load_config(args: argparse.Namespace, destination: Bucket | Receiver) -> RaptorConfig:
    """The settings for this destination: the profile's for S3, the command line's and the environment's for a receiver.

    A receiver that is the profile's own endpoint also gets the profile's keys. Raises ConfigError and UsageError.
    """
    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.profile import read_profile

    profile = read_profile(name=args.profile)
    given = {"server_key": args.server_key, "client_key": args.client_key, "client_key_file": args.client_key_file}
    given |= {"overhead": args.overhead, "rate_mbps": args.rate_mbps, "code": args.code}
    overrides: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if isinstance(destination, Bucket):
        with _blaming_options():
            config = RaptorConfig.load(
                profile.scoped_config, overrides=overrides, source=profile.source, services=profile.services
            )
        if config.endpoint is None:
            raise no_endpoint(profile, instead=", or name a receiver: raptor FILE wg://HOST:PORT")
        return config
    section = profile.scoped_config.get("raptor")
    own = section.get("endpoint", "") if isinstance(section, dict) else ""
    overrides["endpoint"] = destination.url
    overrides.setdefault("code", "published")
    if not destination.is_encrypted:
        overrides["allow_plaintext"] = True  # the destination was named, and says what it is
    if own == destination.url:
        with _blaming_options():
            return RaptorConfig.load({"raptor": section}, overrides=overrides, source=profile.source)
    with _blaming_options(f". Keys in {profile.source} are for {own} only" if own else ""):
        return RaptorConfig.load({}, overrides=overrides, source="")


@contextlib.contextmanager
def _blaming_options(remark: str = "") -> Iterator[None]:
    """A ConfigError of an option's value, or of what has no source at all, as a UsageError that names the option."""
    from raptor_s3.routing.config import KEYWORDS_SOURCE

    try:
        yield
    except ConfigError as error:
        option = "DESTINATION" if error.key == "endpoint" else f"--{error.key.replace('_', '-')}"
        if error.source == KEYWORDS_SOURCE:
            raise UsageError(f"{option}: {error.message}") from None
        if error.key and not error.source:
            variable = f"RAPTOR_{error.key.upper()}"
            raise UsageError(f"{option} (or {variable}) is {error.message}{remark}") from None
        raise


def confirmation(text: str) -> str:
    """The weakest of the confirmations in `text`, such as `file` or the published CLI's `PACKETS|BLOCK`, in lower case."""
    names = [name.strip().lower() for name in text.replace(",", "|").split("|")]
    for name in names:
        if name not in CONFIRMATIONS:
            raise ValueError(f"expected one of {', '.join(CONFIRMATIONS)}, got {text!r}")
    return min(("packets" if name == "any" else name for name in names), key=CONFIRMATIONS.index)


def metadata(text: str) -> dict[str, str]:
    """`{"a": "1", "b": "2"}` from `a=1,b=2`, as `aws s3 cp --metadata` takes it."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and separator for name, separator, _ in pairs):
        raise ValueError(f"expected NAME=VALUE,NAME=VALUE, got {text!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _warn_about_secrets(args: argparse.Namespace, output: Output) -> None:
    if args.client_key is not None:
        output.warn(
            "--client-key shows the private key to everyone who can list this machine's processes: "
            "use --client-key-file or RAPTOR_CLIENT_KEY"
        )


def _guess_content_type(name: str) -> str | None:
    import mimetypes

    return mimetypes.guess_type(name)[0]


VERB = Verb(
    name="send",
    summary="send files",
    opening=(
        "Sends a file, or the files of a folder, to S3 through the endpoint of the profile (s3://), or to a receiver (wg://, "
        "udp://) as the published raptor CLI does. Many files are in flight at once. Exit code: 0 all confirmed, 1 some failed, "
        "2 wrong usage or settings."
    ),
    options=(
        Option("source", "A file, a folder, or - for standard input.", "FILE_OR_FOLDER", is_positional=True, is_required=True),
        Option(
            "destination",
            "s3://BUCKET/KEY, wg://HOST:PORT or udp://HOST:PORT.",
            "DESTINATION",
            is_positional=True,
            is_required=True,
        ),
        Option("recursive", "Of a folder, send its subfolders, too.", is_switch=True, default=False),
        Option("server-key", "The receiver's public key.", "BASE64"),
        Option("client-key-file", "File with this device's private key; see raptor keygen.", "FILE"),
        Option("client-key", "The private key itself. Others can see it: prefer the file, or RAPTOR_CLIENT_KEY.", "BASE64"),
        Option(
            "confirm",
            "Wait for none, any, packets, block or file (the object is in S3). Default: any for wg://, for s3:// the setting "
            "confirm (file).",
            "WHAT",
            parse=confirmation,
        ),
        Option(
            "timeout",
            "How long a file may take, such as 30s, beside 8 s for each MB that goes before it.",
            "TIME",
            parse=parse_duration,
        ),
        Option("overhead", "Fraction of repair symbols in the first flight, such as 0.05; else by measured loss.", "NUMBER"),
        Option("rate-mbps", "Never send faster than this; else start at 10 and follow the link.", "NUMBER"),
        Option(
            "block-timeout",
            "0: do not wait for confirmations. Other values: accepted; repair is timed by the measured round trip.",
            "TIME",
            parse=parse_pause,
        ),
        Option(
            "no-prefix",
            "At wg://, name objects by their relative path, without a timestamp in front.",
            is_switch=True,
            default=False,
        ),
        Option(
            "code",
            "published: RFC 5053's degrees, for the published backend (default for wg://); rfc6330 for s3://.",
            choices=("rfc6330", "published"),
        ),
        Option("content-type", "At s3://, the objects' type; else guessed from the name.", "TYPE"),
        Option("metadata", "At s3://, the objects' metadata.", "NAME=VALUE,...", parse=metadata),
        PROFILE,
        Option("verbose", "Say how each file was cut and sent.", is_switch=True, default=False),
        Option("silent", "Print nothing but usage errors.", is_switch=True, default=False),
        JSON,
    ),
    run=run,
    examples=(
        ("photo.jpg s3://my-bucket/2026/photo.jpg", "one object; prints its ETag"),
        ("./photos s3://my-bucket/2026 --recursive", "a tree, many files in flight"),
        ("- s3://my-bucket/reading.json < reading.json", "from a pipe"),
        (
            "photo.jpg wg://203.0.113.42:2048 --server-key BASE64 --client-key-file ~/.aws/raptor.key",
            "to a published backend, stored as <timestamp>/photo.jpg",
        ),
    ),
)
