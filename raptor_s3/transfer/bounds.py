"""How large a stranger may make an object's parts: what every receiver checks before it allocates anything.

Invariant: an OTI that `check_bounds` let pass costs at most `MAX_OBJECT_BYTES` of storage and `MAX_BLOCK_BYTES` of one decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raptor_s3.errors import MalformedPacket

if TYPE_CHECKING:
    from raptor_s3.codec import ObjectTransmissionInformation

MAX_OBJECT_BYTES: Final = 128 << 20
"""A little over 255 source blocks of 512 KiB, the most that the datagram's rule for T and Z can describe."""
MAX_BLOCK_BYTES: Final = 1 << 20
MAX_BLOCK_SYMBOLS: Final = 4096
"""The sender's rule gives at most 2,048 (DESIGN 3.1)."""


def check_bounds(oti: ObjectTransmissionInformation) -> None:
    """Raises MalformedPacket for an object, a block or a K larger than any sender of ours makes."""
    symbols = oti.block_symbols(0)
    if oti.transfer_length > MAX_OBJECT_BYTES:
        raise MalformedPacket(f"object of {oti.transfer_length} octets is larger than {MAX_OBJECT_BYTES}")
    if symbols > MAX_BLOCK_SYMBOLS or symbols * oti.symbol_size > MAX_BLOCK_BYTES:
        raise MalformedPacket(f"source block of {symbols} symbols of {oti.symbol_size} octets")
