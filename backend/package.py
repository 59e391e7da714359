"""The functions' code, as one folder: `python -m backend.package --into DIR` (docs/backend.md, "Deploying").

    backend/            this package, without what runs only on the developer's machine
    raptor_s3/          errors, codec, wire, transfer, receiver: no sockets, no botocore hooks, no WireGuard
    aws_lambda_powertools, numpy ...   from PyPI, as wheels for the functions' Python and architecture

boto3 is the Lambda runtime's own. The C extensions of codec and wire go in where they were built for the target; where not,
numpy and Python do the same.

Invariant: nothing that was built for another machine gets in.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LIBRARY: Final = ("__init__.py", "errors.py", "codec", "wire", "transfer", "receiver")
DEVELOPERS: Final = ("local", "demo.py", "package.py", "Makefile")
REQUIREMENTS: Final = ("aws-lambda-powertools>=3.5", "numpy>=1.26")
WHEEL_PLATFORMS: Final = {"arm64": "manylinux_2_28_aarch64", "x86_64": "manylinux_2_28_x86_64"}
_OLDER: Final = {"arm64": "manylinux2014_aarch64", "x86_64": "manylinux2014_x86_64"}
_MACHINES: Final = {"aarch64": "arm64", "arm64": "arm64", "x86_64": "x86_64", "amd64": "x86_64"}


def copy_code(target: Path, architecture: str) -> None:
    """Our own packages. Compiled parts only where this machine is Linux of the target's architecture."""
    is_target = sys.platform == "linux" and _MACHINES.get(platform.machine().lower()) == architecture
    compiled = () if is_target else ("*.so", "*.pyd")
    ignore = shutil.ignore_patterns("__pycache__", "*.c", "*.h", "*.pyi", "*.o", *compiled)
    for name in LIBRARY:
        source, destination = ROOT / "raptor_s3" / name, target / "raptor_s3" / name
        if source.is_dir():
            shutil.copytree(source, destination, ignore=ignore)
        else:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, destination)
    shutil.copytree(ROOT / "backend", target / "backend", ignore=shutil.ignore_patterns("__pycache__", *DEVELOPERS))


def install_requirements(target: Path, architecture: str, python: str) -> None:
    """Wheels from PyPI for the functions' Python and architecture. Raises subprocess.CalledProcessError."""
    platforms = [option for name in (WHEEL_PLATFORMS, _OLDER) for option in ("--platform", name[architecture])]
    constraints = ROOT / "constraints.txt"
    pins = ["--constraint", str(constraints)] if constraints.exists() else []
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(target)]
    wheels = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    subprocess.run([*pip, *wheels, *pins, *REQUIREMENTS], check=True)
    for leftover in [*target.rglob("__pycache__"), *target.rglob("numpy/**/tests"), target / "bin"]:
        shutil.rmtree(leftover, ignore_errors=True)


def zip_code(archive: Path, architecture: str | None = None) -> None:
    """Our own packages only, as a ZIP: for a local stack, whose Python has the rest."""
    folder = archive.with_suffix(".folder")
    shutil.rmtree(folder, ignore_errors=True)
    copy_code(folder, architecture or _MACHINES.get(platform.machine().lower(), ""))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                made.write(path, path.relative_to(folder).as_posix())
    shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backend.package", description="Build the Lambda functions' code.")
    parser.add_argument("--into", type=Path, required=True, help="folder to fill; what is there is replaced")
    parser.add_argument("--architecture", choices=sorted(WHEEL_PLATFORMS), default="arm64")
    parser.add_argument("--python", default="3.12", help="the functions' Python, as in template.yaml")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    for entry in options.into.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    copy_code(options.into, options.architecture)
    install_requirements(options.into, options.architecture, options.python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
