"""The `raptor` command without a network: what it imports, what it says, what it calls files, what it refuses."""

from __future__ import annotations

import contextlib
import doctest
import errno
import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from raptor_s3.cli.destination import Bucket, Receiver, Upload, list_uploads, parse_destination, timestamp_prefix
from raptor_s3.cli.explain import explain
from raptor_s3.cli.main import VERBS, load_verb, main, overview
from raptor_s3.cli.options import UsageError
from raptor_s3.cli.output import printable
from raptor_s3.cli.send import confirmation, metadata
from raptor_s3.errors import HandshakeTimeout

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
HEAVY = ("awscli", "boto3", "botocore", "numpy", "rich", "s3transfer")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("AWS_", "RAPTOR_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAPTOR_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def configure(home: Path, **settings: str) -> None:
    (home / ".aws").mkdir(exist_ok=True)
    assert main(["keygen"]) == 0
    lines = {"endpoint": "wg://127.0.0.1:9", "server_key": KEY, "client_key_file": "~/.aws/raptor.key", **settings}
    text = "".join(f"    {name} = {value}\n" for name, value in lines.items())
    (home / ".aws" / "config").write_text(f"[default]\nraptor =\n{text}")


# Imports


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["send", "--help"],
        ["status", "--help"],
        ["--version"],
        ["keygen", "k"],
        ["status"],
        ["no-such-file", "s3://b/k"],
    ],
    ids=" ".join,
)
def test_a_command_imports_only_what_it_needs(home: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    configure(home)
    script = f"""if True:
        import sys
        from raptor_s3.cli.main import main
        try:
            main({arguments!r})
        except SystemExit:
            pass
        print("imported:", *sorted(set({HEAVY!r}) & set(sys.modules)))
    """
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=home)
    assert result.stdout.splitlines()[-1] == "imported:"


# Help and usage


def test_the_overview_names_every_verb() -> None:
    for name in VERBS:
        assert f"\n  {name} " in overview()


@pytest.mark.parametrize(
    ("command", "promises"),
    [
        (["--help"], ["raptor --version", "https://github.com/raptor-s3/raptor-s3/blob/main/docs/cli.md"]),
        (["send", "--help"], ["for s3:// the setting confirm (file)"]),
        (
            ["gateway", "--help"],
            [
                "[wg://|udp://]HOST:PORT",
                "without either it is wg://, with --plaintext udp://",
                "a --listen without a scheme is then udp://",
                "https://github.com/raptor-s3/raptor-s3/blob/main/docs/gateway.md",
            ],
        ),
    ],
    ids=["raptor", "send", "gateway"],
)
def test_the_help_tells_what_is_easily_missed(
    command: list[str], promises: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main(command)
    text = " ".join(capsys.readouterr().out.split())
    for promise in promises:
        assert promise in text


def test_a_peers_file_that_is_missing_brings_an_example(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", str(home / "gateway.key")]) == 0
    assert main(["gateway", "--private-key-file", str(home / "gateway.key")]) == 2
    assert "an example: raptor gateway --help" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["gateway", "--help"])
    assert '{"peers": [{"name": ' in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in VERBS if name != "gateway"])
