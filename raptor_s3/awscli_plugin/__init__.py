"""The AWS CLI's plugin: `aws s3 cp|mv|sync --transport auto|raptor|https` and `aws raptor ...` (docs/cli.md), for v1 and v2.

    [plugins]
    raptor = raptor_s3.awscli_plugin
    cli_legacy_plugin_path = /where/pip/put/it      # AWS CLI v2 only, below the line above

    transport   one more option on cp, mv, sync; what it switches on and off
    commands    the verbs of the `raptor` command, as subcommands of `aws raptor`

The CLI imports this module in every process that has the line in its configuration, whatever the command: it registers two
handlers and imports the rest when one of them is called.

Invariant: nothing here runs at the expense of a command that is not ours; nothing but this package imports awscli.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any

LEGACY_PATH_KEY = "cli_legacy_plugin_path"
BOTO3_PLUGINS_VARIABLE = "BOTOCORE_EXPERIMENTAL__PLUGINS"
BOTO3_PLUGIN = "raptor_s3.plugin"


def awscli_initialize(cli: Any) -> None:
    """The AWS CLI's plugin entry: `cli` is the session's event emitter."""
    os.environ.update(_without_boto3_plugin(os.environ.get(BOTO3_PLUGINS_VARIABLE)))
    cli.register("building-command-table.main", _add_raptor)
    cli.register("building-command-table.s3", _add_transport)


def _add_raptor(command_table: dict[str, Any], session: Any, **_: Any) -> None:
    from raptor_s3.awscli_plugin.commands import RaptorCommand

    command_table[RaptorCommand.NAME] = RaptorCommand(session)


def _add_transport(command_table: dict[str, Any], session: Any, **_: Any) -> None:
    from raptor_s3.awscli_plugin.transport import add_transport

    add_transport(command_table, session)


def _without_boto3_plugin(plugins: str | None) -> dict[str, str]:
    """The environment variable without our entry: this process obeys `--transport`, not the variable that boto3 programs obey."""
    if not plugins or BOTO3_PLUGIN not in plugins:
        return {}
    kept = [entry for entry in plugins.split(",") if entry.partition("=")[2].strip() != BOTO3_PLUGIN]
    return {BOTO3_PLUGINS_VARIABLE: ",".join(kept)}


def _stub_legacy_path() -> None:
    """Let v1 live with v2's key: it would import the folder as if it were a plugin's name, and crash.

    It asks `sys.modules` first, and imports in the file's order: hence "below the line above".
    """
    import awscli

    if not awscli.__version__.startswith("1."):
        return
    from botocore.configloader import raw_config_parse
    from botocore.exceptions import BotoCoreError

    try:
        config = raw_config_parse(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config", parse_subsections=False)
    except BotoCoreError:
        return  # the CLI itself says what is wrong with the file
    folder = config.get("plugins", {}).get(LEGACY_PATH_KEY)
    if folder and folder not in sys.modules:
        stub = types.ModuleType(folder)
        vars(stub)["awscli_initialize"] = lambda cli: None
        sys.modules[folder] = stub


_stub_legacy_path()
