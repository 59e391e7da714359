"""The UDP gateway's JSON (docs/wire.md): Proxylity UDP Gateway's, and that of our own gateway.

    to a queue    one message                                              build_message   parse_messages
    to a Lambda   {"Messages": [message, ...]}                             build_batch     parse_messages
    its answer    {"Replies": [{"Tag", "Data"}]}                           build_replies   parse_replies
    through SNS   {"Messages": [{"Remote", "Data"}]}, EgressRegion attr.   build_packets   parse_packets

A message is {"Tag", "Remote": {"IpAddress", "Port", "PeerKey"}, "Local": {"Domain", "Port"}, "ReceivedAt", "IngressRegion",
"Formatter", "Data"}, Data in base64. Parsers take Address, IpAddress and IP for the address.

Invariant: every input either parses or raises MalformedPacket; one bad message of a batch does not take the others with it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from raptor_s3.errors import MalformedPacket

MAX_DATA: Final = 65_535
MAX_RECEIVED_AT: Final = 1e11
"""In seconds, the year 5138. A greater number is one of milliseconds, which passed it in 1973."""


class Remote(NamedTuple):
    """Where a datagram came from, or is to go. `peer_key` is the WireGuard public key in base64, empty without WireGuard."""

    address: str
    port: int
    peer_key: str = ""


class GatewayMessage(NamedTuple):
    """One datagram as the gateway hands it over. `received_at` is in seconds since the Unix epoch."""

    tag: str
    remote: Remote
    local_domain: str
    local_port: int
    received_at: float
    ingress_region: str
    data: bytes


class Reply(NamedTuple):
    """A Lambda's answer to the message with this tag."""

    tag: str
    data: bytes


class OutboundPacket(NamedTuple):
    """A datagram that the gateway is asked to send."""

    remote: Remote
    data: bytes


def build_message(message: GatewayMessage) -> dict[str, Any]:
    received_at = datetime.fromtimestamp(message.received_at, UTC).isoformat(timespec="microseconds")
    return {
        "Tag": message.tag,
        "Remote": {
            "IpAddress": message.remote.address,
            "Port": message.remote.port,
            "PeerKey": message.remote.peer_key,
        },
        "Local": {"Domain": message.local_domain, "Port": message.local_port},
        "ReceivedAt": received_at.replace("+00:00", "Z"),
        "IngressRegion": message.ingress_region,
        "Formatter": "base64",
        "Data": base64.b64encode(message.data).decode(),
    }


def build_batch(messages: Iterable[GatewayMessage]) -> dict[str, Any]:
    return {"Messages": [build_message(message) for message in messages]}


def parse_message(value: object) -> GatewayMessage:
    """One message, as the JSON value or its text. Raises MalformedPacket."""
    fields = _mapping(_decoded(value), "message")
    if fields.get("Formatter", "base64") != "base64":
        raise MalformedPacket("Formatter is not base64")
    local = _mapping(fields.get("Local") or {}, "Local")
    return GatewayMessage(
        tag=_text(fields, "Tag"),
        remote=parse_remote(fields.get("Remote")),
        local_domain=_text(local, "Domain"),
        local_port=_port(local.get("Port", 0)),
        received_at=_timestamp(fields.get("ReceivedAt")),
        ingress_region=_text(fields, "IngressRegion"),
        data=_data(fields),
    )


def parse_messages(value: object) -> tuple[list[GatewayMessage], list[MalformedPacket]]:
    """The messages of a batch or a single message, as JSON value or text, and what was wrong with those that don't parse.

    Raises MalformedPacket when `value` is neither.
    """
    fields = _mapping(_decoded(value), "event")
    if "Messages" not in fields:
        return [parse_message(fields)], []
    entries = fields["Messages"]
    if not isinstance(entries, list):
        raise MalformedPacket("Messages is not a list")
    messages: list[GatewayMessage] = []
    refused: list[MalformedPacket] = []
    for entry in entries:
        try:
            messages.append(parse_message(entry))
        except MalformedPacket as error:
            refused.append(error)
    return messages, refused


def build_replies(replies: Iterable[Reply]) -> dict[str, Any]:
    return {"Replies": [{"Tag": reply.tag, "Data": base64.b64encode(reply.data).decode()} for reply in replies]}


def parse_replies(value: object) -> list[Reply]:
    """Raises MalformedPacket. An answer without "Replies" holds none."""
    decoded = _decoded(value)
    if decoded is None:
        return []
    return [Reply(_text(entry, "Tag"), _data(entry)) for entry in _entries(_mapping(decoded, "answer"), "Replies")]


def build_packets(packets: Iterable[OutboundPacket]) -> dict[str, Any]:
    return {
        "Messages": [
            {
                "Remote": {
                    "Address": packet.remote.address,
                    "Port": packet.remote.port,
                    "PeerKey": packet.remote.peer_key,
                },
                "Data": base64.b64encode(packet.data).decode(),
            }
            for packet in packets
        ]
    }


def parse_packets(value: object) -> list[OutboundPacket]:
    """Raises MalformedPacket."""
    fields = _mapping(_decoded(value), "packets")
    return [OutboundPacket(parse_remote(entry.get("Remote")), _data(entry)) for entry in _entries(fields, "Messages")]


def parse_remote(value: object) -> Remote:
    """Raises MalformedPacket."""
    remote = _mapping(value, "Remote")
    address = remote.get("Address") or remote.get("IpAddress") or remote.get("IP")
    if not isinstance(address, str):
        raise MalformedPacket("Remote has no address")
    return Remote(_unicode(address, "address"), _port(remote.get("Port")), _text(remote, "PeerKey"))


def _decoded(value: object) -> object:
    if not isinstance(value, str | bytes | bytearray):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise MalformedPacket(f"not JSON: {error}") from None


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MalformedPacket(f"{what} is not a JSON object")
    return value


def _entries(fields: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    entries = fields.get(name, [])
    if not isinstance(entries, list):
        raise MalformedPacket(f"{name} is not a list")
    return [_mapping(entry, name) for entry in entries]


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedPacket(f"{name} is not a string")
    return _unicode(value, name)


def _unicode(text: str, name: str) -> str:
    """JSON may hold lone surrogates, which nothing can encode later."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MalformedPacket(f"{name} is not Unicode") from None
    return text


def _port(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        value = int(value)
    if type(value) is not int or not 0 <= value <= 0xFFFF:
        raise MalformedPacket("port is not within 0..65535")
    return value


def _timestamp(value: object) -> float:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise MalformedPacket("ReceivedAt is not an ISO 8601 time") from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if 0 <= seconds < MAX_RECEIVED_AT:
            return seconds
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_RECEIVED_AT * 1000:
        return value / 1000 if value > MAX_RECEIVED_AT else float(value)  # compared before float(): an int may be any size
    raise MalformedPacket("ReceivedAt is missing or no time")


def _data(fields: Mapping[str, Any]) -> bytes:
    value = fields.get("Data")
    if not isinstance(value, str) or len(value) > MAX_DATA * 4 // 3 + 4:
        raise MalformedPacket("Data is missing or too long")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedPacket("Data is not base64") from None
