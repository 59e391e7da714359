"""The profile that a command is about, and what is missing when it has no endpoint."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from raptor_s3.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.profile import Profile

_SHOWN_PROFILES = 5


def load_profile(name: str | None) -> tuple[RaptorConfig, str]:
    """The settings of a profile that has an endpoint, and its name. Raises ConfigError."""
    from raptor_s3.routing.config import RaptorConfig
    from raptor_s3.routing.profile import read_profile

    profile = read_profile(name=name)
    config = RaptorConfig.load(profile.scoped_config, source=profile.source, services=profile.services)
    if config.endpoint is None:
        raise no_endpoint(profile)
    return config, profile.name


def no_endpoint(profile: Profile, *, instead: str = "") -> ConfigError:
    """The error for a profile without an endpoint; `instead` is what the user may do besides setting one up."""
    option = "" if profile.name == "default" else f" --profile {shlex.quote(profile.name)}"
    advice = f"run raptor configure{option}{instead}"
    if "raptor" in profile.scoped_config:
        return ConfigError(f"no endpoint is set: {advice}", source=profile.source, key="endpoint")
    if profile.name in profile.profiles:
        near = _similar("raptor", profile.scoped_config)
        what = f"no `raptor =` section; is `{near} =` meant to be one?" if near else f"no `raptor =` section: {advice}"
        return ConfigError(what, source=profile.source)
    if profile.name in profile.sections:
        return ConfigError(f"{profile.file} has [{profile.name}], which is no profile: write [profile {profile.name}]")
    return ConfigError(f"{_absence(profile)}: {advice}")


def _similar(word: str, words: Iterable[str]) -> str:
    from difflib import get_close_matches  # needed for mistakes only

    return next(iter(get_close_matches(word, list(words), n=1, cutoff=0.7)), "")


def _absence(profile: Profile) -> str:
    """What is not there: the file, or the profile in it."""
    if not os.path.exists(profile.path):
        return f"there is no {profile.file}" + (" (AWS_CONFIG_FILE)" if os.environ.get("AWS_CONFIG_FILE") else "")
    if not os.access(profile.path, os.R_OK):
        return f"{profile.file} can't be read"
    known = sorted(profile.profiles)
    shown = ", ".join(known[:_SHOWN_PROFILES]) + (", ..." if len(known) > _SHOWN_PROFILES else "")
    return f"the profile {profile.name} is not in {profile.file}" + (f" (it has {shown})" if known else "")
