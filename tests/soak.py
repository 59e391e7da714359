"""Many puts through everything real, for long, on a bad day: nothing lost, nothing under a wrong key, nothing leaked.

    python tests/soak.py                     100,000 puts from 16 threads, 5% loss each way, a gateway that is killed now and then
    python tests/soak.py --puts 2000         the same, short

One client, shared by the threads, with the plugin; a UDP relay that loses datagrams; `raptor gateway`; a store that speaks S3 and
remembers every object it was given, in order. Store, relay and gateway are processes of their own, so that memory and descriptors
counted here are the client's. Keys are written once, or several times by the same thread: then the last put must win.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import hashlib
import http.client
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parent / "integration"))

BUCKET, PROBE = "soak", "probe"
# (share of the puts, largest size)
SIZES = ((0.02, 0), (0.58, 1_300), (0.30, 10_000), (0.09, 100_000), (0.01, 300_000))
REWRITTEN = 0.1  # share of keys that are put three times
MAX_GROWTH_KB = 16 * 1024
MAX_NEW_DESCRIPTORS = 8  # beside a kept-alive HTTPS connection for each thread


def main() -> int:
    options = _arguments()
    if options.serve:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        return {"store": serve_store, "relay": serve_relay}[options.serve](options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the gateway, too
    from gateway_rig import AWS_ENV, GatewayProcess

    for name in [name for name in os.environ if name.startswith(("AWS_", "RAPTOR_", "BOTOCORE_"))]:
        del os.environ[name]
    os.environ.update(AWS_ENV)
    folder = Path(tempfile.mkdtemp(prefix="raptor-soak-"))
    atexit.register(shutil.rmtree, folder)  # after the engine's own farewell, which comes to be registered later
    with contextlib.ExitStack() as stack:
        store_port = stack.enter_context(child("store"))
        store_url = f"http://127.0.0.1:{store_port}"
        peers = {"soak": {"allow": [{"bucket": BUCKET}]}}
        gateway = stack.enter_context(GatewayProcess(folder, "--aws-endpoint-url", store_url, peers=peers))
        relay_port = stack.enter_context(child("relay", f"--target={gateway.ready['port']}", f"--loss={options.loss}"))
        return Soak(options, folder, store_port, gateway, relay_port).run()


class Soak:
    def __init__(self, options, folder, store_port, gateway, relay_port) -> None:
        import boto3
        from botocore.config import Config

        import raptor_s3
        from raptor_s3.wireguard.keys import key_to_base64

        self.options = options
        self.gateway = gateway
        self.store_port = store_port
        self.done = 0
        self.routes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.errors: list[str] = []
        self.lock = threading.Lock()
        self.finished = threading.Event()
        settings = {
            "endpoint": f"wg://127.0.0.1:{relay_port}",
            "server_key": gateway.ready["public_key"],
            "client_key": key_to_base64(gateway.private_keys["soak"]),
            "buckets": BUCKET,
            "s3_endpoint": f"http://127.0.0.1:{store_port}",
            "runtime_dir": str(folder / "run"),
            "timeout": options.timeout,
        }
        self.client, self.strict_client = (
            boto3.session.Session().client(
                "s3",
                endpoint_url=f"http://127.0.0.1:{store_port}",
                config=Config(s3={"addressing_style": "path"}, max_pool_connections=options.threads),
            )
            for _ in range(2)
        )
        raptor_s3.enable(self.client, **settings)
        raptor_s3.enable(self.strict_client, **settings, transport="raptor")

    def run(self) -> int:
        workers = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(self.options.threads)]
        restarter = threading.Thread(target=self.restart_gateway, daemon=True)
        began = time.monotonic()
        for thread in (*workers, restarter):
            thread.start()
        sizes = self.watch()
        for worker in workers:
            worker.join()
        self.finished.set()
        restarter.join()
        elapsed_s = time.monotonic() - began
        sizes.append((memory_kb(), descriptors()))
        problems = self.errors + self.leaks(sizes) + self.compare()
        sys.stdout.write(
            f"{self.done} puts in {elapsed_s:.0f} s: {dict(self.routes)}\n"
            + "".join(f"  {count} over HTTPS: {reason}\n" for reason, count in self.reasons.most_common(8))
        )
        for problem in problems[:20]:
            sys.stdout.write(f"PROBLEM {problem}\n")
        sys.stdout.write(f"{len(problems)} problems\n" if problems else "nothing lost, nothing mixed up, nothing leaked\n")
        return 1 if problems else 0

    def plan(self, number: int) -> list[tuple[str, int, int]]:
        """(key, seed of the body, size) of each put of one thread, in order."""
        dice = random.Random(f"{self.options.seed}/{number}")
        puts = []
        count = self.options.puts // self.options.threads
        while len(puts) < count:
            key = f"{number}/{len(puts)}/{'ü ' * dice.randrange(3)}"
            for _ in range(3 if dice.random() < REWRITTEN else 1):
                largest = dice.choices([size for _, size in SIZES], [share for share, _ in SIZES])[0]
                puts.append((key, dice.getrandbits(64), dice.randint(0, largest)))
        return puts[:count]

    def work(self, number: int) -> None:
        for key, seed, size in self.plan(number):
            try:
                body = random.Random(seed).randbytes(size)
                response = self.client.put_object(Bucket=BUCKET, Key=key, Body=body)
                metadata = response["ResponseMetadata"]["Raptor"]
                if response["ETag"] != f'"{hashlib.md5(body).hexdigest()}"':
                    self.errors.append(f"{key}: a wrong ETag")
            except Exception as error:
                self.errors.append(f"{key}: {type(error).__name__}: {error}")
                metadata = {"Route": "error"}
            with self.lock:
                self.done += 1
                self.routes[metadata["Route"]] += 1
                if reason := metadata.get("Reason"):
                    self.reasons["circuit breaker" if "circuit breaker" in reason else reason.split(" > ")[-1][:90]] += 1

    def restart_gateway(self) -> None:
        address = f"{self.gateway.ready['host']}:{self.gateway.ready['port']}"
        for number in range(1, self.options.restarts + 1):
            while self.done < self.options.puts * number / (self.options.restarts + 1):
                if self.finished.wait(0.1):
                    return
            self.gateway.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
            self.gateway.process.wait(30)
            self.gateway.ready_file.unlink(missing_ok=True)
            self.gateway.start(address)
            with contextlib.suppress(Exception):  # a success closes the circuit breaker: there is more to see with it closed
                self.strict_client.put_object(Bucket=BUCKET, Key=PROBE, Body=b"")
            sys.stdout.write(f"gateway restarted after {self.done} puts\n")
            sys.stdout.flush()

    def watch(self) -> list[tuple[int, int]]:
        """Memory in KB and descriptors after each fifth of the puts but the last. Most has reached its size after the first."""
        sizes = []
        for fifth in range(1, 5):
            while self.done < self.options.puts * fifth / 5:
                time.sleep(0.1)
            sizes.append((memory_kb(), descriptors()))
        return sizes

    def compare(self) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.store_port)
        connection.request("GET", "/dump")
        stored: dict[str, list[str]] = json.loads(connection.getresponse().read())
        stored.pop(f"/{BUCKET}/{PROBE}", None)
        expected: dict[str, list[str]] = {}
        for number in range(self.options.threads):
            for key, seed, size in self.plan(number):
                digest = hashlib.sha256(random.Random(seed).randbytes(size)).hexdigest()
                expected.setdefault(f"/{BUCKET}/{key}", []).append(digest)
        problems = [f"{key} is not there" for key in expected.keys() - stored.keys()]
        problems += [f"{key} was never put" for key in stored.keys() - expected.keys()]
        for key in expected.keys() & stored.keys():
            if stored[key][-1] != expected[key][-1]:
                problems.append(f"{key} holds an older put" if stored[key][-1] in expected[key] else f"{key} holds another body")
            elif not set(stored[key]) <= set(expected[key]):
                problems.append(f"{key} held another body for a while")
        return problems

    def leaks(self, sizes: list[tuple[int, int]]) -> list[str]:
        memory, files = (last - first for first, last in zip(sizes[0], sizes[-1], strict=True))
        series = ", ".join(f"{kb / 1024:.1f}" for kb, _ in sizes)
        sys.stdout.write(f"MiB after each fifth of the puts: {series}; {files:+d} descriptors\n")
        problems = [f"memory grew by {memory} KB"] if memory > MAX_GROWTH_KB else []
        return problems + ([f"{files} more descriptors"] if files > self.options.threads + MAX_NEW_DESCRIPTORS else [])


def memory_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def child(*arguments: str):
    """One of the other processes; yields the port that it prints."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def serve_store(options) -> int:
    history: dict[str, list[str]] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_PUT(self):
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # its sender was killed half-way: S3 keeps nothing of it either
                return
            with lock:
                history.setdefault(unquote(self.path), []).append(hashlib.sha256(body).hexdigest())
            self.answer(b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "x-amz-request-id": "SOAK"})

        def do_GET(self):
            with lock:
                self.answer(json.dumps(history).encode(), {})

        def answer(self, body, headers):
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, request, client_address):
            """A gateway that is killed leaves its connections."""

    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
    return 0


