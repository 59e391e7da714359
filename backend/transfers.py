"""What a transfer is called, and how large a stranger may make it.

State is keyed by (PeerKey, object id): a peer can neither see nor spoil another peer's transfers, and a transfer id is 128
random bits. The bounds are checked on every datagram before anything is stored, counted or allocated for it.

Invariant: an OTI that `check_bounds` let pass costs at most `MAX_OBJECT_BYTES` of storage and `MAX_BLOCK_BYTES` of one decoder.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final, NamedTuple

from raptor_s3.codec import ObjectTransmissionInformation
from raptor_s3.errors import MalformedPacket
from raptor_s3.wire.datagram import FLAG_CANCEL, FLAG_PUT_HEADER, Datagram

MAX_OBJECT_BYTES: Final = 128 << 20
"""A little over 255 source blocks of 512 KiB, the most that the datagram's rule for T and Z can describe."""
MAX_BLOCK_BYTES: Final = 1 << 20
MAX_BLOCK_SYMBOLS: Final = 4096
"""The sender's rule gives at most 2,048 (DESIGN 3.1)."""


class TransferKey(NamedTuple):
    """`peer_key` as the gateway spells it (base64), empty without WireGuard."""

    peer_key: str
    object_id: str

    @property
    def digest(self) -> str:
        """Names the transfer where only letters, digits and a bounded length are allowed (S3 keys, FIFO ids)."""
        joined = f"{self.peer_key}\n{self.object_id}".encode()
        return base64.urlsafe_b64encode(hashlib.sha256(joined).digest()[:24]).decode()


class Shape(NamedTuple):
    """What the first symbol of a transfer pins for all others: the OTI and the flags (without cancel)."""

    oti: ObjectTransmissionInformation
    flags: int

    @classmethod
    def of(cls, datagram: Datagram) -> Shape:
        return cls(datagram.oti, datagram.flags & ~FLAG_CANCEL)

    @classmethod
    def parse(cls, text: str) -> Shape:
        length, symbol_size, blocks, flags = map(int, text.split(":"))
        return cls(ObjectTransmissionInformation(length, symbol_size, blocks), flags)

    def __str__(self) -> str:
        oti = self.oti
        return f"{oti.transfer_length}:{oti.symbol_size}:{oti.source_blocks}:{self.flags}"

    @property
    def has_put_header(self) -> bool:
        return bool(self.flags & FLAG_PUT_HEADER)


def check_bounds(oti: ObjectTransmissionInformation) -> None:
    """Raises MalformedPacket for an object, a block or a K larger than any sender of ours makes."""
    symbols = oti.block_symbols(0)
    if oti.transfer_length > MAX_OBJECT_BYTES:
        raise MalformedPacket(f"object of {oti.transfer_length} octets is larger than {MAX_OBJECT_BYTES}")
    if symbols > MAX_BLOCK_SYMBOLS or symbols * oti.symbol_size > MAX_BLOCK_BYTES:
        raise MalformedPacket(f"source block of {symbols} symbols of {oti.symbol_size} octets")


def block_oti(oti: ObjectTransmissionInformation, sbn: int) -> ObjectTransmissionInformation:
    """Source block `sbn` as an object of its own: same T, same K, one block."""
    return ObjectTransmissionInformation(oti.block_range(sbn)[1], oti.symbol_size, 1)
