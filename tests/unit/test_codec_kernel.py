"""The kernels: each one reachable, the same octets from all of them, every bound checked, numpy only when it is needed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from raptor_s3.codec import DegreeTable, ObjectDecoder, ObjectEncoder, ObjectTransmissionInformation, kernel, numpy_kernel, plans
from raptor_s3.codec.header import HEADER_SIZE, plan_header

COMPILED = [name for name in kernel.available() if name != "numpy"]
needs_compiled = pytest.mark.skipif(not COMPILED, reason="the C kernel is not built")


@pytest.fixture(autouse=True)
def _back_to_the_best() -> Iterator[None]:
    yield
    kernel.use(kernel.available()[0])
    plans.forget_plans()


def test_portable_c_comes_with_every_build_and_numpy_with_every_install() -> None:
    assert kernel.available()[-1] == "numpy"
    if COMPILED:
        assert COMPILED[-1] == "portable"
        assert kernel.active_name == COMPILED[0]


def test_a_kernel_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="mmx"):
        kernel.use("mmx")
    if COMPILED:
        from raptor_s3.codec import _kernel

        with pytest.raises(ValueError, match="numpy"):
            _kernel.choose("numpy")


def _naive_product(coefficients: bytes, rows: bytes, terms: int, size: int) -> bytes:
    def times(a: int, b: int) -> int:
        result = 0
        while b:
            if b & 1:
                result ^= a
            a = a << 1 ^ (0x11D if a & 0x80 else 0)
            b >>= 1
        return result

    out = bytearray()
    for i in range(len(coefficients) // terms):
        for at in range(size):
            value = 0
            for j in range(terms):
                value ^= times(coefficients[i * terms + j], rows[j * size + at])
            out.append(value)
    return bytes(out)


@pytest.mark.parametrize("name", kernel.available())
@pytest.mark.parametrize(("count", "terms", "size"), [(1, 1, 1), (2, 3, 7), (3, 2, 15), (5, 3, 33), (7, 2, 65), (4, 5, 130)])
def test_products_equal_the_definition_of_the_field(name: str, count: int, terms: int, size: int) -> None:
    kernel.use(name)
    choice = random.Random(size)
    coefficients, rows = choice.randbytes(count * terms), choice.randbytes(terms * size)
    product = kernel.active.product(coefficients, rows, terms, size)
    assert product == _naive_product(coefficients, rows, terms, size)


@pytest.mark.parametrize("name", kernel.available())
def test_every_product_of_two_octets(name: str) -> None:
    kernel.use(name)
    octets = bytes(range(256))
    assert kernel.active.product(octets, octets, 1, 256) == _naive_product(octets, octets, 1, 256)


@pytest.mark.parametrize("table", DegreeTable)
@pytest.mark.parametrize("symbols", [1, 10, 11, 40, 300])
def test_either_plan_serves_either_kernel(symbols: int, table: DegreeTable) -> None:
    if not COMPILED:
        pytest.skip("the C kernel is not built")
    from raptor_s3.codec import _kernel

    empty_plan = plan_header(symbols, table)
    data, size = random.Random(symbols).randbytes(symbols * 37 - 5), 37
    seen = set()
    for make in (_kernel.make_plan, numpy_kernel.make_plan):
        plan = make(empty_plan)
        for write in (_kernel.write_packets, numpy_kernel.write_packets):
            arena = bytearray((symbols + 40) * 50)
            assert (
                write(plan, b"", data, 0, len(data), symbols, size, arena, 3, 49, b"prefix", 9, 0, symbols + 40)
                == 3 + (symbols + 40) * 49
            )
            seen.add(bytes(arena))
    assert len(seen) == 1


def _calls(module: Any) -> dict[str, tuple[Any, list[Any]]]:
    plan, data = module.make_plan(plan_header(10)), bytes(100)
    return {
        "make_plan": (module.make_plan, [plan_header(10)]),
        "make_intermediate": (module.make_intermediate, [plan, data, 0, 100, 10, 10]),
        "write_packets": (module.write_packets, [plan, b"", data, 0, 100, 10, 10, bytearray(1000), 5, 20, b"x", 0, 0, 20]),
        "decode": (module.decode, [plan, plan, bytes(300), 4, 14, 12, None, 1, 10, 100]),
        "decode held": (module.decode, [plan, plan, bytearray(120), 0, 10, 12, list(range(12)), 1, 10, 100]),
        "product": (module.product, [bytes(20), bytes(100), 10, 10]),
    }


OUT_OF_BOUNDS = [
    ("make_intermediate", {2: -1}),
    ("make_intermediate", {2: 1}),
    ("make_intermediate", {3: 101}),
    ("make_intermediate", {3: 90 - 1}),
    ("make_intermediate", {4: 0}),
    ("make_intermediate", {4: 11, 3: 100}),
    ("make_intermediate", {5: 0}),
    ("make_intermediate", {5: 65_536}),
    ("make_intermediate", {2: 1 << 80}),
    ("write_packets", {3: 50, 4: 51}),
    ("write_packets", {7: bytearray(399)}),
    ("write_packets", {8: 606}),
    ("write_packets", {8: -1}),
    ("write_packets", {9: 14}),
    ("write_packets", {9: 1 << 62}),
    ("write_packets", {11: 256}),
    ("write_packets", {12: 1 << 24}),
    ("write_packets", {12: (1 << 24) - 5}),
    ("write_packets", {13: 1 << 24}),
    ("write_packets", {0: plan_header(10)}),
    ("decode", {3: 3}),
    ("decode", {3: 301}),
    ("decode", {3: 137}),
    ("decode", {4: 0}),
    ("decode", {4: 27}),
    ("decode", {5: 22}),
    ("decode", {5: 1 << 25}),
    ("decode", {5: -1}),
    ("decode", {7: 0}),
    ("decode", {7: 11}),
    ("decode", {7: 256, 8: 1, 9: 300}),
    ("decode", {8: 0}),
    ("decode", {8: 65_536}),
    ("decode", {8: 9}),
    ("decode", {9: 101}),
    ("decode", {9: -1}),
    ("decode", {9: 1 << 62}),
    ("decode", {0: plans.rfc6330_plan(20), 9: 101}),
    ("decode", {1: plans.rfc6330_plan(20), 7: 2, 9: 210}),
    ("decode held", {6: list(range(11))}),
    ("decode held", {6: [*range(11), 1 << 24]}),
    ("decode held", {6: [*range(11), -1]}),
    ("decode held", {2: bytes(120)}),
    ("decode held", {7: 2}),
    ("product", {2: 0}),
    ("product", {2: 7}),
    ("product", {3: 9}),
]


@pytest.mark.parametrize("name", ["C", "numpy"])
@pytest.mark.parametrize(("function", "changes"), OUT_OF_BOUNDS)
def test_out_of_bounds_is_a_value_error(name: str, function: str, changes: dict[int, Any]) -> None:
    if name == "C" and not COMPILED:
        pytest.skip("the C kernel is not built")
    kernel.use(COMPILED[0] if name == "C" else "numpy")
    call, arguments = _calls(kernel.active)[function]
    call(*arguments)
    for index, value in changes.items():
        arguments[index] = value
    with pytest.raises((ValueError, BufferError)):
        call(*arguments)


@needs_compiled
@pytest.mark.parametrize("length", [0, 1, HEADER_SIZE - 1, HEADER_SIZE + 1])
def test_what_is_not_a_plan_is_refused(length: int) -> None:
    from raptor_s3.codec import _kernel

    plan = _kernel.make_plan(plan_header(10))[:length]
    with pytest.raises(ValueError, match="plan"):
        _kernel.write_packets(plan, b"", bytes(100), 0, 100, 10, 10, bytearray(1000), 5, 20, b"x", 0, 0, 20)


@needs_compiled
def test_a_read_only_arena_is_refused() -> None:
    from raptor_s3.codec import _kernel

    call, arguments = _calls(_kernel)["write_packets"]
    arguments[7] = bytes(1000)
    with pytest.raises(BufferError):
        call(*arguments)


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


WORK = """
from raptor_s3.codec import ObjectDecoder, ObjectEncoder, ObjectTransmissionInformation
oti = ObjectTransmissionInformation(1000, 100, 1)
encoder, decoder = ObjectEncoder(bytes(range(250)) * 4, oti), ObjectDecoder(oti)
for esi in range(3, 15):
    decoder.add(0, esi, encoder.symbol(0, esi))
