"""The wire formats' functions in C, each with a twin that says that it was asked."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from raptor_s3.wire import datagram as dg
from raptor_s3.wire import put_header as ph
from raptor_s3.wire import transfer_state as ts

_wire: Any = pytest.importorskip("raptor_s3.wire._wire", reason="_wire.c is not built")

TRANSFER_ID = "AbCdEfGhIjKlMnOpQrStUv"
LEFT = "left to the twin"
MEMBERS = tuple(ts._TYPES.get(number) for number in range(256))


def leave(argument: object) -> str:
    return LEFT


LIMITS = (ph._TYPES, ph._REQUIRED, ph.MAX_KEY_BYTES, ph.MAX_TTL_MS)
build_put_header = _wire.put_header_builder(leave, *LIMITS)
split_put_object = _wire.put_object_splitter(leave, *LIMITS)
parse_transfer_state = _wire.transfer_state_parser(leave, ts.TransferState, MEMBERS)
build_transfer_state = _wire.transfer_state_builder(leave, ts.TransferState)
parse_datagram = _wire.datagram_parser(leave, dg.Datagram, dg._checked_oti)


class Text(str):
    """May have any methods."""


class Words(dict[str, Any]):
    """Likewise."""


class Number(enum.IntEnum):
    ONE = 1


FIELDS = {"Bucket": "b", "Key": "a/b.json", "ChecksumCRC32": "y/Q5Jg==", "TtlMs": 4000}
