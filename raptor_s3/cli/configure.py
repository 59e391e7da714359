"""`raptor configure`: asks for what DESIGN 2 needs, tests it by a real handshake, and writes the profile's `raptor` section.

    questions -> settings -> RaptorConfig (the same check that every program makes) -> handshake and pings -> ~/.aws/config

Invariant: nothing is written that RaptorConfig would refuse; what the file holds besides our settings stays as it is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from raptor_s3.cli import config_file, keygen, output
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

    profile = read_profile(name=args.profile)
    prompter = Prompter(output, is_interactive=sys.stdin is not None and sys.stdin.isatty() and not output.is_json)
    if prompter.is_interactive:
        output.note(f"Settings of the fast path for {profile.source}. Enter keeps what stands in brackets.\n")
    settings = ask_settings(args, profile, prompter)
    config = _checked(settings, profile)
    answered = args.skip_test or _test(config, output)
    if not answered and not (args.force or prompter.confirm("Write these settings all the same?", default=False)):
        output.error("nothing was written. To write settings that can't be tested yet: --force or --skip-test")
        return EXIT_FAILED
    _write(profile, settings)
    output.note(f"Written: {profile.source}")
    with_aws_cli = _offer_aws_cli(args, prompter)
    output.result({"profile": profile.name, "file": str(_config_path()), "tested": not args.skip_test, "aws_cli": with_aws_cli})
    return EXIT_OK


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
            settings["client_key_file"] = args.client_key_file or prompter.ask(
                "This device's private key",
                option="--client-key-file",
                default=now.get("client_key_file", keygen.DEFAULT_KEY_FILE),
                check=parsers.parse_path,
            )
            _provide_key(parsers.parse_path(settings["client_key_file"]), prompter)
    for name, question, default in (
        ("buckets", "Buckets that may take the fast path (patterns such as telemetry-*; none by default)", ""),
        ("threshold", "Largest body for it, or auto", "256KB"),
    ):
        value = getattr(args, name)
        if value is None and prompter.is_interactive:
            value = prompter.ask(question, option=f"--{name}", default=now.get(name, default), check=lambda text: text)
        if value:
            settings[name] = value
    return settings


def plugin_lines(text: str) -> str:
    """A config file's text with our line in [plugins], and below it the folders where AWS CLI v2 finds us."""
    wanted = _import_folders()
    text = config_file.set_option(text, "plugins", "raptor", "raptor_s3.awscli_plugin", is_first=True)
    present = config_file.get_option(text, "plugins", "cli_legacy_plugin_path")
    folders = present.split(os.pathsep) if present else []
    folders += [folder for folder in wanted if folder not in folders]
    return config_file.set_option(text, "plugins", "cli_legacy_plugin_path", os.pathsep.join(folders))


def _checked(settings: Mapping[str, str | None], profile: Profile) -> RaptorConfig:
    from raptor_s3.routing.config import RaptorConfig

    section = profile.scoped_config.get("raptor")
    merged = {**(section if isinstance(section, dict) else {}), **settings}
    scoped = {**profile.scoped_config, "raptor": {name: value for name, value in merged.items() if value is not None}}
    return RaptorConfig.load(scoped, source=profile.source, services=profile.services)


def _provide_key(path: Path, prompter: Prompter) -> None:
    if path.exists():
        return
    if not prompter.confirm(f"{path} does not exist. Make a key pair there?", default=True):
        raise UsageError(f"{path} does not exist: name another file, or run raptor keygen")
    try:
        public = keygen.create_key_file(path)
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None
    prompter.output.note(f"  Made. Give its public key to the gateway's operator, who lets this device in:\n  {public}")
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
        out.error(f"no answer: {output.explain(error)}")
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


def _offer_aws_cli(args: argparse.Namespace, prompter: Prompter) -> bool:
    """Add us to the AWS CLI's plugins, if that is wanted and its Python can import us; whether it was done."""
    import shutil

    program = shutil.which("aws")
    if not args.aws_cli and (program is None or not prompter.is_interactive):
        return False
    path = _config_path()
    text = config_file.read_text(path)
    if config_file.get_option(text, "plugins", "raptor") and not args.aws_cli:
        return True
    if program is None:
        raise UsageError("--aws-cli: there is no `aws` on the PATH")
    if not (args.aws_cli or prompter.confirm("Let `aws s3 cp|mv|sync` use it too (--transport)?", default=True)):
        return False
    if not _aws_can_load(program):
        prompter.output.warn(
            f"{program} can't import raptor_s3, and would stop working with the plugin line, so it was not added. "
            "Install raptor-s3 into the Python that runs it, and run this again with --aws-cli"
        )
        return False
    config_file.replace_file(path, plugin_lines(text))
    prompter.output.note(f"Written: {path} [plugins]. Try: aws s3 cp FILE s3://BUCKET/ --transport raptor")
    return True


def _aws_can_load(program: str) -> bool:
    """Whether `aws` runs with our plugin line, tried with a config file of its own."""
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, "config")
        trial.write_text(plugin_lines(""))
        environment = {**os.environ, "AWS_CONFIG_FILE": str(trial)}
        environment.pop("AWS_PROFILE", None)
        try:
            result = subprocess.run([program, "raptor"], env=environment, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
    return "aws raptor: name one of" in result.stderr


def _import_folders() -> list[str]:
    """The folders that hold this package and what it depends on."""
    from importlib.util import find_spec

    import raptor_s3

    folders = [str(Path(raptor_s3.__file__).resolve().parents[1])]
    spec = find_spec("nacl")
    if spec is not None and spec.origin is not None:
        folders.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(folders))


VERB = Verb(
    name="configure",
    summary="ask, test, write ~/.aws/config",
    opening=(
        "Sets up the fast path of one profile: asks for the gateway, its public key, this device's key and the buckets, tests "
        "them by a real handshake, and writes the raptor section of the profile. Comments and all other settings stay. Every "
        "answer can be given as an option; without a terminal nothing is asked."
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