def test_every_example_in_the_help_parses(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import argparse
    import shlex

    from raptor_s3.cli.options import add_options

    verb = load_verb(name)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, verb.options)
    assert verb.examples
    for command, _ in verb.examples:
        words = shlex.split(command.partition(" < ")[0])
        parser.parse_args(words if name == "send" else words[1:])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "usage:"),
        (["file"], "DESTINATION"),
        (["file", "ftp://h/x"], "no destination"),
        (["file", "s3://"], "names no bucket"),
        (["file", "wg://host"], "wg://HOST:PORT"),
        (["file", "wg://host:99999"], "a port is a number from 1 to 65535"),
        (["file", "wg://host:0"], "a port is a number from 1 to 65535"),
        (["statsu"], "did you mean: raptor status"),
        (["pingg", "--json"], "did you mean: raptor ping"),
        (["config"], "did you mean: raptor configure"),
        (["upload"], "is no verb (send, configure,"),
        (["no-such-file.jpg", "bucket/key"], "no file either"),
        (["file", "s3://b/k", "--confirm", "maybe"], "none, any, packets"),
        (["file", "s3://b/k", "--timeout", "-1"], "--timeout: expected a time above zero such as 5s or 750ms, got '-1'\n"),
        (["file", "s3://b/k", "--timeout", "soon"], "--timeout: expected a time above zero such as 5s or 750ms, got 'soon'\n"),
        (["file", "s3://b/k", "--block-timeout", "-1"], "--block-timeout: expected a time such as 5s or 750ms, or 0, got '-1'\n"),
        (["file", "s3://b/k", "--bogus"], "Try: raptor send --help\n"),
        (["status", "--bogus"], "Try: raptor status --help\n"),
        (["gateway", "--bogus"], "Try: raptor gateway --help\n"),
        (["file", "s3://b/k", "--metadata", "novalue"], "NAME=VALUE"),
        (["file", "s3://b/k", "--code", "morse"], "invalid choice"),
        (["file", "s3://b/k"], "raptor configure"),
        (["-", "s3://b/"], "stdin needs a whole name"),
        (
            ["file", "wg://h:1"],
            "raptor: --server-key (or RAPTOR_SERVER_KEY) is missing: the public key of the gateway, in base64\n",
        ),
        (
            ["file", "wg://h:1", "--server-key", KEY],
            "raptor: --client-key-file (or RAPTOR_CLIENT_KEY_FILE) is missing: `raptor keygen` makes a key\n",
        ),
        (["file", "wg://h:1", "--server-key", "short"], "raptor: --server-key: expected a WireGuard key"),
        (["file", "wg://h:1/x:1"], "raptor: DESTINATION: expected wg://host:port, got 'wg://h:1/x:1'\n"),
        (["file", "s3://b/k", "--rate-mbps", "fast"], "raptor: --rate-mbps: expected a number from 0.01 to 100000, got 'fast'\n"),
        (["file", "s3://b/k", "--overhead", "9"], "raptor: --overhead: expected a number from 0 to 4, got '9'\n"),
        (
            ["file", "s3://b/k", "--client-key-file", "/nope"],
            "raptor: --client-key-file: can't read key file /nope: No such file or directory; make one: raptor keygen /nope\n",
        ),
        (["keygen", "/nope", "--public"], "No such file or directory; make one: raptor keygen /nope\n"),
        (["ping", "--count", "0"], "--count: expected a whole number, 1 or more, got '0'\n"),
        (["ping", "--count", "x"], "--count: expected a whole number, 1 or more, got 'x'\n"),
        (["ping", "--interval", "x"], "--interval: expected a time such as 5s or 750ms, or 0, got 'x'\n"),
        (
            ["gateway", "--stats-interval", "soon"],
            "--stats-interval: expected a time above zero such as 5s, 50ms or 1m, got 'soon'\n",
        ),
        (["status"], "raptor configure"),
    ],
)
def test_wrong_usage_is_a_line_that_helps_and_exit_code_2(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "file").write_text("x")
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert complaint in captured.out + captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("verb", "option", "seconds"),
    [
        ("send", "--timeout=5s", 5.0),
        ("send", "--timeout=1m", 60.0),
        ("send", "--timeout=.5", 0.5),
        ("send", "--block-timeout=0", 0.0),
        ("ping", "--timeout=750ms", 0.75),
        ("ping", "--interval=0", 0.0),
        ("ping", "--interval=50ms", 0.05),
        ("gateway", "--stats-interval=5m", 300.0),
        ("gateway", "--batch-delay=50ms", 0.05),
    ],
)
def test_times_are_written_as_in_the_settings(verb: str, option: str, seconds: float) -> None:
    import argparse

    from raptor_s3.cli.options import add_options
    from raptor_s3.gateway.command import add_arguments

    parser = argparse.ArgumentParser()
    if verb == "gateway":
        add_arguments(parser)
    else:
        add_options(parser, load_verb(verb).options)
    args = parser.parse_args([*(["file", "s3://b/k"] if verb == "send" else []), option])
    assert getattr(args, option.partition("=")[0].strip("-").replace("-", "_")) == pytest.approx(seconds)


def test_a_missing_file_and_an_empty_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(home)
    assert main([str(home / "nothing"), "s3://b/k"]) == 2
    assert "does not exist" in capsys.readouterr().err
    (home / "empty" / "sub").mkdir(parents=True)
    (home / "empty" / "sub" / "x").write_text("x")
    assert main([str(home / "empty"), "s3://b/k"]) == 2
    assert "--recursive" in capsys.readouterr().err


ADVICE = "run raptor configure"
FOUND = """\
[default]
region = x
[profile typo]
rapter =
    endpoint = wg://h:1
[profile some]
raptor =
    code = rfc6330
[edge]
"""


