"""The clock of `now`: seconds that every process on this machine agrees on until it reboots.

CLOCK_BOOTTIME on Linux: it goes on during suspend, as the peer's timers do; elsewhere the nearest there is. Values of before
a reboot mean nothing after it, so whoever stores one stores `boot_id()` with it. The wall clock plays no part where the
kernel names its boots.
"""

from __future__ import annotations

import functools
import struct
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"
# Two estimates of one boot's time differ by clock adjustments only; a reboot moves it by the whole uptime.
_BOOT_TIME_TOLERANCE_S = 5.0
_ESTIMATED = b"estimate"

if hasattr(time, "CLOCK_BOOTTIME"):
    now: Callable[[], float] = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    """Seconds since boot, suspend included."""
elif sys.platform == "darwin":  # pragma: no cover - time.monotonic stops during sleep there, CLOCK_MONOTONIC does not
    now = functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)
else:  # pragma: no cover
    now = time.monotonic


def wall_time() -> float:
    """Seconds since 1970: for timestamps that leave this machine, and for file times."""
    return time.time()


@functools.cache
def boot_id() -> bytes:
    """16 octets that name this boot: the kernel's random ones, or an estimate of when it was. Compare with `is_this_boot`."""
    try:
        with open(_BOOT_ID_PATH, "rb") as file:
            identity = bytes.fromhex(file.read(64).decode().replace("-", ""))
        if len(identity) == 16:
            return identity
    except (OSError, ValueError):
        pass
    return _ESTIMATED + struct.pack("<d", time.time() - now())


def is_this_boot(identity: bytes) -> bool:
    """True if `identity` was `boot_id()` since the machine last booted.

    A jump of the wall clock may make it false, never wrongly true.
    """
    own = boot_id()
    if own.startswith(_ESTIMATED) and identity.startswith(_ESTIMATED) and len(identity) == len(own):
        difference: float = struct.unpack("<d", own[8:])[0] - struct.unpack("<d", identity[8:])[0]
        return abs(difference) <= _BOOT_TIME_TOLERANCE_S
    return own == identity
