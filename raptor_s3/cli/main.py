"""The console script `raptor`: which verb, which exit code (docs/cli.md).

    raptor FILE_OR_FOLDER DESTINATION [options]    a file that is called like a verb: raptor ./status s3://...
    raptor VERB [options]

Exit codes: 0 all that was asked for happened (every file confirmed), 1 some of it failed, 2 the command line or the settings are
wrong, 130 interrupted.

Invariant: a user never sees a traceback for something that is not our bug.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, NoReturn

from raptor_s3.cli.explain import explain
from raptor_s3.cli.options import EXIT_FAILED, EXIT_USAGE, UsageError, add_options, epilog
from raptor_s3.cli.output import Output
from raptor_s3.errors import ConfigError, RaptorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptor_s3.cli.options import Verb

VERBS = {
    "send": "send files (the verb may be left out)",
    "configure": "set this device up: ask, test, write ~/.aws/config",
    "keygen": "make this device's key pair",
    "status": "how the endpoint does, and where the last puts went and why",
    "ping": "measure round trips and loss",
    "gateway": "receive: WireGuard in, S3 out",
}
EXIT_INTERRUPTED = 130

OVERVIEW = """\
usage: raptor FILE_OR_FOLDER s3://BUCKET/KEY|wg://HOST:PORT [options]
       raptor VERB [options]
       raptor --version

Small files into S3 in one round trip, over lossy links too.

    file --> RaptorQ symbols --> WireGuard, UDP ~~~~~~~> gateway --> S3
         <-------------------- ETag <~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~'

start here:
  raptor keygen                            # a key pair for this device; give the public key to the gateway's operator
  raptor configure                         # endpoint, keys, buckets: asks, tests, writes ~/.aws/config
  raptor photo.jpg s3://my-bucket/a.jpg    # one file
  raptor ./photos s3://my-bucket/2026 --recursive

verbs:
{verbs}
`raptor VERB --help` tells more; `raptor send --help` lists the options for sending.

The same settings make `aws s3 cp --transport raptor` and boto3 fast: see docs/cli.md,
https://github.com/raptor-s3/raptor-s3/blob/main/docs/cli.md
Exit codes: 0 all confirmed, 1 some failed, 2 wrong usage or settings.
"""


class _Parser(argparse.ArgumentParser):
    def __init__(self, verb: str, **kwargs: Any) -> None:
        super().__init__(
            prog="raptor" if verb == "send" else f"raptor {verb}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )
        self._verb = verb

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}\nTry: raptor {self._verb} --help", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return 0 if arguments else EXIT_USAGE
    if arguments == ["--version"]:
        print(f"raptor {_version()}")
        return 0
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `raptor status | head`: what stdout still buffers has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def overview() -> str:
    return OVERVIEW.format(verbs="".join(f"  {name:<10} {summary}\n" for name, summary in VERBS.items()))


def load_verb(name: str) -> Verb:
    verb: Verb = importlib.import_module(f"raptor_s3.cli.{name}").VERB
    return verb


def run_verb(verb: Verb, args: argparse.Namespace, output: Output) -> int:
    """Run a verb and turn its errors into a line and an exit code."""
    try:
        return verb.run(args, output)
    except (UsageError, ConfigError) as error:
        output.error(str(error))
        return EXIT_USAGE
    except RaptorError as error:
        output.error(explain(error))
        return EXIT_FAILED


def _objection(arguments: Sequence[str]) -> str:
    """What is wrong with a first word that is neither verb nor file, with no destination behind it; else an empty string."""
    word = arguments[0]
    if word.startswith("-") or any("://" in argument for argument in arguments) or os.path.lexists(word):
        return ""
    from difflib import get_close_matches  # needed for mistakes only

    near = get_close_matches(word, VERBS, n=1)
    if near:
        return f"there is no verb {word!r}; did you mean: raptor {near[0]}"
    return f"{word!r} is no verb ({', '.join(VERBS)}), and no file either. To send a file: raptor FILE s3://BUCKET/KEY"


def _run(arguments: list[str]) -> int:
    if arguments[0] in VERBS:
        name = arguments.pop(0)
    else:
        name = "send"
        objection = _objection(arguments)
        if objection:
            Output().error(objection)
            return EXIT_USAGE
    if name == "gateway":
        return _run_gateway(arguments)
    verb = load_verb(name)
    parser = _Parser(
        name,
        description="\n".join(textwrap.wrap(verb.opening, width=min(shutil.get_terminal_size().columns, 100))),
        epilog=epilog(verb, "raptor"),
    )
    add_options(parser, verb.options)
    args = parser.parse_args(arguments)
    output = Output(
        is_json=getattr(args, "json", False),
        is_silent=getattr(args, "silent", False),
        is_verbose=getattr(args, "verbose", False),
    )
    if output.is_verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    logging.getLogger("raptor_s3").addHandler(logging.NullHandler())
    return run_verb(verb, args, output)


def _run_gateway(arguments: list[str]) -> int:
    from raptor_s3.gateway import command

    parser = _Parser("gateway")
    command.add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        return int(command.run(args) or 0)
    except ConfigError as error:
        Output().error(str(error))
        return EXIT_USAGE


def _version() -> str:
    from importlib.metadata import version

    return version("raptor-s3")


if __name__ == "__main__":
    raise SystemExit(main())
