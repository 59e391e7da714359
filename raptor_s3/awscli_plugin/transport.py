"""`--transport auto|raptor|https` on `aws s3 cp`, `mv` and `sync`.

    auto     the settings decide, put by put; HTTPS takes over whatever the fast path can't carry or confirm
    raptor   the fast path or an error: no HTTPS, and therefore no AWS credentials, for cp and mv
    https    as if the plugin were not there
    (none)   the setting `transport` (auto) where an endpoint is set, else https

The option goes in by subclassing whatever stands in the command table: a command's own ARG_TABLE is a list at class level, shared
with everyone. It is read and deleted in `_run_main`, before the command makes its clients: clients copy the session's emitter.

Invariant: without a configured fast path, and with `--transport https`, the command is exactly the AWS CLI's.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from raptor_s3.awscli_plugin.commands import configuration_error, usage_error
from raptor_s3.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.journal import PutRecord

_log = logging.getLogger(__name__)

COMMANDS = ("cp", "mv", "sync")
AUTO, RAPTOR, HTTPS = "auto", "raptor", "https"
LOG_FORMAT = "%(asctime)s - %(threadName)s - %(name)s - %(levelname)s - %(message)s"
S3_MULTIPART_THRESHOLD = 8 << 20  # `aws s3`'s default
ARGUMENT = {
    "name": "transport",
    "choices": [AUTO, RAPTOR, HTTPS],
    "help_text": (
        "How uploads travel. ``auto``: small files over the fast path (RaptorQ over WireGuard), everything else, and whatever "
        "the fast path can't confirm, over HTTPS. ``raptor``: the fast path or an error; cp and mv then need no AWS "
        "credentials. ``https``: never the fast path. Default: the profile's setting ``raptor.transport`` (itself ``auto`` by "
        "default) if an endpoint is set, else ``https``. "
        "See ``aws raptor configure``."
    ),
}


def add_transport(command_table: dict[str, Any], session: Any) -> None:
    """Replace cp, mv and sync by subclasses of themselves that know `--transport`."""
    for name in COMMANDS:
        command = command_table.get(name)
        if command is not None:
            command_table[name] = with_transport(type(command))(session)


def with_transport(base: type[Any]) -> type[Any]:
    """A subclass of an `aws s3` transfer command with the option."""

    class TransportCommand(base):  # type: ignore[misc]
        ARG_TABLE = [*base.ARG_TABLE, ARGUMENT]  # noqa: RUF012
        _use_classic_client = False

        def _run_main(self, parsed_args: Any, parsed_globals: Any) -> Any:
            transport = parsed_args.transport
            del parsed_args.transport  # what is left becomes the command's own parameters
            if switch_on(self._session, self.NAME, transport, parsed_args, parsed_globals):
                self._use_classic_client = transport is not None
            return super()._run_main(parsed_args, parsed_globals)

        def _get_runtime_config(self) -> Any:  # v2 asks this before it chooses between its two clients
            runtime_config = super()._get_runtime_config()
            if self._use_classic_client:  # the CRT client makes its own requests: no hook, no fast path
                runtime_config["preferred_transfer_client"] = "classic"
            return runtime_config

    TransportCommand.__name__ = base.__name__
    return TransportCommand


def switch_on(session: Any, command: str, transport: str | None, parsed_args: Any, parsed_globals: Any) -> bool:
    """Attach the fast path to the session's future clients if this command is to use it; whether it is.

    Raises the CLI's own errors when `transport` was asked for and can't be had.
    """
    if transport == HTTPS:
        return False
    config = _load_config(session, transport)
    if config is None:
        return False
    if transport == RAPTOR:
        _be_strict(session, command, parsed_args, parsed_globals)
    from raptor_s3.routing import hooks, policy

    _set_up_logging(session, parsed_globals)
    _send_whole(session, policy.MAX_BODY if transport == RAPTOR else config.threshold_bytes or 0)
    hooks.attach(session.get_component("event_emitter"), config, source="aws", on_https_error=_explain_once(parsed_args))
    return True


def _explain_once(parsed_args: Any) -> Callable[[PutRecord], None]:
    """Says, before the CLI's first `upload failed`, why the fast path has left that upload to HTTPS."""
    is_silent = getattr(parsed_args, "quiet", False)
    lock = threading.Lock()

    def explain(record: PutRecord) -> None:
        nonlocal is_silent
        with lock:  # nobody's failure is shown while the reason is not yet
            if not is_silent:
                is_silent = True
                sys.stderr.write(f"raptor: s3://{record.bucket}/{record.key} went over HTTPS: {record.reason}\n")
                sys.stderr.flush()

    return explain


