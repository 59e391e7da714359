"""The options of a verb, described once: argparse reads them for `raptor VERB`, the AWS CLI for `aws raptor VERB`.

Invariant: no option's name is a prefix of one of the AWS CLI's global options, which its main parser would take for that one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from raptor_s3.cli.output import Output

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


class UsageError(Exception):
    """The command line asks for something that makes no sense; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option (`--name VALUE`), switch (`--name`) or positional argument.

    `parse` turns the text into the value and raises ValueError with a message for the user, which quotes the text unless it may
    be a secret.
    """

    name: str
    help: str
    metavar: str = ""
    default: Any = None
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    is_switch: bool = False
    is_positional: bool = False
    is_required: bool = False

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Verb:
    """What `raptor NAME` does. `run` gets one attribute per option and returns the exit code.

    `opening` is the help's first paragraph; `examples` are command lines with a remark each.
    """

    name: str
    summary: str
    opening: str
    options: tuple[Option, ...]
    run: Callable[[argparse.Namespace, Output], int]
    examples: tuple[tuple[str, str], ...] = ()


PROFILE = Option("profile", "Profile of ~/.aws/config whose raptor section counts (else AWS_PROFILE, else default).", "NAME")
JSON = Option("json", "Print JSON, one object to a line, for programs.", is_switch=True, default=False)


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """Teach an argparse parser these options."""
    for option in options:
        if option.is_switch:
            parser.add_argument(f"--{option.name}", action="store_true", help=option.help)
            continue
        kwargs: dict[str, Any] = {
            "help": option.help,
            "default": option.default,
            "type": _explained(option.parse),
            "metavar": option.metavar or None,
            "choices": option.choices or None,
        }
        if option.is_positional:
            parser.add_argument(option.attribute, nargs=None if option.is_required else "?", **kwargs)
        else:
            parser.add_argument(f"--{option.name}", required=option.is_required, **kwargs)


def parse_values(options: Sequence[Option], values: Mapping[str, Any]) -> argparse.Namespace:
    """The namespace that `Verb.run` expects, from texts by attribute name, as the AWS CLI's parser leaves them.

    Raises UsageError for a text that an option's `parse` refuses.
    """
    namespace = argparse.Namespace()
    for option in options:
        value = values.get(option.attribute)
        if value is None:
            value = option.default
        elif isinstance(value, str) and not option.is_switch:
            try:
                value = option.parse(value)
            except ValueError as error:
                raise UsageError(f"--{option.name}: {error}") from None
        setattr(namespace, option.attribute, value)
    return namespace


def epilog(verb: Verb, program: str) -> str:
    """The examples of a verb as help text."""
    if not verb.examples:
        return ""
    lines = ["examples:"]
    for command, remark in verb.examples:
        lines += [f"  # {remark}", f"  {program} {command}", ""]
    return "\n".join(lines).rstrip() + "\n"


def positive_int(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits)):
        raise ValueError(f"expected a whole number, 1 or more, got {text!r}")
    return int(digits)


def _explained(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse` for argparse, which shows the message of its own error type only."""
    if parse is str:
        return parse

    def parse_text(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_text
