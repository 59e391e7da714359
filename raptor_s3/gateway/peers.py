"""The peers file: the policy of raptor_s3.receiver.policy, and each WireGuard peer's preshared key.

    {"peers": [{"name": "camera-7", "public_key": "<base64>",
                "preshared_key": "<base64>",                     optional; then the file must be 0600
                "allow": [...], "legacy": true}],
     "everyone": {...}, "plaintext": {...}}

`everyone` is checked, and grants nothing here: it is for peers without an entry, and those can't shake hands with a gateway.

Invariant: a file with any mistake is refused as a whole; preshared keys are in no repr and no message.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from raptor_s3.errors import ConfigError
from raptor_s3.receiver.policy import NOBODY, Policy, build_policy, read_document
from raptor_s3.wireguard.keys import key_from_base64
from raptor_s3.wireguard.listener import PeerConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

PLAINTEXT_PEER: Final = b""
"""The peer key of everything that arrives over udp://; its base64 is the policy's empty key."""

_PRESHARED_KEY: Final = "preshared_key"
_MAX_FILE: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Peers:
    """Who may write what, and who may shake hands: WireGuard peers by public key (32 octets)."""

    policy: Policy = NOBODY
    tunnelled: Mapping[bytes, PeerConfig] = field(default_factory=dict)


def load_peers(path: Path) -> Peers:
    """Read the peers file. Raises ConfigError that names the file and the line or the key at fault."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"can't read the peers file: {error.strerror}", source=str(path)) from None
    if len(text) > _MAX_FILE:
        raise ConfigError(f"peers file is larger than {_MAX_FILE >> 20} MiB", source=str(path))
    peers = parse_peers(text, source=str(path))
    has_secrets = any(peer.preshared_key for peer in peers.tunnelled.values())
    if has_secrets and os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"holds preshared keys, but others can read it (mode {stat.S_IMODE(mode):04o}): chmod 600 it", source=str(path)
        )
    return peers


def parse_peers(text: bytes | str, *, source: str) -> Peers:
    """The peers in this JSON; `source` names it in errors. Raises ConfigError."""
    document = read_document(text, source=source)
    preshared_keys = _take_preshared_keys(document, source)
    policy = build_policy(document, source=source, known_elsewhere=frozenset({_PRESHARED_KEY}))
    if policy.everyone is not None:
        _log.warning('%s: "everyone" grants nothing here: each WireGuard peer of a gateway has an entry of its own', source)
        policy = replace(policy, everyone=None)  # or a peer whose entry was removed would have everyone's rights
    configs = (PeerConfig(preshared_key) for preshared_key in preshared_keys)
    return Peers(policy, {key_from_base64(key): config for key, config in zip(policy.peers, configs, strict=True)})


def _take_preshared_keys(document: object, source: str) -> list[bytes | None]:
    """Remove them from the document, entry by entry; its shape is build_policy's to judge."""
    entries = document.get("peers") if isinstance(document, dict) else None
    keys: list[bytes | None] = []
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        value = entry.pop(_PRESHARED_KEY, None) if isinstance(entry, dict) else None
        try:
            keys.append(None if value is None else key_from_base64(value))
        except (ValueError, AttributeError):  # no key, no text
            where = f"peers[{number}].{_PRESHARED_KEY}"
            raise ConfigError(f"{where} is not a WireGuard key: 32 octets in base64", source=source) from None
    return keys
