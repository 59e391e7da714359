"""The C kernel (see _kernel.c). The arguments are described in numpy_kernel.py, its twin."""

from typing_extensions import Buffer

def make_plan(header: Buffer, /) -> bytes: ...
def make_intermediate(plan: Buffer, data: Buffer, start: int, length: int, symbols: int, size: int, /) -> bytes: ...
def write_packets(
    plan: Buffer,
    intermediate: Buffer,
    data: Buffer,
    start: int,
    length: int,
    symbols: int,
    size: int,
    arena: Buffer,
    offset: int,
    stride: int,
    prefix: Buffer,
    sbn: int,
    first_esi: int,
    count: int,
    /,
) -> int: ...
def decode(
    plan: Buffer,
    last_plan: Buffer,
    received: Buffer,
    offset: int,
    stride: int,
    count: int,
    esis: list[int] | None,
    blocks: int,
    size: int,
    length: int,
    /,
) -> tuple[tuple[int, ...], int, bytes | None]: ...
def product(coefficients: Buffer, rows: Buffer, terms: int, size: int, /) -> bytes: ...
def implementations() -> tuple[str, ...]: ...
def choose(name: str, /) -> str: ...
