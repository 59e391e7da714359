"""The plugin under other versions of botocore, and other people's tests with the plugin switched on.

    python tests/compat/run.py [oldest] [newest] [s3transfer] [--work FOLDER]

    oldest      our routing and plugin tests with the oldest botocore that has client plugins
    newest      the same with the newest on the package index, without awscrt
    s3transfer  s3transfer's own tests, from the source distribution of the installed version: its functional tests as
                they are, and its integration tests of uploads against a local AWS, switched on by the environment alone
                (boto3's source distribution brings no tests)

Virtual environments and downloads stay in FOLDER (default: a new temporary one) and are used again. Needs the package
index, and minutes rather than seconds, so it is not part of `make test`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST = "1.39.9"  # the first botocore with BOTOCORE_EXPERIMENTAL__PLUGINS
OUR_TESTS = (
    "tests/unit/test_plugin_enable.py",
    *(
        f"tests/unit/test_routing_{name}.py"
        for name in ("body", "company", "fallback", "hooks", "policy", "shortcuts", "unconfirmed")
    ),
)
DEPENDENCIES = ("noiseprotocol", "pynacl", "numpy", "rich", "pytest", "pytest-timeout", "cryptography")
# Threads and processes that wait for seconds of slow network, and another client.
NOT_FOR_A_LOCAL_AWS = "crt or processpool or cancel or many_files or exceeds_max_bandwidth"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="*", choices=["oldest", "newest", "s3transfer", []], default=[])
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="raptor-compat-"))
    work.mkdir(parents=True, exist_ok=True)
    steps = {
        "oldest": lambda: our_tests(work / "oldest", f"boto3=={OLDEST}", f"botocore=={OLDEST}"),
        "newest": lambda: our_tests(work / "newest", "boto3", "botocore"),
        "s3transfer": lambda: s3transfer_tests(work),
    }
    failed = [name for name in options.what or steps if not steps[name]()]
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "all passed\n")
    return 1 if failed else 0


def our_tests(folder: Path, *requirements: str) -> bool:
    """Our tests in an environment with these packages."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", *requirements, *DEPENDENCIES], check=True, cwd=ROOT)
    version = subprocess.run(
        [python, "-c", "import botocore; print(botocore.__version__)"], capture_output=True, text=True, check=True
    )
    sys.stdout.write(f"== our tests with botocore {version.stdout.strip()}\n")
    sys.stdout.flush()
    return run([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *OUR_TESTS], cwd=ROOT, PYTHONPATH=str(ROOT))


def s3transfer_tests(work: Path) -> bool:
    """s3transfer's tests with the plugin; what fails without it as well is not held against it."""
    source = unpack(work, "s3transfer", importlib.metadata.version("s3transfer"))
    sys.stdout.write(f"== {source.name}: functional\n")
    sys.stdout.flush()
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--timeout", "300"]
    nobody = "wg://127.0.0.1:9", "A" * 43 + "=", "A" * 43 + "="
    with plugin_environment(work, "", *nobody) as environ:
        passed = run([*pytest, "tests/functional"], cwd=source, **environ)
    sys.path.insert(0, str(ROOT / "tests" / "integration"))
    from gateway_rig import GatewayProcess, local_aws

    from raptor_s3.wireguard.keys import key_to_base64

    sys.stdout.write(f"== {source.name}: integration, against a local AWS\n")
    sys.stdout.flush()
    folder = Path(tempfile.mkdtemp(dir=work))
    everything = {"device": {"allow": [{"bucket": "*"}]}}
    with local_aws(folder) as aws, GatewayProcess(folder, "--aws-endpoint-url", aws.url, peers=everything) as gateway:
        keys = gateway.ready["public_key"], key_to_base64(gateway.private_keys["device"])
        address = f"wg://{gateway.ready['host']}:{gateway.ready['port']}"
        tests = ["tests/integration/test_upload.py", "tests/integration/test_s3transfer.py", "-k", f"not ({NOT_FOR_A_LOCAL_AWS})"]
        with plugin_environment(work, aws.url, address, *keys) as environ:
            without = failures([*pytest, *tests], source, {**environ, "BOTOCORE_EXPERIMENTAL__PLUGINS": ""})
            with_plugin = failures([*pytest, *tests], source, environ)
        stats = gateway.stop()
    worse = sorted(with_plugin - without)
    carried = stats.get("objects_written", 0)
    sys.stdout.write(f"{len(without)} fail without the plugin, {len(with_plugin)} with it, which carried {carried} objects\n")
    for name in worse:
        sys.stdout.write(f"only with the plugin: {name}\n")
    return passed and not worse and carried > 0


def unpack(work: Path, name: str, version: str) -> Path:
    """The source distribution of a package, unpacked."""
    folder = work / f"{name}-{version}"
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", f"{name}=={version}"]
        subprocess.run([*command, "--dest", str(work)], check=True)
        with tarfile.open(work / f"{name}-{version}.tar.gz") as archive:
            archive.extractall(work, filter="data")
    return folder


@contextlib.contextmanager
def plugin_environment(work: Path, s3_url: str, endpoint: str, server_key: str, client_key: str):
    """Environment variables that switch the plugin on for all buckets of that S3, or of AWS where `s3_url` is empty."""
    config = work / "aws-config"
    config.touch(0o600)
    local = f"endpoint_url = {s3_url}\ns3 =\n    addressing_style = path\n" if s3_url else ""
    config.write_text(f"""[default]
region = us-west-2
{local}raptor =
    endpoint = {endpoint}
    server_key = {server_key}
    client_key = {client_key}
    buckets = *
    threshold = 8MB
    timeout = 30s
""")
    yield {
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RAPTOR_RUNTIME_DIR": str(work / "run"),
        "BOTOCORE_EXPERIMENTAL__PLUGINS": "raptor_s3=raptor_s3.plugin",
        "PYTHONPATH": str(ROOT),
    }


def run(command: list[str], *, cwd: Path, **environ: str) -> bool:
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environ}).returncode == 0


def failures(command: list[str], cwd: Path, environ: dict[str, str]) -> set[str]:
    """Names of the tests that failed."""
    done = subprocess.run([*command, "-rfE"], cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True)
    sys.stdout.write(done.stdout.splitlines()[-1] + "\n")
    lines = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if done.returncode not in (0, 1):
        sys.stdout.write(done.stdout + done.stderr)
        lines.append("pytest itself")
    return set(lines)


if __name__ == "__main__":
    raise SystemExit(main())
