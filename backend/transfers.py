"""What a transfer is called, and what its first symbol pins.

State is keyed by (PeerKey, object id): a peer can neither see nor spoil another peer's transfers, and a transfer id is 128
random bits.

Invariant: a Shape's text is the same wherever the transfer's datagrams are looked at.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

from raptor_s3.codec import ObjectTransmissionInformation
from raptor_s3.wire.datagram import FLAG_CANCEL, FLAG_PUT_HEADER, Datagram


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


def block_oti(oti: ObjectTransmissionInformation, sbn: int) -> ObjectTransmissionInformation:
    """Source block `sbn` as an object of its own: same T, same K, one block."""
    return ObjectTransmissionInformation(oti.block_range(sbn)[1], oti.symbol_size, 1)
