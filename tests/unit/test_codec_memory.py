"""How much memory a decode takes: at most three times the object, all of the process counted, the C kernel's too."""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys

import pytest

from raptor_s3.codec import ObjectEncoder, ObjectTransmissionInformation, kernel
from raptor_s3.wire.datagram import plan_object

DECODE = """
import ctypes, gc, re, sys
from raptor_s3.codec import ObjectDecoder, ObjectTransmissionInformation, kernel, plans

def status(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

def packet(size):
    octets = sys.stdin.buffer.read(4 + size)
    return octets[0], int.from_bytes(octets[1:4], "big"), octets[4:]

kernel.use(sys.argv[1])
oti = ObjectTransmissionInformation(*map(int, sys.argv[2:5]))
for sbn in range(oti.source_blocks):
    plans.rfc6330_plan(oti.block_symbols(sbn))
sys.stdin.buffer.peek(1)
for _ in range(2):  # code and caches, not data
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    warm = ObjectDecoder(ObjectTransmissionInformation(1000, 10, 1))
    for esi in range(90, 210):
        warm.add(0, esi, bytes(10))
    del warm
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
before, decoder = status("VmRSS"), ObjectDecoder(oti)
while not decoder.is_complete:
    decoder.add(*packet(oti.symbol_size))
assert len(decoder.data()) == oti.transfer_length
print((status("VmHWM") - before) / oti.transfer_length)
"""

# What the process has freed is the system's again at once, or a part of the decode would hide in it.
ENVIRONMENT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}

# Sizes around which the rule of docs/wire.md changes K, T or Z
SHAPES = {
    "512 of 641 octets": plan_object(328_000, 22),
    "512 of 1,024 octets": plan_object(524_288, 22),
    "2 blocks, 256 of 1,025 octets": plan_object(524_800, 22),
    "2 blocks, 512 of 641 octets": plan_object(656_000, 22),
    "2 blocks, 512 of 1,024 octets": plan_object(1_048_576, 22),
    "5 blocks, 410 of 1,221 octets": plan_object(2_500_000, 22),
}
# Small symbols, which it never makes
SMALL = {
    "2,048 of 256 octets": ObjectTransmissionInformation(2_048 * 256, 256, 1),
    "4,096 of 256 octets": ObjectTransmissionInformation(4_096 * 256, 256, 1),
}
BEST = kernel.available()[0]
needs_linux = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK) or platform.libc_ver()[0] != "glibc", reason="no way to measure it here"
)


def peak(name: str, oti: ObjectTransmissionInformation, lost: float) -> float:
    """The most memory that decoding took at any time, as a multiple of the object."""
    encoder = ObjectEncoder(random.Random(3).randbytes(oti.transfer_length), oti)
    packets = bytearray()
    for sbn in range(oti.source_blocks):
        symbols = oti.block_symbols(sbn)
        count, stride, at = symbols + 5, 4 + oti.symbol_size, len(packets)
        packets += bytes(count * stride)
        encoder.packets_into(packets, at, stride, b"", sbn, int(symbols * lost), count)
    shape = map(str, (oti.transfer_length, oti.symbol_size, oti.source_blocks))
    run = subprocess.run([sys.executable, "-c", DECODE, name, *shape], input=packets, capture_output=True, env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr.decode()
    return float(run.stdout)


@needs_linux
@pytest.mark.parametrize("name", sorted({BEST, "numpy"}))
@pytest.mark.parametrize("lost", [0, 0.05, 0.5, 1])
@pytest.mark.parametrize("oti", SHAPES.values(), ids=SHAPES)
def test_a_decode_takes_at_most_three_times_the_object(oti: ObjectTransmissionInformation, lost: float, name: str) -> None:
    if name == "numpy" and oti.transfer_length < 1 << 20:
        pytest.skip("the twin needs some 300 KB whatever the object")
    assert peak(name, oti, lost) < 3


@needs_linux
@pytest.mark.skipif(BEST == "numpy", reason="small symbols cost the twin more")
@pytest.mark.parametrize("lost", [0, 0.05, 0.5, 1])
@pytest.mark.parametrize("oti", SMALL.values(), ids=SMALL)
def test_small_symbols_cost_the_c_kernel_no_more(oti: ObjectTransmissionInformation, lost: float) -> None:
    assert peak(BEST, oti, lost) < 3
