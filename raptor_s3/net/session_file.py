"""The bytes of a stored session: keys and indices that never change, then the counters that do.

    8s   magic, ends in the version      16s  boot id
    32s  peer's public key               32s  send key      32s  receive key
    u32  local index                     u32  remote index
    f64  created at (`clock.now`)        u8   is initiator
    u32  CRC-32 of all that
    u64  next counter                    u64  highest received counter + 1  u32  CRC-32 of these two

All little-endian. The second part is overwritten in place (one small `pwrite`), under the lock. No fsync anywhere: a
crash of the process loses nothing that was written, and after a crash of the machine the boot id has changed, so the
file is worthless anyway.

Invariant: `parse` gives a session of this boot with intact counters, or None.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from raptor_s3.net import clock
from raptor_s3.wireguard.session import SessionState

if TYPE_CHECKING:
    from typing import Self

_MAGIC: Final = b"raptorS2"
_KEYS: Final = struct.Struct("<8s16s32s32s32sIId?")
_CRC: Final = struct.Struct("<I")
_COUNTERS: Final = struct.Struct("<QQ")

COUNTERS_OFFSET: Final = _KEYS.size + _CRC.size
COUNTERS_SIZE: Final = _COUNTERS.size + _CRC.size
SIZE: Final = COUNTERS_OFFSET + COUNTERS_SIZE


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


def build(state: SessionState) -> bytes:
    """The file of a session whose `created_at` is on `clock.now`'s clock."""
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
    )
    return keys + _CRC.pack(crc32(keys)) + Counters(state.next_counter, state.highest_received).build()


def parse(data: bytes) -> SessionState | None:
    """The session; None for another version, another boot, or anything damaged."""
    if len(data) != SIZE or not data.startswith(_MAGIC):
        return None
    if crc32(data[: _KEYS.size]) != _CRC.unpack_from(data, _KEYS.size)[0]:
        return None
    counters = Counters.parse(data[COUNTERS_OFFSET:])
    _, boot_id, peer_key, send_key, receive_key, local_index, remote_index, created_at, is_initiator = _KEYS.unpack_from(data)
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
