"""`python -m benchmarks.link validate|shell|cleanup|install`: the emulator by itself."""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks.link import Conditions, Link
from benchmarks.link.install import install_or_explain
from benchmarks.link.namespaces import sweep
from benchmarks.link.probe import validate


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit code is 0 only if all of it held."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.link", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    check = verbs.add_parser("validate", help="measure RTT, loss, rate and packet size, and compare with what was asked")
    check.add_argument("--quick", action="store_true")
    shell = verbs.add_parser("shell", help="a shell in the client's namespace; the server is 10.0.0.2")
    shell.add_argument("--rtt-ms", type=float, default=150)
    shell.add_argument("--loss", type=float, default=0.0, help="fraction, each direction")
    shell.add_argument("--rate-mbps", type=float, default=20)
    verbs.add_parser("cleanup", help="delete namespaces that killed runs left behind")
    verbs.add_parser("install", help="install what the emulator and the peers need with apt, or say what is missing")
    arguments = parser.parse_args(argv)
    if arguments.verb == "install":
        return 0 if install_or_explain() else 1
    if arguments.verb == "cleanup":
        print("\n".join(sweep()) or "nothing to clean up")
        return 0
    if arguments.verb == "shell":
        conditions = Conditions(rtt_s=arguments.rtt_ms / 1000, loss=arguments.loss, rate_mbps=arguments.rate_mbps)
        with Link(conditions) as link:
            print(f"{conditions}; server side: ip netns exec {link.server.name} ...")
            return int(link.client.popen([os.environ.get("SHELL", "sh")]).wait())
    with Link() as link:
        findings = validate(link, quick=arguments.quick)
    print("\n".join(map(str, findings)))
    return 0 if all(finding.is_good for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
