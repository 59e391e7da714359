"""What the plugin costs and saves in a boto3 program: client CPU per confirmed call, in one run, over loopback.

    python -m benchmarks.dropin [--rounds N] [--calls N]

Stock boto3 talks to nginx (TLS 1.3, kept alive), the plugin to `raptor gateway --sink null`; both answer at once. Both clients
live in this process and take turns, round by round, so that a busy machine disturbs both alike; a row is the median over the
rounds, its ratio the median of the rounds' ratios. CPU is user and system time of this whole process, s3transfer's threads
included. The last row starts fresh interpreters.

Needs nginx, and the right to listen on port 443 of a loopback address.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import io
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.peers.gateway import CLIENT_KEY_FILE, SERVER_PUBLIC_KEY_FILE, Gateway
from benchmarks.peers.loopback import Loopback
from benchmarks.peers.nginx import Nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADDRESS = "127.83.3.1"
BUCKET = "bench-bucket"


class Row(NamedTuple):
    name: str
    limit: float
    """The ratio, or the milliseconds, to stay within."""
    stock: Callable[[], object]
    plugin: Callable[[], object]
    share_of_calls: float = 1.0


class Result(NamedTuple):
    name: str
    limit: float
    stock_us: float
    plugin_us: float
    ratio: float


def main() -> int:
    options = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="raptor-dropin-"))
    atexit.register(shutil.rmtree, folder)  # after the engine's own farewell, which comes to be registered later
    with servers(folder) as (nginx, settings):
        rows = make_rows(folder, nginx, settings)
        results = [measure(row, options.rounds, max(1, round(options.calls * row.share_of_calls))) for row in rows]
        start_ms = start_cost_ms(nginx, settings, options.starts)
    sys.stdout.write(table(results, start_ms))
    missed = [result.name for result in results if result.ratio > result.limit]
    if start_ms > START_LIMIT_MS:
        missed.append("import and enable")
    sys.stdout.write(f"missed: {', '.join(missed)}\n" if missed else "all within their limits\n")
    return 1 if missed and options.strict else 0


START_LIMIT_MS = 15.0


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[tuple[Nginx, dict[str, Any]]]:
    """nginx, and the plugin's settings for a running gateway."""
    namespace = Loopback(ADDRESS)
    os.environ.update(
        AWS_ACCESS_KEY_ID="bench",
        AWS_SECRET_ACCESS_KEY="bench",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
    )
    with Nginx(namespace, folder) as nginx, Gateway(namespace, folder) as gateway:
        yield (
            nginx,
            {
                "endpoint": gateway.url,
                "server_key": (folder / SERVER_PUBLIC_KEY_FILE).read_text(),
                "client_key_file": str(folder / CLIENT_KEY_FILE),
                "buckets": BUCKET,
                "s3_endpoint": nginx.url,
                "on_failure": "raise",
                "timeout": "30s",
                "runtime_dir": str(folder / "run"),
            },
        )


def make_rows(folder: Path, nginx: Nginx, settings: dict[str, Any]) -> list[Row]:
    import raptor_s3

    stock, cold, plugin = (make_client(nginx) for _ in range(3))
    raptor_s3.enable(plugin, **settings)
    hook_only = make_client(nginx)
    _attach_hook(hook_only, settings)
    small, large = os.urandom(1024), os.urandom(100 * 1024)
    file = folder / "1k"
    file.write_bytes(small)

    def put(client: Any, body: bytes) -> Callable[[], object]:
        return lambda: client.put_object(Bucket=BUCKET, Key="key", Body=body)

    def put_cold() -> None:
        cold._endpoint.http_session._manager.clear()  # the connection, not what was loaded to make it
        cold.put_object(Bucket=BUCKET, Key="key", Body=small)

    def upload(client: Any) -> Callable[[], object]:
        return lambda: client.upload_file(str(file), BUCKET, "key")

    def upload_object(client: Any) -> Callable[[], object]:
        return lambda: client.upload_fileobj(io.BytesIO(small), BUCKET, "key")

    def head(client: Any) -> Callable[[], object]:
        return lambda: client.head_object(Bucket=BUCKET, Key="key")

    def put_elsewhere(client: Any) -> Callable[[], object]:
        return lambda: client.put_object(Bucket="elsewhere", Key="key", Body=small)

    return [
        Row("put_object, 1 KB", 1 / 8, put(stock, small), put(plugin, small)),
        Row("put_object, 1 KB, against a cold connection", 1 / 8, put_cold, put(plugin, small), 0.3),
        Row("put_object, 1 KB, plain hook without shortcuts", 1 / 2, put(stock, small), put(hook_only, small)),
        Row("put_object, 100 KB", 1 / 3, put(stock, large), put(plugin, large), 0.3),
        Row("upload_file, 1 KB", 1 / 8, upload(stock), upload(plugin)),
        Row("upload_fileobj, 1 KB", 1 / 8, upload_object(stock), upload_object(plugin)),
        Row("head_object (not a put)", 1.02, head(stock), head(plugin)),
        Row("put_object to another bucket (HTTPS)", 1.1, put_elsewhere(stock), put_elsewhere(plugin)),
    ]


