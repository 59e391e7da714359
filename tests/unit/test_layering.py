"""The import rule of the house, read from the source by `ast`: a room imports only rooms before it in ROOMS."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ROOMS = (
    "errors",
    "codec",
    "wire",
    "wireguard",
    "transfer",
    "receiver",
    "net",
    "routing",
    "gateway",
    "archive",
    "plugin",
    "cli",
    "awscli_plugin",
)
NEVER = {
    ("wire", "wireguard"): "wireguard carries datagrams without knowing them",
    ("wireguard", "codec"): "codec and wireguard never meet",
    ("wireguard", "wire"): "wireguard carries datagrams without knowing them",
    ("transfer", "wireguard"): "the tunnel is net's affair",
    ("receiver", "wireguard"): "the Lambdas have the receiver, and no WireGuard",
    ("gateway", "codec"): "the gateway decodes only through transfer.incoming",
    ("gateway", "routing"): "routing is the sender's side",
    ("plugin", "gateway"): "a client carries no server",
    ("plugin", "archive"): "faces stand side by side",
    ("cli", "plugin"): "faces stand side by side",
    ("awscli_plugin", "plugin"): "each host has its own botocore",
}
SANS_IO = ("codec", "wire", "wireguard", "transfer")
IO_MODULES = {
    "asyncio",
    "boto3",
    "botocore",
    "os",
    "queue",
    "random",
    "secrets",
    "select",
    "selectors",
    "socket",
    "threading",
    "time",
}
BACKEND_MAY_IMPORT = {"errors", "codec", "wire", "transfer", "receiver"}


def imported_modules(path: Path) -> set[str]:
    """Every absolute module name that this file imports, `from a import b` counted as a and a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "raptor_s3").with_suffix("").parts[0]


def rooms_imported(path: Path) -> set[str]:
    return {parts[1] for name in imported_modules(path) if (parts := name.split("."))[0] == "raptor_s3" and len(parts) > 1}


FILES = sorted((ROOT / "raptor_s3").rglob("*.py"))
ROOM_FILES = [path for path in FILES if path.parent != ROOT / "raptor_s3" or path.stem not in ("__init__", "__main__")]


@pytest.mark.parametrize("path", ROOM_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{room} is no room of the house: add it to the design first"
    for other in rooms_imported(path) & set(ROOMS) - {room}:
        assert ROOMS.index(other) < ROOMS.index(room), f"{room} may not import {other}"
        assert (room, other) not in NEVER, NEVER[room, other]


@pytest.mark.parametrize(
    "path", [path for path in ROOM_FILES if room_of(path) in SANS_IO], ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_core_is_sans_io(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported_modules(path)} & IO_MODULES


def test_only_the_aws_cli_plugin_imports_awscli() -> None:
    guests = {room_of(path) for path in ROOM_FILES if any(name.split(".")[0] == "awscli" for name in imported_modules(path))}
    assert guests <= {"awscli_plugin"}


def test_the_package_never_imports_the_backend() -> None:
    assert not [path for path in FILES if any(name.split(".")[0] == "backend" for name in imported_modules(path))]


def test_the_lambdas_import_only_what_they_need() -> None:
    tools = {"demo.py", "local.py"}
    for path in sorted((ROOT / "backend").rglob("*.py")):
        if path.name not in tools and "local" not in path.relative_to(ROOT).parts:
            assert rooms_imported(path) & set(ROOMS) <= BACKEND_MAY_IMPORT, path


@pytest.mark.parametrize(
    "module", ["raptor_s3", "raptor_s3.codec", "raptor_s3.wire.datagram", "raptor_s3.wireguard", "raptor_s3.receiver.policy"]
)
def test_importing_the_core_pulls_in_no_heavy_library(module: str) -> None:
    script = (
        f"import sys, {module}; print(*sorted({{'numpy', 'botocore', 'boto3', 'awscli', 'noise', 'rich'}} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
