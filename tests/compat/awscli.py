"""tests/integration/test_awscli.py against other AWS CLIs: `python tests/compat/awscli.py`. Too slow for `make test`.

    v1.45   from PyPI; uses the botocore beside it (1.46, in our own environment, has its own inside)
    v2      from Debian's package `awscli`, taken apart, its dependencies from PyPI; finds us by cli_legacy_plugin_path

Each gets a virtual environment below --folder, which is kept for the next run. Exit code: pytest's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
V1 = "awscli==1.45.55"
V2_DEPENDENCIES = (
    "awscrt<0.17",
    "colorama<0.4.7",
    "cryptography",
    "distro<1.6",
    "docutils<0.20",
    "jmespath<1.1",
    "prompt-toolkit<3.0.29",
    "python-dateutil",
    "ruamel.yaml<=0.17.21",
    "urllib3<1.27",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "raptor-s3-awscli")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    programs = [install_v1(args.folder / "v1.45")]
    v2 = install_v2(args.folder / "v2")
    if v2 is None:
        print("AWS CLI v2 left out: no apt-get, or no Debian package awscli", file=sys.stderr)
    else:
        programs.append(v2)
    for program in programs:
        subprocess.run([program, "--version"], check=True, env={**os.environ, "AWS_CONFIG_FILE": os.devnull})
    environment = {**os.environ, "RAPTOR_AWS_PROGRAMS": os.pathsep.join(map(str, programs))}
    command = [sys.executable, "-m", "pytest", "tests/integration/test_awscli.py"]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def install_v1(folder: Path) -> Path:
    """AWS CLI v1 with this checkout beside it."""
    program = folder / "bin" / "aws"
    if not program.exists():
        make_environment(folder, V1, "--editable", str(ROOT))
    return program


def install_v2(folder: Path) -> Path | None:
    """Debian's AWS CLI v2 in an environment that has its dependencies and nothing of ours."""
    program = folder / "bin" / "aws"
    if program.exists():
        return program
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        fetched = subprocess.run(["apt-get", "download", "awscli"], cwd=scratch, check=False)
        packages = list(Path(scratch).glob("awscli_2*.deb"))
        if fetched.returncode or not packages:
            return None
        subprocess.run(["dpkg-deb", "--extract", str(packages[0]), scratch], check=True)
        make_environment(folder, *V2_DEPENDENCIES)
        site_packages = next((folder / "lib").glob("python3*/site-packages"))
        shutil.copytree(Path(scratch, "usr/lib/python3/dist-packages/awscli"), site_packages / "awscli")
    program.write_text(f"#!{folder / 'bin' / 'python'}\nimport sys\nimport awscli.clidriver\nsys.exit(awscli.clidriver.main())\n")
    program.chmod(0o755)
    return program


def make_environment(folder: Path, *requirements: str) -> None:
    venv.create(folder, with_pip=True, clear=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements], check=True)


if __name__ == "__main__":
    raise SystemExit(main())