def make_client(nginx: Nginx) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3", endpoint_url=nginx.url, verify=str(nginx.ca_file), config=Config(s3={"addressing_style": "path"})
    )


def _attach_hook(client: Any, settings: dict[str, Any]) -> None:
    from raptor_s3.routing import hooks
    from raptor_s3.routing.config import RaptorConfig

    hooks.attach(client, RaptorConfig.load({}, {}, settings))


def measure(row: Row, rounds: int, calls: int) -> Result:
    """Both in turns; CPU per call."""
    for call in (row.stock, row.plugin):
        for _ in range(max(3, calls // 10)):
            call()
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        order = (row.stock, row.plugin) if number % 2 else (row.plugin, row.stock)
        seconds = {call: cpu_of(call, calls) for call in order}
        pairs.append((seconds[row.stock], seconds[row.plugin]))
    stock_us, plugin_us = (statistics.median(pair[side] for pair in pairs) * 1e6 for side in (0, 1))
    return Result(row.name, row.limit, stock_us, plugin_us, statistics.median(plugin / stock for stock, plugin in pairs))


def cpu_of(call: Callable[[], object], calls: int) -> float:
    gc.collect()
    gc.disable()
    try:
        before = _cpu_s(resource.RUSAGE_SELF)
        for _ in range(calls):
            call()
        return (_cpu_s(resource.RUSAGE_SELF) - before) / calls
    finally:
        gc.enable()


def _cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def start_cost_ms(nginx: Nginx, settings: dict[str, Any], starts: int) -> float:
    """CPU that importing and enabling adds to a process that imports boto3 and makes a client, exit included: median of pairs.

    A pair runs back to back, in turns; the first, which writes the bytecode, doesn't count.
    """
    client = f"import boto3; client = boto3.client('s3', endpoint_url={nginx.url!r})"
    programs = (client, f"{client}; import raptor_s3; raptor_s3.enable(client, **{settings!r})")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    differences: list[float] = []
    for number in range(starts + 1):
        costs: dict[str, float] = {}
        for program in programs if number % 2 else reversed(programs):
            before = _cpu_s(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", program], check=True, env=environment)
            costs[program] = _cpu_s(resource.RUSAGE_CHILDREN) - before
        differences.append(costs[programs[1]] - costs[programs[0]])
    return statistics.median(differences[1:]) * 1e3


def table(results: list[Result], start_ms: float) -> str:
    lines = [
        "| CPU of the client, us per call | stock boto3 | with the plugin | ratio | limit |",
        "|---|---|---|---|---|",
    ]
    for name, limit, stock_us, plugin_us, ratio in results:
        lines.append(f"| {name} | {stock_us:,.0f} | {plugin_us:,.0f} | {ratio:.3f} | {limit:.3f} |")
    lines.append(f"| import and enable, ms over `import boto3` and a client | | {start_ms:.1f} | | {START_LIMIT_MS:.0f} |")
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=200, help="per round, of a quick row")
    parser.add_argument("--starts", type=int, default=40)
    parser.add_argument("--strict", action="store_true", help="exit 1 when a limit is missed")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
