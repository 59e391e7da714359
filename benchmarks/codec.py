"""The codec against PyPI `raptorq` (Rust): `python -m benchmarks.codec [--kernel NAME] [--all-kernels] [--write]`.
How often K, K + 1 and K + 2 random symbols are not enough: `python -m benchmarks.codec --failures 100000`.

Both in one process and one thread. For each size and direction short samples of ours and of theirs alternate, so that whatever
else the machine does hits both; the medians are compared. Plans are warm. Encoding includes building every datagram: payload id,
symbol and, on our side only, a 40-octet prefix, in an arena that is used again. Decoding includes taking every packet in.

`--write` puts the tables into docs/benchmarks.md, with the machine that they were measured on.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import raptorq

from raptor_s3.codec import ObjectDecoder, ObjectEncoder, ObjectTransmissionInformation, kernel, plans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PREFIX = bytes(40)
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- codec: python -m benchmarks.codec --write -->", "<!-- /codec -->"


@dataclass(frozen=True)
class Shape:
    """An object as docs/wire.md cuts it, with repair symbols for a loss of 5 %."""

    name: str
    size: int
    symbols: int  # K of each block
    blocks: int
    encode_target: float
    decode_target: float

    @property
    def symbol_size(self) -> int:
        return -(-self.size // (self.symbols * self.blocks))

    @property
    def repair(self) -> int:
        return -(-self.symbols // 20)


SHAPES = [
    Shape("1 KB", 1_024, 1, 1, 0.05, 0.06),
    Shape("10 KB", 10_240, 8, 1, 0.05, 0.06),
    Shape("100 KB", 102_400, 128, 1, 0.04, 0.05),
    Shape("512 KB", 524_288, 512, 1, 0.10, 0.12),
    Shape("1 MB", 1_048_576, 512, 2, 0.10, 0.12),
]


def timed(work: Callable[[], object], repeat: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    return (time.perf_counter() - start) / repeat


def medians(works: list[Callable[[], object]], seconds: float) -> list[float]:
    """Median seconds per call of each, in alternating samples of about a millisecond, or of one longer call.

    The first call of a sample finds the caches full of the others' data.
    """
    repeats = [max(1, round(1e-3 / timed(work, 3))) for work in works]
    samples: list[list[float]] = [[] for _ in works]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[0]) < 9:
        for work, repeat, times in zip(works, repeats, samples, strict=True):
            times.append(timed(work, repeat))
    return [statistics.median(times) for times in samples]


@dataclass
class Row:
    """Microseconds."""

    shape: Shape
    rust_encode: float
    encode: float
    rust_decode: float
    decode: float
    decode_singly: float


def measure(shape: Shape, seconds: float) -> Row:
    data = random.Random(shape.size).randbytes(shape.size)
    size, blocks, repair = shape.symbol_size, shape.blocks, shape.repair
    oti = ObjectTransmissionInformation(shape.size, size, blocks)
    per_block = shape.symbols + repair
    stride = len(PREFIX) + 4 + size
    arena = bytearray(blocks * per_block * stride)

    def rust_encode() -> Any:
        return raptorq.Encoder.with_defaults(data, size).get_encoded_packets(repair * blocks)

    def encode() -> None:
        encoder, at = ObjectEncoder(data, oti), 0
        for sbn in range(blocks):
            at = encoder.packets_into(arena, at, stride, PREFIX, sbn, 0, per_block)

    encode()
    lost = set(range(0, shape.symbols, max(1, shape.symbols // repair))[:repair])
    slots = [i for i in range(blocks * per_block) if i % per_block not in lost]
    received = b"".join([arena[i * stride : (i + 1) * stride] for i in slots])
    singly = [(i // per_block, i % per_block, bytes(arena[(i + 1) * stride - size : (i + 1) * stride])) for i in slots]
    rust_lost = set(range(0, shape.symbols * blocks, max(1, shape.symbols // repair))[: repair * blocks])
    rust_received = [packet for packet in rust_encode() if int.from_bytes(packet[1:4], "big") not in rust_lost]

    def rust_decode() -> bytes | None:
        decoder = raptorq.Decoder.with_defaults(shape.size, size)
        for packet in rust_received:
            result: bytes | None = decoder.decode(packet)
            if result is not None:
                return result
        return None

    def decode() -> bytes:
        decoder = ObjectDecoder(oti)
        decoder.add_packets(received, len(PREFIX), stride, len(slots))
        return decoder.data()

    def decode_singly() -> bytes:
        decoder = ObjectDecoder(oti)
        for sbn, esi, symbol in singly:
            decoder.add(sbn, esi, symbol)
        return decoder.data()

    if not data == rust_decode() == decode() == decode_singly():
        raise AssertionError("not decoded")
    return Row(shape, *(1e6 * time for time in medians([rust_encode, encode, rust_decode, decode, decode_singly], seconds)))


def table(rows: list[Row]) -> list[str]:
    lines = ["| | " + " | ".join(row.shape.name for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]

    def line(title: str, cells: list[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    line("K x T, repair", [f"{r.shape.blocks} x {r.shape.symbols} x {r.shape.symbol_size}, {r.shape.repair}" for r in rows])
    line("encode, Rust, us", [f"{row.rust_encode:,.0f}" for row in rows])
    line("encode to arena, us", [f"{row.encode:,.2f}" for row in rows])
    line("**encode, ratio**", [f"**{row.encode / row.rust_encode:.3f}**" for row in rows])
    line("to reach", [f"{row.shape.encode_target:.2f}" for row in rows])
    line("decode, Rust, us", [f"{row.rust_decode:,.0f}" for row in rows])
    line("decode, 5 % lost, us", [f"{row.decode:,.2f}" for row in rows])
    line("**decode, ratio**", [f"**{row.decode / row.rust_decode:.3f}**" for row in rows])
    line("to reach", [f"{row.shape.decode_target:.2f}" for row in rows])
    line("decode by `add()` per symbol, ratio", [f"{row.decode_singly / row.rust_decode:.3f}" for row in rows])
    return lines


@contextmanager
def running_on(name: str) -> Iterator[None]:
    before = kernel.active_name
    kernel.use(name)
    plans.forget_plans()
    try:
        yield
    finally:
        kernel.use(before)
        plans.forget_plans()


def cold_plan_ms(symbols: int) -> float:
    def work() -> None:
        plans.forget_plans()
        plans.rfc6330_plan(symbols)

    return 1e3 * statistics.median([timed(work, 1) for _ in range(25)])


def import_ms(statement: str) -> float:
    """CPU milliseconds of `statement` in a fresh interpreter that has `raptor_s3` itself."""
    code = f"import time, raptor_s3; t = time.process_time(); {statement}; print((time.process_time() - t) * 1e3)"
    run = [float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout) for _ in range(9)]
    return statistics.median(run)


def largest() -> list[str]:
    symbols, size = 56_403, 64
    shape = Shape("largest", symbols * size, symbols, 1, 5, 5)
    row = measure(shape, 1)
    return [
        f"- K = 56,403, T = 64: encode {row.encode / 1e3:,.0f} ms, {row.encode / row.rust_encode:.2f} of Rust's; "
        f"decode {row.decode / 1e3:,.0f} ms, {row.decode / row.rust_decode:.2f} (to reach: 5)",
    ]


def failure_rates(trials: int) -> list[str]:
    """How often a set of K + overhead distinct symbols, drawn from 3 K, does not determine the block."""
    lines = ["| failed of trials | K + 0 | K + 1 | K + 2 |", "|---|---|---|---|"]
    choice = random.Random(7)
    for symbols in (10, 26, 101, 128, 512):
        plan = plans.rfc6330_plan(symbols)
        count = max(trials * 10 // max(symbols, 10), 1000)
        cells = []
        for overhead in range(3):
            received, failures = bytearray(symbols + overhead), 0
            for _ in range(count):
                esis = choice.sample(range(3 * symbols), symbols + overhead)
                arguments = (plan, plan, received, 0, 1, len(esis), esis, 1, 1, symbols)
                failures += kernel.active.decode(*arguments)[2] is None
            cells.append(f"{failures} of {count:,} = {failures / count:.1e}")
        lines.append(f"| K = {symbols} | " + " | ".join(cells) + " |")
    return lines


def machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.*)", info.read_text())):
        model = found[1]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}; CPython {platform.python_version()}, "
        f"raptorq {version('raptorq')}, numpy {version('numpy')}; load average {load}"
    )


def report(names: list[str], seconds: float) -> list[str]:
    lines = [time.strftime("Measured %Y-%m-%d on ") + machine() + ".", ""]
    for name in names:
        with running_on(name):
            rows = [measure(shape, seconds) for shape in SHAPES]
        lines += [f"Kernel `{name}`:", "", *table(rows), ""]
    lines.append(f"- Cold plan, K = 512: {cold_plan_ms(512):.2f} ms (to reach: 2); K = 2,000: {cold_plan_ms(2000):.1f} ms")
    package = import_ms("import raptor_s3.codec")
    first_use = import_ms("from raptor_s3.codec import ObjectDecoder, ObjectEncoder")
    lines.append(f"- `import raptor_s3.codec`: {package:.2f} ms of CPU (to reach: 1); with all of its parts {first_use:.1f} ms")
    return lines + largest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", choices=kernel.available(), default=kernel.available()[0])
    parser.add_argument("--all-kernels", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0, help="per size and kernel")
    parser.add_argument("--failures", type=int, metavar="TRIALS", help="measure decode failures instead of speed")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.failures:
        print("\n".join(failure_rates(arguments.failures)))
        return
    lines = report(list(kernel.available()) if arguments.all_kernels else [arguments.kernel], arguments.seconds)
    print("\n".join(lines))
    if arguments.write:
        text = DOCUMENT.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        DOCUMENT.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