@pytest.mark.parametrize(
    ("content", "profile", "complaint"),
    [
        (None, None, f"there is no ~/.aws/config: {ADVICE}"),
        (None, "edge", f"there is no ~/.aws/config: {ADVICE} --profile edge"),
        (FOUND, None, f"~/.aws/config [default]: no `raptor =` section: {ADVICE}"),
        (FOUND, "typo", "~/.aws/config [profile typo]: no `raptor =` section; is `rapter =` meant to be one?"),
        (FOUND, "some", f"~/.aws/config [profile some] raptor.endpoint: no endpoint is set: {ADVICE} --profile some"),
        (FOUND, "edge", "~/.aws/config has [edge], which is no profile: write [profile edge]"),
        (FOUND, "nosuch", f"the profile nosuch is not in ~/.aws/config (it has default, some, typo): {ADVICE} --profile nosuch"),
        ("", "nosuch", f"the profile nosuch is not in ~/.aws/config: {ADVICE} --profile nosuch"),
    ],
    ids=["no file", "no file, a profile", "no section", "misspelt", "no endpoint", "no profile", "unknown", "empty file"],
)  # fmt: skip
@pytest.mark.parametrize("command", [["ping"], ["status"], ["file", "s3://b/k"]], ids=" ".join)
def test_what_is_missing_is_said(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    content: str | None,
    profile: str | None,
    complaint: str,
) -> None:
    monkeypatch.chdir(home)
    (home / "file").write_text("x")
    if content is not None:
        (home / ".aws").mkdir()
        (home / ".aws" / "config").write_text(content)
    assert main([*command, *(["--profile", profile] if profile else [])]) == 2
    assert capsys.readouterr().err.partition(", or name a receiver")[0].rstrip() == f"raptor: {complaint}"


def test_a_configuration_file_that_does_not_exist_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/no/config")
    assert main(["ping"]) == 2
    assert f"there is no /no/config (AWS_CONFIG_FILE): {ADVICE}" in capsys.readouterr().err


def test_the_profiles_keys_are_for_its_own_endpoint(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(home)
    (home / "file").write_text("x")
    assert main([str(home / "file"), "wg://elsewhere:1"]) == 2
    error = capsys.readouterr().err
    assert "--server-key (or RAPTOR_SERVER_KEY) is missing" in error
    assert "Keys in ~/.aws/config [default] are for wg://127.0.0.1:9 only" in error


def test_a_private_key_on_the_command_line_is_warned_about_and_not_repeated(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "file").write_text("x")
    secret = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8="
    main([str(home / "file"), "wg://127.0.0.1:9", "--server-key", KEY, "--client-key", secret, "--timeout", "0.3"])
    captured = capsys.readouterr()
    assert "RAPTOR_CLIENT_KEY" in captured.err
    assert secret not in captured.out + captured.err


def test_a_broken_pipe_is_no_traceback(home: Path) -> None:
    configure(home)
    command = f"{sys.executable} -m raptor_s3.cli.main status | true"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert result.stderr == ""


# What failed, and what to do about it


def handshake_timeout(reason: str, cause: OSError | None = None) -> HandshakeTimeout:
    try:
        raise cause or OSError
    except OSError:
        try:
            raise HandshakeTimeout(f"wg://h:1: {reason}") from None
        except HandshakeTimeout as error:
            return error


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (handshake_timeout("unknown", socket.gaierror(socket.EAI_NONAME, "unknown")), "no such host: check the name in THERE"),
        (handshake_timeout("later", socket.gaierror(socket.EAI_AGAIN, "later")), "No name server answers"),
        (handshake_timeout("h could not be resolved in time"), "No name server answers"),
        (handshake_timeout(os.strerror(errno.ECONNREFUSED)), "Nobody listens on that port: "),
        (handshake_timeout(os.strerror(errno.ENETUNREACH)), "is this machine online, and is THERE right?"),
    ],
    ids=["no host", "no name server", "slow name server", "refused", "unreachable"],
)  # fmt: skip
def test_a_reason_that_is_known_brings_no_advice_about_keys(error: HandshakeTimeout, remedy: str) -> None:
    text = explain(error, endpoint="THERE", may_ping=True)
    assert text.startswith(f"{error}. ")
    assert remedy in text
    assert "key" not in text
    assert "raptor ping" not in text


def test_silence_may_have_to_do_with_the_keys() -> None:
    text = explain(HandshakeTimeout("nobody answered"))
    assert "does its operator know ours (raptor keygen [FILE] --public)?" in text
    assert "raptor ping" not in text
    assert explain(HandshakeTimeout("nobody answered"), may_ping=True) == f"{text} Try: raptor ping"


