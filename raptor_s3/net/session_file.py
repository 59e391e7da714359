"""The bytes of a stored session: keys and indices that never change, then the counters that do.

    8s   magic, ends in the version      16s  boot id
    32s  peer's public key               32s  send key      32s  receive key
    u32  local index                     u32  remote index
    f64  created at (`clock.now`)        u8   is initiator
    u64  device     u64  inode           u64  container
    u32  CRC-32 of all that
    u64  next counter                    u64  highest received counter + 1  u32  CRC-32 of these two

All little-endian. The second part is overwritten in place (one small `pwrite`), under the lock. No fsync anywhere: a
crash of the process loses nothing that was written, and after a crash of the machine the boot id has changed, so the
file is worthless anyway.

Device, inode and container say which file this is: a copy has the same keys, but nobody sees there how far the counters have
come elsewhere. Images of containers are copies that keep the first two, hence the third.

Invariants: `parse` gives a session of this boot with intact counters, or None. `read` gives nothing of a copy.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from raptor_s3.net import clock
from raptor_s3.net.runtime_dir import open_private
from raptor_s3.wireguard.session import SessionState

if TYPE_CHECKING:
    from typing import Self

_MAGIC: Final = b"raptorS3"
_KEYS: Final = struct.Struct("<8s16s32s32s32sIId?24s")
_PLACE: Final = struct.Struct("<QQQ")
_INIT_PATH = "/proc/1/stat"
_U64: Final = (1 << 64) - 1
_CRC: Final = struct.Struct("<I")
_COUNTERS: Final = struct.Struct("<QQ")

COUNTERS_OFFSET: Final = _KEYS.size + _CRC.size
COUNTERS_SIZE: Final = _COUNTERS.size + _CRC.size
SIZE: Final = COUNTERS_OFFSET + COUNTERS_SIZE
_PLACE_OFFSET: Final = _KEYS.size - _PLACE.size


class Counters(NamedTuple):
    """The part that changes. `next`: the first counter that nobody has reserved; `highest_received` is -1 when none has come."""

    next: int
    highest_received: int

    def build(self) -> bytes:
        body = _COUNTERS.pack(self.next, self.highest_received + 1)
        return body + _CRC.pack(crc32(body))

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """The counters, None if they are damaged."""
        if len(data) != COUNTERS_SIZE or crc32(data[: _COUNTERS.size]) != _CRC.unpack_from(data, _COUNTERS.size)[0]:
            return None
        next_counter, first_fresh = _COUNTERS.unpack_from(data)
        return cls(next_counter, first_fresh - 1)


def place_of(status: os.stat_result) -> bytes:
    """24 octets that tell a file from its copies, on this machine and since it has booted."""
    device = status.st_dev & _U64
    # The kernel gives anonymous devices their numbers, and gives them again: one container's after the other, from one image.
    is_anonymous = sys.platform == "linux" and os.major(status.st_dev) == 0
    return _PLACE.pack(device, status.st_ino & _U64, _container() if is_anonymous else 0)


@functools.cache
def _container() -> int:
    """When the first process that is seen from here began, in ticks since boot; 0 where that can't be read."""
    try:
        with open(_INIT_PATH, "rb") as file:
            return int(file.read(4096).rpartition(b")")[2].split()[19]) & _U64
    except (OSError, ValueError, IndexError):
        return 0


def read(path: str) -> bytes | None:
    """The octets of the file that was made at this place; None if there is none, b"" for a copy. Raises ConfigError, OSError."""
    try:
        descriptor = open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return read_from(descriptor)
    finally:
        os.close(descriptor)


def read_from(descriptor: int) -> bytes:
    """As `read`, of an open file."""
    content = os.read(descriptor, SIZE + 1)
    return content if content[_PLACE_OFFSET : _KEYS.size] == place_of(os.fstat(descriptor)) else b""


def build(state: SessionState, status: os.stat_result) -> bytes:
    """The content of the file with this status, for a session whose `created_at` is on `clock.now`'s clock."""
    keys = _KEYS.pack(
        _MAGIC,
        clock.boot_id(),
        state.peer_key,
        state.send_key,
        state.receive_key,
        state.local_index,
        state.remote_index,
        state.created_at,
        state.is_initiator,
        place_of(status),
    )
    return keys + _CRC.pack(crc32(keys)) + Counters(state.next_counter, state.highest_received).build()


def parse(data: bytes) -> SessionState | None:
    """The session, wherever it was made; None for another version, another boot, or anything damaged."""
    if len(data) != SIZE or not data.startswith(_MAGIC):
        return None
    if crc32(data[: _KEYS.size]) != _CRC.unpack_from(data, _KEYS.size)[0]:
        return None
    counters = Counters.parse(data[COUNTERS_OFFSET:])
    _, boot_id, peer_key, send_key, receive_key, local_index, remote_index, created_at, is_initiator, _ = _KEYS.unpack_from(data)
    if counters is None or not clock.is_this_boot(boot_id) or not created_at <= clock.now():
        return None
    return SessionState(
        local_index,
        remote_index,
        peer_key,
        send_key,
        receive_key,
        created_at,
        is_initiator,
        counters.next,
        counters.highest_received,
    )
