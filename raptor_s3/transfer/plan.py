"""What is to be sent, and how it is cut.

Invariant: what depends only on sizes is worked out once; many small objects have the same few.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from raptor_s3.codec import DegreeTable
from raptor_s3.transfer.outcome import Confirm
from raptor_s3.wire.datagram import MAX_DATAGRAM, datagram_prefix, plan_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer

    from raptor_s3.codec import ObjectTransmissionInformation


class PutRequest(NamedTuple):
    """What is to be sent, and how.

    `fields` are PutObject's parameters as they go into the put header, without TtlMs; None sends a bare object (as the published
    CLI does), whose `object_id` is its path. `overhead` is a fixed share of repair symbols, None follows the loss estimate.
    """

    object_id: str
    fields: Mapping[str, Any] | None
    body: Buffer
    timeout_s: float
    confirm: Confirm = Confirm.FILE
    overhead: float | None = None
    max_datagram: int = MAX_DATAGRAM
    degree_table: DegreeTable = DegreeTable.RFC6330


class Run(NamedTuple):
    """`length` consecutive encoding symbols of one block."""

    sbn: int
    first_esi: int
    length: int


class Cut(NamedTuple):
    """An object in symbols and datagrams, sizes in octets. `tail` is the datagram prefix after the object id."""

    oti: ObjectTransmissionInformation
    block_symbols: tuple[int, ...]
    datagram_size: int
    tail: bytes


@lru_cache(maxsize=4096)
def cut_object(size_bytes: int, object_id_bytes: int, flags: int, max_datagram: int) -> Cut:
    """By the rule of docs/wire.md. Raises ValueError for what can't be sent (see plan_object)."""
    oti = plan_object(size_bytes, object_id_bytes, max_datagram)
    tail = datagram_prefix("x", oti, flags)[2:]
    symbols = tuple(oti.block_symbols(sbn) for sbn in range(oti.source_blocks))
    return Cut(oti, symbols, 1 + object_id_bytes + len(tail) + 4 + oti.symbol_size, tail)