@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (["file", "s3://b/k"], "is the gateway running, and is the port in raptor.endpoint right?\n"),
        (["file", "wg://127.0.0.1:9"], "is the port in DESTINATION right?\n"),
        (["ping"], "is the port in raptor.endpoint right?\n"),
    ],
    ids=["s3", "wg", "ping"],
)  # fmt: skip
def test_a_closed_port_is_called_one(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(home)
    (home / "file").write_text("x")
    monkeypatch.chdir(home)
    assert main([*arguments, "--timeout", "0.3"]) == 1
    assert capsys.readouterr().err.endswith(ending)


# Names


def names(home: Path, source: Path | str, destination: str, *, recursive: bool = False, prefix: str = "") -> list[str]:
    warnings: list[str] = []
    found = [
        upload.name
        for upload in list_uploads(
            str(source), parse_destination(destination), recursive=recursive, prefix=prefix, warn=warnings.append
        )
    ]
    return found + [f"warning: {text}" for text in warnings]


@pytest.fixture
def tree(home: Path) -> Path:
    root = home / "photos"
    (root / "2026" / "mai").mkdir(parents=True)
    (root / "b c.jpg").write_text("x")
    (root / "ä.jpg").write_text("x")
    (root / "2026" / "mai" / "1.jpg").write_text("x")
    return root


@pytest.mark.parametrize(
    ("destination", "key"),
    [
        ("s3://b", "b c.jpg"),
        ("s3://b/", "b c.jpg"),
        ("s3://b/x/", "x/b c.jpg"),
        ("s3://b/x/y.jpg", "x/y.jpg"),
        ("wg://h:1", "b c.jpg"),
    ],
)
def test_the_name_of_one_file(home: Path, tree: Path, destination: str, key: str) -> None:
    assert names(home, tree / "b c.jpg", destination) == [key]


def test_the_names_of_a_tree(home: Path, tree: Path) -> None:
    assert names(home, tree, "s3://b/pre", recursive=True) == ["pre/b c.jpg", "pre/ä.jpg", "pre/2026/mai/1.jpg"]
    left_out = f"warning: 1 folder in {tree} left out; to send subfolders, too: --recursive"
    assert names(home, tree, "s3://b/pre/") == ["pre/b c.jpg", "pre/ä.jpg", left_out]
    assert names(home, tree, "s3://b") == ["b c.jpg", "ä.jpg", left_out]
    prefix = "20260501000000/"
    assert names(home, tree, "wg://h:1", prefix=prefix) == [f"{prefix}b c.jpg", f"{prefix}ä.jpg", left_out]


def test_links_to_folders_are_left_out_with_a_warning(home: Path, tree: Path) -> None:
    (tree / "2026" / "mai" / "all").symlink_to(tree)
    found = names(home, tree / "2026", "s3://b", recursive=True)
    assert found == ["mai/1.jpg", f"warning: {tree}/2026/mai/all is left out: it is a link to a folder"]
    assert names(home, tree / "2026" / "mai", "s3://b") == ["1.jpg"]


def test_relative_sources_never_leave_the_folder(home: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "2026")
    assert names(home, "..", "s3://b", recursive=True) == ["b c.jpg", "ä.jpg", "2026/mai/1.jpg"]
    assert names(home, ".", "s3://b", recursive=True) == ["mai/1.jpg"]
    assert names(home, "../b c.jpg", "s3://b") == ["b c.jpg"]


def test_what_can_not_be_sent_is_left_out_with_a_warning(home: Path, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    (tree / os.fsdecode(b"caf\xe9")).write_text("x")
    (tree / ("n" * 250)).write_text("x")
    found = names(home, tree, "wg://h:1", prefix="20260501000000/")
    assert found[:2] == ["20260501000000/b c.jpg", "20260501000000/ä.jpg"]
    assert sorted(text.partition("is left out: ")[2] for text in found[2:] if " is left out: " in text) == [
        "it is not a regular file",
        "its name has 265 bytes there, 255 fit",
        "its name is not text, and names over there are UTF-8",
    ]


def test_stdin_has_no_name_of_its_own() -> None:
    assert list(list_uploads("-", Bucket("b", "k"), recursive=False, prefix="", warn=print)) == [Upload(None, "k")]
    with pytest.raises(UsageError):
        list(list_uploads("-", Receiver("wg://h:1"), recursive=False, prefix="", warn=print))


def test_a_timestamp_is_utc_and_tells_sends_within_one_second_apart() -> None:
    assert timestamp_prefix(0) == "19700101000000000/"
    assert timestamp_prefix(1.5) < timestamp_prefix(1.6)


@pytest.mark.parametrize(
    ("text", "level"),
    [("ANY", "packets"), ("PACKETS|BLOCK", "packets"), ("file", "file"), ("BLOCK,FILE", "block"), ("NONE", "none")],
)
def test_confirmations_of_the_published_command(text: str, level: str) -> None:
    assert confirmation(text) == level


def test_metadata_pairs() -> None:
    assert metadata("a=1, b=x=y") == {"a": "1", "b": "x=y"}


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2J\rb\udce9") == "a\\x1b[2J\\rb\\udce9"


@pytest.mark.parametrize("name", ["output", "status", "destination", "config_file"])
def test_the_examples_in_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"raptor_s3.cli.{name}"))
    assert result.attempted
    assert not result.failed