def _set_up_logging(session: Any, parsed_globals: Any) -> None:
    """Silent, as the CLI's own loggers are, or to stderr with `--debug`."""
    if getattr(parsed_globals, "debug", False):
        session.set_stream_logger("raptor_s3", logging.DEBUG, format_string=LOG_FORMAT)
    else:
        logging.getLogger("raptor_s3").addHandler(logging.NullHandler())


def _load_config(session: Any, transport: str | None) -> RaptorConfig | None:
    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.profile import DEFAULT_CONFIG_FILE, describe

    shown = os.environ.get("AWS_CONFIG_FILE") or DEFAULT_CONFIG_FILE
    source = describe(shown, session.get_config_variable("profile") or "default")
    try:
        config = RaptorConfig.load(
            session.get_scoped_config(),
            overrides={"transport": transport} if transport else None,
            source=source,
            services=session.full_config.get("services"),
        )
    except ConfigError as error:
        if transport is None:  # nobody asked: the upload must not fail for it, and must not be quiet about it either
            sys.stderr.write(f"raptor: {error}; uploading over HTTPS\n")
            return None
        raise configuration_error(f"{error}. To upload without the fast path: --transport https") from None
    if not config.is_configured:
        _log.debug("no fast path: %s has no raptor endpoint, or transport = https", source)
        return None
    return config


def _be_strict(session: Any, command: str, parsed_args: Any, parsed_globals: Any) -> None:
    paths = [path if isinstance(path, str) else os.fsdecode(path) for path in parsed_args.paths]
    if paths[0].startswith("s3://") or not paths[-1].startswith("s3://"):
        raise usage_error(
            "--transport raptor carries uploads, from a local path to s3://: leave it out for downloads and for copies inside S3"
        )
    if command == "sync":
        _need_credentials(session, parsed_globals)
    else:
        _do_without_credentials(session)


def _need_credentials(session: Any, parsed_globals: Any) -> None:
    if getattr(parsed_globals, "sign_request", True) and session.get_credentials() is None:
        raise configuration_error(
            "sync compares with what is in the bucket, and listing a bucket is an HTTPS request that needs AWS credentials; none "
            "were found. To send everything without them: aws s3 cp --recursive --transport raptor"
        )


def _do_without_credentials(session: Any) -> None:
    """No request of this command is to be signed, so look for no credentials, nor for a region, at a metadata service."""
    from botocore import UNSIGNED
    from botocore.config import Config

    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    unsigned = Config(signature_version=UNSIGNED)
    present = session.get_default_client_config()
    session.set_default_client_config(present.merge(unsigned) if present is not None else unsigned)


def _send_whole(session: Any, size_bytes: int) -> None:
    """Let bodies up to this size be one PutObject each: multipart uploads, from 8 MiB by default, never take the fast path."""
    from raptor_s3.routing.parsers import parse_size

    read = session.get_scoped_config

    def get_scoped_config() -> dict[str, Any]:
        config: dict[str, Any] = dict(read())
        section = config.get("s3")
        section = dict(section) if isinstance(section, dict) else {}
        try:
            present = parse_size(section.get("multipart_threshold", S3_MULTIPART_THRESHOLD))
        except ValueError:
            return config  # the command itself says what is wrong with it
        if present <= size_bytes:
            config["s3"] = section | {"multipart_threshold": str(size_bytes + 1)}
        return config

    session.get_scoped_config = get_scoped_config
