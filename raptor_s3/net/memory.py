"""What is remembered of a path between processes, as it stands in the endpoint's learned record.

    "path": {"srtt_s", "rttvar_s", "loss", "rate", "floor"}
    "max_datagram": {"octets", "until", "suspected"}
    "address": "192.0.2.1"

Invariant: whatever the record holds, what comes out is usable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from raptor_s3.net import clock
from raptor_s3.net.datagram_size import DATAGRAM_SIZES, REMEMBER_SIZE_S, DatagramSize
from raptor_s3.transfer.path import Learned
from raptor_s3.wire.datagram import MAX_DATAGRAM

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST: Final = {"srtt_s": 60.0, "rttvar_s": 60.0, "loss": 1.0, "rate": 1e12, "floor": 1e12}
"""Above that, no path is like it: an estimate that is far off takes minutes to come down."""


def build(learned: Learned, size: DatagramSize, address: str | None) -> dict[str, Any]:
    """The changes to the learned record. `address`: that of the endpoint's several where somebody answers."""
    changes: dict[str, Any] = {"max_datagram": None, "address": address}
    if learned.srtt_s is not None:
        changes["path"] = learned._asdict()
    if size.octets < MAX_DATAGRAM or size.suspected:
        until = min(size.until, clock.wall_time() + REMEMBER_SIZE_S)
        changes["max_datagram"] = {"octets": size.octets, "until": until, "suspected": size.suspected}
    return changes


def parse_path(record: Mapping[str, Any]) -> Learned | None:
    """What an earlier process kept; None for anything that does not look like it."""
    path = record.get("path")
    if not isinstance(path, dict):
        return None
    values = {name: path.get(name) for name in Learned._fields}
    if not all(value is None or (type(value) in (int, float) and 0 <= value < _MOST[name]) for name, value in values.items()):
        return None
    default = Learned()
    return Learned(
        values["srtt_s"] or None,
        values["rttvar_s"] or 0.0,
        default.loss if values["loss"] is None else values["loss"],
        values["rate"] or None,
        values["floor"] or None,
    )


def parse_max_datagram(record: Mapping[str, Any]) -> DatagramSize:
    """What was found to fit, if it is not too long ago."""
    entry = record.get("max_datagram")
    if isinstance(entry, dict) and entry.get("octets") in DATAGRAM_SIZES:
        until = entry.get("until")
        if isinstance(until, int | float) and clock.wall_time() < until < clock.wall_time() + 2 * REMEMBER_SIZE_S:
            suspected = entry.get("suspected")
            return DatagramSize(int(entry["octets"]), until, suspected if suspected in DATAGRAM_SIZES else 0)
    return DatagramSize()


def parse_address(record: Mapping[str, Any]) -> str | None:
    """Where to begin, if the name still has this address."""
    address = record.get("address")
    return address if isinstance(address, str) else None
