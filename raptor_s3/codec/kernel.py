"""The arithmetic in use: the C kernel where it was built, else its numpy twin, which gives the same octets.

The C kernel picks the best of its instruction sets that the CPU has: `gfni_avx512`, `gfni_avx2`, `avx2`, `ssse3` or `neon`,
`portable`. Tests and benchmarks force one of these, or `numpy`, with `use`.

Invariant: numpy is imported only if the C kernel is missing or the twin is asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Protocol

    from typing_extensions import Buffer

    class Kernel(Protocol):
        """What _kernel.pyi and numpy_kernel both offer."""

        def make_plan(self, header: Buffer, /) -> bytes: ...
        def make_intermediate(self, plan: Buffer, data: Buffer, start: int, length: int, symbols: int, size: int, /) -> bytes: ...
        def write_packets(
            self,
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
            self,
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


try:
    from raptor_s3.codec import _kernel as _compiled
except ImportError:  # not built: no compiler, or a platform that it does not know
    _compiled: ModuleType | None = None  # type: ignore[no-redef]


def available() -> tuple[str, ...]:
    """The names that `use` takes on this machine, best first."""
    return (*(_compiled.implementations() if _compiled else ()), "numpy")


def use(name: str) -> None:
    """Switch every thread to kernel `name`. ValueError if it can't be had: a test must not pass on another path than it names."""
    global active, active_name
    if name not in available():
        raise ValueError(f"no codec kernel {name!r} on this machine, only {', '.join(available())}")
    if name == "numpy":
        from raptor_s3.codec import numpy_kernel

        active = numpy_kernel
    else:
        _compiled.choose(name)
        active = _compiled
    active_name = name


active: Kernel
active_name: str
use(available()[0])