assert decoder.data() == bytes(range(250)) * 4
"""


def test_importing_the_codec_loads_next_to_nothing() -> None:
    before = "import sys; before = set(sys.modules); "
    new = _python("import sys, raptor_s3; " + before + "import raptor_s3.codec; print(*set(sys.modules) - before)").split()
    assert new == ["raptor_s3.codec"]


@needs_compiled
def test_numpy_is_not_imported_where_the_c_kernel_is_built() -> None:
    heavy = {"numpy", "botocore", "boto3", "dataclasses", "inspect", "struct", "array"}
    assert not heavy & set(_python(f"import sys{WORK}print(*sys.modules)").split())


def test_without_the_c_kernel_numpy_takes_over() -> None:
    block = "import sys; sys.modules['raptor_s3.codec._kernel'] = None"
    tail = "from raptor_s3.codec import kernel; print(kernel.active_name, kernel.available(), 'numpy' in sys.modules)"
    assert _python(f"{block}{WORK}{tail}").split(maxsplit=1)[0] == "numpy"


def test_threads_share_encoders_and_plans() -> None:
    """Plans are octets that nobody changes; a lost race for one costs a second making, nothing else."""
    plans.forget_plans()
    shapes = [(10, 64), (33, 100), (200, 64), (400, 256)]
    objects = []
    for symbols, size in shapes:
        data = random.Random(symbols).randbytes(symbols * size)
        oti = ObjectTransmissionInformation(len(data), size, 1)
        objects.append((data, oti, ObjectEncoder(data, oti)))
    failures: list[object] = []

    def work(seed: int) -> None:
        choice = random.Random(seed)
        try:
            for _ in range(12):
                data, oti, encoder = choice.choice(objects)
                symbols = oti.block_symbols(0)
                first = choice.randrange(1, symbols)
                arena, decoder = bytearray((symbols + 8) * (oti.symbol_size + 4)), ObjectDecoder(oti)
                encoder.packets_into(arena, 0, oti.symbol_size + 4, b"", 0, first, symbols + 8)
                decoder.add_packets(arena, 0, oti.symbol_size + 4, symbols + 8)
                if decoder.data() != data:
                    failures.append(seed)
                if choice.random() < 0.2:
                    plans.forget_plans()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
