"""`raptor configure`: asks for what the fast path needs, tests it by a real handshake, and writes the profile's `raptor` section.

    questions -> settings -> RaptorConfig (the same check that every program makes) -> handshake and pings -> ~/.aws/config

Invariant: nothing is written that RaptorConfig would refuse; what the file holds besides our settings stays as it is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from raptor_s3.cli import aws_cli, config_file, keygen, output
from raptor_s3.cli.explain import explain
from raptor_s3.cli.options import EXIT_FAILED, EXIT_OK, JSON, PROFILE, Option, UsageError, Verb
from raptor_s3.cli.prompts import Prompter
from raptor_s3.errors import ConfigError, RaptorError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from raptor_s3.cli.output import Output
    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.profile import Profile

TEST_PINGS = 5
TEST_TIMEOUT_S = 3.0


def run(args: argparse.Namespace, output: Output) -> int:
    from raptor_s3.routing.profile import read_profile

    if args.aws_cli:
        aws_cli.find_program()  # before anything is asked or written
    _check_options(args)
    profile = read_profile(name=args.profile)
    prompter = Prompter(output, is_interactive=sys.stdin is not None and sys.stdin.isatty() and not output.is_json)
    if prompter.is_interactive:
        output.note(f"Settings of the fast path for {profile.source}. Enter keeps what stands in brackets.\n")
    settings = ask_settings(args, profile, prompter)
    config = _checked(settings, profile)
    answered = args.skip_test or _test(config, output)
    if not answered and not (args.force or prompter.confirm("Write these settings all the same?", default=False)):
        output.error(
            "nothing was written. To write the settings before the gateway's operator has let this device in: --skip-test; "
            "whatever the test says: --force"
        )
        return EXIT_FAILED
    _write(profile, settings)
    output.note(f"Written: {profile.source}")
    with_aws_cli = aws_cli.offer(_config_path(), prompter, is_wanted=args.aws_cli)
    output.result({"profile": profile.name, "file": str(_config_path()), "tested": not args.skip_test, "aws_cli": with_aws_cli})
    return EXIT_FAILED if args.aws_cli and not with_aws_cli else EXIT_OK


def ask_settings(args: argparse.Namespace, profile: Profile, prompter: Prompter) -> dict[str, str | None]:
    """The settings to write: options first, then answers, with what the profile has now as the default.

    Makes the key file if it does not exist and the user wants it.
    """
    from raptor_s3.routing import parsers

    section = profile.scoped_config.get("raptor")
    now: Mapping[str, str] = section if isinstance(section, dict) else {}
    endpoint = args.url or prompter.ask(
        "Gateway (wg://HOST:PORT)", option="URL", default=now.get("endpoint", ""), check=parsers.parse_endpoint
    )
    settings: dict[str, str | None] = {"endpoint": endpoint.strip()}
    if endpoint.startswith("udp:"):
        question = "udp:// is not encrypted and proves no identity: fit for closed networks only. Allow it?"
        if not (args.allow_plaintext or prompter.confirm(question, default=False)):
            raise UsageError("use a wg:// endpoint, or say --allow-plaintext")
        settings["allow_plaintext"] = "true"
    else:
        settings["server_key"] = args.server_key or prompter.ask(
            "The gateway's public key", option="--server-key", default=now.get("server_key", ""), check=parsers.parse_key
        )
        if args.client_key_file or not now.get("client_key"):
            settings["client_key"] = None  # a file takes the place of a key in the configuration
            answer = args.client_key_file or prompter.ask(
                "This device's private key",
                option="--client-key-file",
                default=now.get("client_key_file", keygen.DEFAULT_KEY_FILE),
                check=_check_key_file,
            )
            path = parsers.parse_path(answer)
            settings["client_key_file"] = answer if path.is_absolute() else str(path.absolute())
            _provide_key(path, prompter)
    for name, question, default, check in (
        (
            "buckets",
            "Buckets that may take the fast path (patterns such as telemetry-*; none by default)",
            "",
            parsers.parse_list,
        ),
        ("threshold", "Largest body for it, or auto", "256KB", parsers.or_auto(parsers.parse_size)),
    ):
        value = getattr(args, name)
        if value is None and prompter.is_interactive:
            value = prompter.ask(question, option=f"--{name}", default=now.get(name, default), check=check)
        if value:
            settings[name] = value
    return settings


def _check_options(args: argparse.Namespace) -> None:
    """What is wrong with an option is said of the option, not of the file that it would get into."""
    from raptor_s3.routing import parsers

    for option, value, parse in (
        ("URL", args.url, parsers.parse_endpoint),
        ("--server-key", args.server_key, parsers.parse_key),
        ("--client-key-file", args.client_key_file, _check_key_file),
        ("--threshold", args.threshold, parsers.or_auto(parsers.parse_size)),
    ):
        try:
            if value is not None:
                parse(value)
        except ValueError as error:
            raise UsageError(f"{option}: {error}") from None


def _check_key_file(text: str) -> None:
    """Raises ValueError for a file that is there and can't be used; one that is not there can be made."""
    from raptor_s3.routing import parsers

    path = parsers.parse_path(text)
    if os.path.exists(path):
        parsers.read_key_file(path)


