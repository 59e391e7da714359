"""The AWS CLI's part of `raptor configure`: our line in [plugins], if the `aws` on the PATH works with it.

    [plugins]
    raptor = raptor_s3.awscli_plugin
    cli_legacy_plugin_path = /where/pip/put/it      # only for an `aws` that does not find us without it: v2

A v1 without raptor-s3 crashes at a line that it can't import, and at the other one in any case, hence no more than is needed.

Invariant: [plugins] is only written as it was just seen to work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from raptor_s3.cli import config_file
from raptor_s3.cli.options import UsageError

if TYPE_CHECKING:
    from raptor_s3.cli.prompts import Prompter

TRIAL_TIMEOUT_S = 60


def plugin_lines(text: str, *, with_path: bool = True) -> str:
    """A config file's text with our line in [plugins], and `with_path` below it the folders where AWS CLI v2 finds us."""
    text = config_file.set_option(text, "plugins", "raptor", "raptor_s3.awscli_plugin", is_first=True)
    present = config_file.get_option(text, "plugins", "cli_legacy_plugin_path")
    if not (with_path or present):
        return text
    folders = present.split(os.pathsep) if present else []
    folders += [folder for folder in _import_folders() if folder not in folders]
    return config_file.set_option(text, "plugins", "cli_legacy_plugin_path", os.pathsep.join(folders))


def find_program() -> str:
    """The `aws` on the PATH. Raises UsageError."""
    program = shutil.which("aws")
    if program is None:
        raise UsageError("--aws-cli: there is no `aws` on the PATH: install the AWS CLI first (nothing was written)")
    return program


def offer(path: Path, prompter: Prompter, *, is_wanted: bool) -> bool:
    """Add us to the plugins in the config file `path`, if that is wanted and `aws` can load us; whether it is there."""
    program = shutil.which("aws")
    if program is None or not (is_wanted or prompter.is_interactive):
        return False
    text = config_file.read_text(path)
    if config_file.get_option(text, "plugins", "raptor") and not is_wanted:
        return True
    if not (is_wanted or prompter.confirm("Let `aws s3 cp|mv|sync` use it too (--transport)?", default=True)):
        return False
    for with_path in (False, True):
        if _works(program, plugin_lines("", with_path=with_path)):
            config_file.replace_file(path, plugin_lines(text, with_path=with_path))
            prompter.output.note(f"Written: {path} [plugins]. Try: aws s3 cp FILE s3://BUCKET/ --transport raptor")
            return True
    prompter.output.error(
        f"{program} can't import raptor_s3 and would stop working with the plugin line, so that was not added. "
        "Install raptor-s3 into the Python that runs it, then: raptor configure --aws-cli"
    )
    return False


def _works(program: str, config: str) -> bool:
    """Whether `aws` runs our plugin with this config file."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, "config")
        trial.write_text(config)
        environment = {**os.environ, "AWS_CONFIG_FILE": str(trial)}
        environment.pop("AWS_PROFILE", None)
        try:
            result = subprocess.run(
                [program, "raptor"], env=environment, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, check=False
            )
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
