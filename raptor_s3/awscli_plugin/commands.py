"""`aws raptor configure|keygen|status|ping`: the verbs of the `raptor` command, in the AWS CLI's clothes.

Options, help and behaviour are those of `raptor_s3.cli`; the profile is the one that `aws --profile` names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from awscli.customizations.commands import BasicCommand

from raptor_s3.cli.main import load_verb, run_verb
from raptor_s3.cli.options import PROFILE, UsageError, parse_values
from raptor_s3.cli.output import Output

if TYPE_CHECKING:
    from raptor_s3.cli.options import Option, Verb

VERBS = ("configure", "keygen", "status", "ping")


class RaptorCommand(BasicCommand):  # type: ignore[misc]
    """`aws raptor`"""

    NAME = "raptor"
    DESCRIPTION = (
        "Sets up and watches the fast path of small S3 uploads: RaptorQ over WireGuard-encrypted UDP. "
        "``aws s3 cp``, ``mv`` and ``sync`` take it with ``--transport auto`` or ``--transport raptor``."
    )
    SYNOPSIS = "aws raptor <configure|keygen|status|ping> [<Arg> ...]"
    EXAMPLES = (
        "A new device::\n\n"
        "    aws raptor keygen\n"
        "    aws raptor configure\n"
        "    aws s3 cp photo.jpg s3://my-bucket/ --transport raptor\n"
        "    aws raptor status\n"
    )

    @property
    def SUBCOMMANDS(self) -> list[dict[str, Any]]:  # noqa: N802
        return [{"name": name, "command_class": command_class(name)} for name in VERBS]

    def _run_main(self, parsed_args: Any, parsed_globals: Any) -> int:
        raise usage_error(f"usage: {self.SYNOPSIS}\naws raptor: name one of: {', '.join(VERBS)}")


class VerbCommand(BasicCommand):  # type: ignore[misc]
    """One verb; subclasses say which."""

    VERB: Verb

    def _run_main(self, parsed_args: Any, parsed_globals: Any) -> int:
        try:
            args = parse_values(self.VERB.options, vars(parsed_args))
        except UsageError as error:
            raise usage_error(str(error)) from None
        args.profile = self._session.get_config_variable("profile")
        output = Output(program=f"aws raptor {self.NAME}", is_json=getattr(args, "json", False))
        return run_verb(self.VERB, args, output)


def command_class(name: str) -> type[VerbCommand]:
    verb = load_verb(name)
    attributes = {
        "NAME": name,
        "VERB": verb,
        "DESCRIPTION": verb.opening,
        "EXAMPLES": "".join(
            f"{remark[:1].upper()}{remark[1:]}::\n\n    aws raptor {command}\n\n" for command, remark in verb.examples
        ),
        "ARG_TABLE": [_argument(option) for option in verb.options if option is not PROFILE],
    }
    return type(f"{name.capitalize()}Command", (VerbCommand,), attributes)


def usage_error(message: str) -> Exception:
    """What the AWS CLI answers with its exit code for wrong usage: 252 in v2, 255 in v1."""
    return _cli_error("ParamValidationError", message)


def configuration_error(message: str) -> Exception:
    """What the AWS CLI answers with its exit code for wrong settings: 253 in v2, 255 in v1."""
    return _cli_error("ConfigurationError", message)


def _cli_error(name: str, message: str) -> Exception:
    try:
        error: Exception = getattr(importlib.import_module("awscli.customizations.exceptions"), name)(message)
    except (ImportError, AttributeError):
        return ValueError(message)
    return error


def _argument(option: Option) -> dict[str, Any]:
    argument: dict[str, Any] = {"name": option.name, "help_text": option.help}
    if option.is_switch:
        return argument | {"action": "store_true"}
    argument |= {"cli_type_name": "string", "no_paramfile": True}
    if option.choices:
        argument["choices"] = list(option.choices)
    if option.is_positional:
        argument |= {"positional_arg": True, "synopsis": f"<{option.name}>"}
        if not option.is_required:
            argument |= {"nargs": "?", "synopsis": f"[<{option.name}>]"}
    elif option.is_required:
        argument["required"] = True
    return argument
