"""The plugin inside the real AWS CLI, before any datagram is sent: registration, options, messages, exit codes.

The CLI runs in a process of its own: importing awscli would put its vendored botocore in the place of botocore for good.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raptor_s3.cli import keygen

SETTINGS = """\
[plugins]
raptor = raptor_s3.awscli_plugin
{v2}
[default]
region = us-east-1
{raptor}
"""
FAST_PATH = """\
raptor =
    endpoint = wg://127.0.0.1:9
    server_key = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
    client_key_file = {key}
    buckets = *
    timeout = 200ms
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    keygen.create_key_file(tmp_path / ".aws" / "raptor.key")
    write_config(tmp_path, FAST_PATH.format(key=tmp_path / ".aws" / "raptor.key"))
    (tmp_path / "a.txt").write_text("hello")
    return tmp_path


def write_config(home: Path, raptor: str, v2: str = "") -> None:
    (home / ".aws" / "config").write_text(SETTINGS.format(raptor=raptor, v2=v2))


def aws(home: Path, *arguments: str, script: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAPTOR_", "BOTOCORE_"))}
    environment |= {"HOME": str(home), "XDG_RUNTIME_DIR": "", "AWS_EC2_METADATA_DISABLED": "true", **variables}
    command = [sys.executable, "-c", script] if script else [sys.executable, "-m", "awscli"]
    return subprocess.run(
        [*command, *arguments], env=environment, cwd=home, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_option_is_on_cp_mv_and_sync_alone_and_the_base_classes_stay_clean(home: Path) -> None:
    script = """if True:
        import json
        from awscli.clidriver import create_clidriver
        from awscli.customizations.s3 import subcommands
        from awscli.customizations.s3.s3 import S3
        driver = create_clidriver()
        table = driver._get_command_table()['s3'].subcommand_table
        shared = [argument['name'] for argument in subcommands.CpCommand.ARG_TABLE]
        print(json.dumps({
            "with": [name for name, command in table.items() if 'transport' in command.arg_table],
            "order": list(table) == [entry['name'] for entry in S3.SUBCOMMANDS],
            "leaked": 'transport' in shared,
            "help": table['cp'].arg_table['transport'].documentation,
            "global": list(driver._get_argument_table()),
            "ours": {name: list(command.arg_table)
                     for name, command in driver._get_command_table()['raptor'].subcommand_table.items()},
        }))
    """
    found = json.loads(aws(home, script=script).stdout)
    assert found["with"] == ["cp", "mv", "sync"]
    assert found["order"]
    assert not found["leaked"]
    assert "Default: the profile's setting ``raptor.transport``" in found["help"]
    assert list(found["ours"]) == ["configure", "keygen", "status", "ping"]
    for name in [option for options in found["ours"].values() for option in options] + ["transport"]:
        taken = [global_name for global_name in found["global"] if global_name.startswith(name)]
        assert not taken, f"--{name} would be read as --{taken[0]}"


def test_other_commands_pay_for_two_handlers_only(home: Path) -> None:
    script = """if True:
        import sys
        from awscli.clidriver import create_clidriver
        create_clidriver()
        print(*sorted(name for name in sys.modules if name.startswith('raptor_s3')))
    """
    assert aws(home, script=script).stdout.split() == ["raptor_s3", "raptor_s3.awscli_plugin"]


@pytest.mark.parametrize("path", ["/opt/python3.11/site-packages", "relative", "/a:/b"])
def test_v1_survives_the_key_that_v2_needs(home: Path, path: str) -> None:
    write_config(home, "", f"cli_legacy_plugin_path = {path}")
    result = aws(home, "--version")
    assert result.returncode == 0, result.stderr


def test_wrong_transport(home: Path) -> None:
    result = aws(home, "s3", "cp", "a.txt", "s3://b/", "--transport", "pigeon")
    assert result.returncode != 0
    assert "raptor" in result.stderr


def test_dryrun_sends_nothing(home: Path) -> None:
    for transport in ("auto", "raptor", "https"):
        result = aws(home, "s3", "cp", "a.txt", "s3://b/", "--transport", transport, "--dryrun")
        assert (result.returncode, result.stdout) == (0, "(dryrun) upload: ./a.txt to s3://b/a.txt\n")


def test_strict_transport_refuses_what_is_no_upload(home: Path) -> None:
    result = aws(home, "s3", "cp", "s3://b/a.txt", ".", "--transport", "raptor")
    assert result.returncode == 255
    assert "leave it out for downloads" in result.stderr


def test_sync_says_what_it_needs_credentials_for(home: Path) -> None:
    result = aws(home, "s3", "sync", ".", "s3://b/", "--transport", "raptor")
    assert result.returncode == 255
    assert "listing a bucket is an HTTPS request that needs AWS credentials" in result.stderr
    assert "cp --recursive --transport raptor" in result.stderr


def test_strict_transport_without_an_endpoint_says_so(home: Path) -> None:
    write_config(home, "")
    result = aws(home, "s3", "cp", "a.txt", "s3://b/", "--transport", "raptor")
    assert result.returncode == 255
    assert "endpoint" in result.stderr
    assert "config [default]" in result.stderr


def test_broken_settings_stop_who_asked_and_warn_who_did_not(home: Path) -> None:
    write_config(home, "raptor =\n    endpiont = wg://h:1\n")
    asked = aws(home, "s3", "cp", "a.txt", "s3://b/", "--dryrun", "--transport", "auto")
    assert asked.returncode == 255
    assert "did you mean endpoint" in asked.stderr
    quiet = aws(home, "s3", "cp", "a.txt", "s3://b/", "--dryrun")
    assert (quiet.returncode, quiet.stdout) == (0, "(dryrun) upload: ./a.txt to s3://b/a.txt\n")
    assert "did you mean endpoint" in quiet.stderr
    off = aws(home, "s3", "cp", "a.txt", "s3://b/", "--dryrun", "--transport", "https")
    assert (off.returncode, off.stderr) == (0, "")


def test_a_strict_upload_that_fails_is_an_error_without_credentials_or_a_traceback(home: Path) -> None:
    result = aws(home, "s3", "cp", "a.txt", "s3://b/", "--transport", "raptor")
    assert result.returncode == 1
    assert "upload failed: ./a.txt to s3://b/a.txt" in result.stderr
    assert "credentials" not in result.stderr
    assert "Traceback" not in result.stderr


def test_why_https_was_asked_is_said_before_its_want_of_credentials(home: Path) -> None:
    (home / "more").mkdir()
    for name in ("1", "2", "3"):
        (home / "more" / name).write_text("x")
    result = aws(home, "s3", "cp", "more", "s3://b/", "--recursive")
    assert result.returncode == 1
    first, *failed = [line for line in result.stderr.splitlines() if line.startswith(("raptor:", "upload failed"))]
    assert first.startswith("raptor: s3://b/")
    assert "went over HTTPS: fast path failed: no handshake" in first or "circuit breaker open" in first
    assert [line.partition(" ")[2].partition(" to ")[0] for line in sorted(failed)] == [f"failed: more/{n}" for n in "123"]
    assert aws(home, "s3", "cp", "a.txt", "s3://b/", "--quiet").stderr == ""


def test_a_strict_move_that_fails_keeps_its_source(home: Path) -> None:
    result = aws(home, "s3", "mv", "a.txt", "s3://b/", "--transport", "raptor")
    assert result.returncode == 1
    assert (home / "a.txt").read_text() == "hello"


def test_the_boto3_plugin_of_the_environment_does_not_run_here(home: Path) -> None:
    script = """if True:
        import os
        from awscli.clidriver import create_clidriver
        create_clidriver()
        print(os.environ['BOTOCORE_EXPERIMENTAL__PLUGINS'])
    """
    result = aws(home, script=script, BOTOCORE_EXPERIMENTAL__PLUGINS="x=y.z,raptor_s3=raptor_s3.plugin")
    assert result.stdout == "x=y.z\n"


def test_configure_set_reaches_the_nested_section(home: Path) -> None:
    assert aws(home, "configure", "set", "raptor.threshold", "512KB").returncode == 0
    result = aws(home, "raptor", "configure", "--skip-test", "--buckets", "telemetry-*", "--json")
    assert result.returncode == 0, result.stderr
    text = (home / ".aws" / "config").read_text()
    assert "threshold = 512KB" in text
    assert "buckets = telemetry-*" in text
    assert stat.S_IMODE((home / ".aws" / "config").stat().st_mode) == 0o600


def test_aws_raptor_verbs(home: Path) -> None:
    key = home / "other.key"
    made = aws(home, "raptor", "keygen", str(key))
    assert made.returncode == 0
    assert aws(home, "raptor", "keygen", str(key), "--public").stdout == made.stdout
    again = aws(home, "raptor", "keygen", str(key))
    assert again.returncode == 2
    assert "stays as it is" in again.stderr
    status = aws(home, "raptor", "status", "--json")
    assert json.loads(status.stdout)["endpoint"] == "wg://127.0.0.1:9"
    nothing = aws(home, "raptor")
    assert nothing.returncode == 255
    assert "configure|keygen|status|ping" in nothing.stderr