def _checked(settings: Mapping[str, str | None], profile: Profile) -> RaptorConfig:
    from raptor_s3.routing.config import RaptorConfig

    section = profile.scoped_config.get("raptor")
    merged = {**(section if isinstance(section, dict) else {}), **settings}
    scoped = {**profile.scoped_config, "raptor": {name: value for name, value in merged.items() if value is not None}}
    return RaptorConfig.load(scoped, source=profile.source, services=profile.services)


def _provide_key(path: Path, prompter: Prompter) -> None:
    if os.path.exists(path):
        return
    if not prompter.confirm(f"{path} does not exist. Make a key pair there?", default=True):
        raise UsageError(f"{path} does not exist: name another file, or run raptor keygen")
    try:
        public = keygen.create_key_file(path)
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None
    prompter.output.note(
        f"  Made. Public key (share this one: the gateway's operator needs it to let this device in):\n  {public}"
    )
    if prompter.is_interactive:
        prompter.confirm("  Is it let in, so that we can test?", default=True)


def _test(config: RaptorConfig, out: Output) -> bool:
    """Handshake and a few pings; whether the endpoint answered."""
    from raptor_s3.cli.ping import Summary, pings
    from raptor_s3.routing.endpoint import breaker_for

    out.note(f"Testing {config.endpoint} ...")
    summary = Summary()
    try:
        for reply in pings(config, number=TEST_PINGS, interval_s=0.0, timeout_s=TEST_TIMEOUT_S):
            summary.add(reply)
    except (RaptorError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        out.error(f"no answer: {explain(error, endpoint='the URL')}")
        return False
    if not summary.received:
        out.error(f"the gateway shook hands but answered none of {summary.sent} pings")
        return False
    breaker_for(config).succeeded()
    out.note(f"It works: {summary.received} of {summary.sent} pings answered, round trip {output.seconds(summary.median_s)}.")
    return True


def _write(profile: Profile, settings: Mapping[str, str | None]) -> None:
    path = _config_path()
    try:
        text = config_file.read_text(path)
        config_file.replace_file(path, config_file.set_nested(text, config_file.section_of(profile.name), "raptor", settings))
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _config_path() -> Path:
    return Path(os.path.expandvars(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config")).expanduser()


VERB = Verb(
    name="configure",
    summary="ask, test, write ~/.aws/config",
    opening=(
        "Sets up the fast path of one profile: asks for the gateway, its public key, this device's key and the buckets, tests "
        "them by a real handshake, and writes the raptor section of the profile. Comments and all other settings stay. Every "
        "answer can be given as an option; without a terminal nothing is asked. Exit code: 0, 1 if the test or --aws-cli failed, "
        "2 for wrong usage."
    ),
    options=(
        Option("url", "The gateway: wg://HOST:PORT.", "URL", is_positional=True),
        Option("server-key", "The gateway's public key.", "BASE64"),
        Option("client-key-file", f"This device's private key (default: {keygen.DEFAULT_KEY_FILE}; made if missing).", "FILE"),
        Option("buckets", "Buckets that may take the fast path, comma-separated; patterns such as telemetry-* count.", "NAMES"),
        Option("threshold", "Largest body for the fast path, such as 256KB, or auto.", "SIZE"),
        Option("allow-plaintext", "Accept an unencrypted udp:// endpoint.", is_switch=True, default=False),
        Option("aws-cli", "Add the plugin to the AWS CLI, v1 or v2, without asking.", is_switch=True, default=False),
        Option("skip-test", "Write without testing.", is_switch=True, default=False),
        Option("force", "Write even if the test fails.", is_switch=True, default=False),
        PROFILE,
        JSON,
    ),
    run=run,
    examples=(
        ("configure", "answer questions"),
        ("configure wg://gw.example.com:51820 --server-key BASE64 --buckets 'telemetry-*'", "from a script"),
        ("configure --aws-cli", "let aws s3 cp use it, too"),
    ),
)