def serve_relay(options) -> int:
    """Datagrams from each sender to the target and back, fewer of them."""
    dice = random.Random(options.seed)
    front = _udp()
    front.bind(("127.0.0.1", 0))
    sys.stdout.write(f"{front.getsockname()[1]}\n")
    sys.stdout.flush()
    backs: dict[tuple[str, int], socket.socket] = {}
    senders: dict[int, tuple[str, int]] = {}
    poll = select.epoll()
    poll.register(front, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == front.fileno():
                datagram, sender = front.recvfrom(65536)
                back = backs.get(sender)
                if back is None:
                    back = backs[sender] = _udp()
                    back.connect(("127.0.0.1", options.target))
                    senders[back.fileno()] = sender
                    poll.register(back, select.EPOLLIN)
                if dice.random() >= options.loss:
                    with contextlib.suppress(OSError):
                        back.send(datagram)
            else:
                sender = senders[descriptor]
                with contextlib.suppress(OSError):
                    datagram = backs[sender].recv(65536)
                    if dice.random() >= options.loss:
                        front.sendto(datagram, sender)


def _udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    return made


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--puts", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--loss", type=float, default=0.05)
    parser.add_argument("--timeout", default="5s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", choices=["store", "relay"], help=argparse.SUPPRESS)
    parser.add_argument("--target", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
