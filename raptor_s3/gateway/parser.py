"""wire.datagram.parse_datagram for streams: all datagrams of a transfer begin with the same prefix, which is parsed once.

Invariant: the same results and the same errors as parse_datagram, for every input.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from raptor_s3.errors import MalformedPacket
from raptor_s3.wire.datagram import FLAG_CANCEL, OVERHEAD, Datagram, parse_datagram

MAX_PREFIXES: Final = 4096
_PAYLOAD_ID: Final = 4
_PREFIX: Final = OVERHEAD - _PAYLOAD_ID


class _Known(NamedTuple):
    """A prefix that has been parsed: a datagram that began with it, and how long all of them are."""

    template: Datagram
    length: int


class DatagramParser:
    """Remembers up to MAX_PREFIXES transfers that have more than one symbol."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def parse(self, data: bytes) -> Datagram:
        """What parse_datagram(data) returns. Raises MalformedPacket."""
        end = _PREFIX + data[0] if data else 0
        known = self._known.get(data[:end])
        if known is None:
            return self._parse_first(data, end)
        (object_id, oti, flags, _, _, _), length = known
        if len(data) != length:
            raise MalformedPacket(f"datagram of {len(data)} octets where its transfer has {length}")
        sbn = data[end]
        if sbn >= oti.source_blocks:
            raise MalformedPacket(f"SBN {sbn} where Z is {oti.source_blocks}")
        start = end + _PAYLOAD_ID
        return Datagram(object_id, oti, flags, sbn, int.from_bytes(data[end + 1 : start]), memoryview(data)[start:])

    def _parse_first(self, data: bytes, end: int) -> Datagram:
        datagram = parse_datagram(data)
        if datagram.oti.transfer_length > datagram.oti.symbol_size and not datagram.flags & FLAG_CANCEL:
            if len(self._known) >= MAX_PREFIXES:
                self._known.clear()
            self._known[data[:end]] = _Known(datagram._replace(symbol=b""), len(data))
        return datagram
