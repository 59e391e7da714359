"""The profile's part of ~/.aws/config, read without botocore.

The `raptor` command has no session to ask, and neither has a plugin that the environment activated: this finds the file
(AWS_CONFIG_FILE) and the profile (AWS_PROFILE) and reads the nested `raptor =` section as botocore's configloader does.

Invariant: a missing file or profile is an empty one; a file that does not parse is a ConfigError that names it.
"""

from __future__ import annotations

import configparser
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raptor_s3.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CONFIG_FILE = "~/.aws/config"


class Profile(NamedTuple):
    """What a configuration file says of one profile."""

    name: str
    source: str  # file and section, for messages
    scoped_config: Mapping[str, Any]
    services: Mapping[str, Any]  # `[services NAME]` sections by name
    file: str  # as the user calls it
    profiles: frozenset[str]  # all that the file has
    sections: frozenset[str]  # the same, by what stands in the brackets

    @property
    def path(self) -> Path:
        """The file."""
        return _path(self.file)


def read_profile(environ: Mapping[str, str] | None = None, name: str | None = None) -> Profile:
    """The profile `name`, or the one that AWS_PROFILE / AWS_DEFAULT_PROFILE select, or `default`. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    name = name or environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    shown = environ.get("AWS_CONFIG_FILE") or DEFAULT_CONFIG_FILE
    profiles: dict[str, Mapping[str, Any]] = {}
    services: dict[str, Mapping[str, Any]] = {}
    sections = _read_sections(shown)
    for section, values in sections.items():
        kind, _, rest = section.partition(" ")
        try:
            words = shlex.split(rest)
        except ValueError:
            continue
        if section == "default":
            profiles["default"] = values
        elif len(words) == 1 and kind in ("profile", "services"):
            (profiles if kind == "profile" else services)[words[0]] = values
    return Profile(name, describe(shown, name), profiles.get(name, {}), services, shown, frozenset(profiles), frozenset(sections))


def describe(config_file: str, profile: str) -> str:
    """`~/.aws/config [profile edge]`"""
    return f"{config_file} [{'' if profile == 'default' else 'profile '}{profile}]"


def _read_sections(shown: str) -> dict[str, dict[str, Any]]:
    path = _path(shown)
    if not path.is_file():
        return {}
    parser = configparser.RawConfigParser()
    try:
        parser.read([path])
        return {
            section: {option: _nested(parser.get(section, option)) for option in parser.options(section)}
            for section in parser.sections()
        }
    except (configparser.Error, UnicodeDecodeError, OSError, ValueError) as error:
        raise ConfigError(f"can't be read: {error}", source=shown) from None


def _path(shown: str) -> Path:
    return Path(os.path.expandvars(shown)).expanduser()


def _nested(value: str) -> Any:
    if not value.startswith("\n"):
        return value
    lines = [line.strip() for line in value.splitlines() if line.strip()]
    for line in lines:
        if "=" not in line:
            raise ValueError(f"expected `name = value` in an indented section, got {line!r}")
    return {key.strip(): rest.strip() for key, _, rest in (line.partition("=") for line in lines)}
