"""Who may write what: the peers file, and the decision for one put (DESIGN 4; deny by default).

    {"peers": [{
        "name": "camera-7",
        "public_key": "<base64>",
        "preshared_key": "<base64>",                              optional; then the file must be 0600
        "allow": [{"bucket": "telemetry-*",                       `*` stands for any letters
                   "prefixes": ["camera-7/"],                     left out: the whole bucket
                   "options": ["Tagging"]}],                      parameters of wire.put_header.POLICY_GATED
        "legacy": true                                            objects without a put header, see --legacy-bucket
     }],
     "plaintext": {"allow": [...], "legacy": false}}              everybody who comes over udp://

Invariant: a put is allowed only by a rule that names its bucket, its key's prefix and each gated parameter; a file with any
mistake is refused as a whole.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from raptor_s3.errors import ConfigError
from raptor_s3.wire.put_header import POLICY_GATED
from raptor_s3.wireguard.keys import key_from_base64, key_to_base64

if TYPE_CHECKING:
    from pathlib import Path

PLAINTEXT_PEER: Final = b""
"""The peer key of everything that arrives over udp://."""

_BUCKET_PATTERN: Final = re.compile(r"[a-z0-9.*-]{1,63}")
_MAX_FILE: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Rule:
    """Keys of `bucket` (a pattern with `*`) that begin with one of `prefixes`, with these gated parameters."""

    bucket: str
    prefixes: tuple[str, ...] = ("",)
    options: frozenset[str] = frozenset()

    def names(self, bucket: str, key: str) -> bool:
        return (bucket == self.bucket or fnmatch.fnmatchcase(bucket, self.bucket)) and key.startswith(self.prefixes)


@dataclass(frozen=True, slots=True)
class Peer:
    """One device: its WireGuard public key is its identity."""

    name: str
    public_key: bytes
    preshared_key: bytes | None = field(default=None, repr=False)
    rules: tuple[Rule, ...] = ()
    legacy: bool = False

    def objection(self, parameters: Mapping[str, Any]) -> str:
        """Why this put is not allowed, or an empty string. `parameters` are PutObject's; Bucket and Key are there."""
        bucket, key = parameters["Bucket"], parameters["Key"]
        gated = parameters.keys() & POLICY_GATED.keys()
        if parameters.get("ServerSideEncryption", "AES256") != "AES256":
            gated |= {"SSEKMSKeyId"}  # the gateway's own rights on KMS keys are at stake, whichever key it is
        is_named = False
        for rule in self.rules:
            if rule.names(bucket, key):
                if gated <= rule.options:
                    return ""
                is_named = True
        if is_named:
            return f"peer {self.name} may not set {', '.join(sorted(gated))} in s3://{bucket}"
        return f"peer {self.name} may not write s3://{bucket}/{key}"


class Peers(Mapping[bytes, Peer]):
    """All peers by public key; `plaintext` is the entry for udp://, None where the file has none."""

    def __init__(self, peers: Mapping[bytes, Peer], plaintext: Peer | None = None) -> None:
        self._peers = dict(peers)
        self.plaintext = plaintext
        if plaintext is not None:
            self._peers[PLAINTEXT_PEER] = plaintext

    def __getitem__(self, public_key: bytes) -> Peer:
        return self._peers[public_key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._peers)

    def __len__(self) -> int:
        return len(self._peers)

    def tunnelled(self) -> dict[bytes, Peer]:
        """Those that come through WireGuard."""
        return {key: peer for key, peer in self._peers.items() if key != PLAINTEXT_PEER}


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
    has_secrets = any(peer.preshared_key for peer in peers.values())
    if has_secrets and os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"holds preshared keys, but others can read it (mode {stat.S_IMODE(mode):04o}): chmod 600 it", source=str(path)
        )
    return peers


def parse_peers(text: bytes | str, *, source: str) -> Peers:
    """The peers in this JSON; `source` names it in errors. Raises ConfigError."""
    try:
        value = json.loads(text, object_pairs_hook=_object_of_pairs)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}", source=f"{source}, line {error.lineno} column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}", source=source) from None
    reader = _Reader(source)
    top = reader.mapping(value, "the file", {"peers", "plaintext"})
    peers: dict[bytes, Peer] = {}
    names: set[str] = set()
    for number, entry in enumerate(reader.sequence(top.get("peers", []), "peers")):
        where = f"peers[{number}]"
        peer = reader.peer(entry, where)
        if peer.public_key in peers:
            reader.refuse(f"{where}.public_key", f"is also that of {peers[peer.public_key].name}")
        if peer.name in names:
            reader.refuse(f"{where}.name", f"{peer.name!r} stands twice")
        peers[peer.public_key] = peer
        names.add(peer.name)
    plaintext = reader.plaintext(top["plaintext"]) if "plaintext" in top else None
    return Peers(peers, plaintext)


class _Reader:
    """Checks values of the JSON; every complaint says where."""

    def __init__(self, source: str) -> None:
        self._source = source

    def refuse(self, where: str, what: str) -> NoReturn:
        raise ConfigError(f"{where} {what}", source=self._source)

    def mapping(self, value: object, where: str, known: set[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(where, "is not a JSON object")
        for name in value:
            if name not in known:
                self.refuse(where, f"has an unknown key {name!r} (known: {', '.join(sorted(known))})")
        return value

    def sequence(self, value: object, where: str) -> list[Any]:
        if not isinstance(value, list):
            self.refuse(where, "is not a list")
        return value

    def text(self, value: object, where: str) -> str:
        if not isinstance(value, str):
            self.refuse(where, "is not a string")
        return value

    def flag(self, value: object, where: str) -> bool:
        if not isinstance(value, bool):
            self.refuse(where, "is neither true nor false")
        return value

    def key(self, value: object, where: str) -> bytes:
        try:
            return key_from_base64(self.text(value, where))
        except ValueError:
            self.refuse(where, "is not a WireGuard key: 32 octets in base64")

    def peer(self, value: object, where: str) -> Peer:
        fields = self.mapping(value, where, {"name", "public_key", "preshared_key", "allow", "legacy"})
        if "public_key" not in fields:
            self.refuse(where, "has no public_key")
        public_key = self.key(fields["public_key"], f"{where}.public_key")
        preshared = fields.get("preshared_key")
        return Peer(
            name=self.text(fields.get("name", key_to_base64(public_key)), f"{where}.name"),
            public_key=public_key,
            preshared_key=None if preshared is None else self.key(preshared, f"{where}.preshared_key"),
            rules=self.rules(fields.get("allow", []), f"{where}.allow"),
            legacy=self.flag(fields.get("legacy", False), f"{where}.legacy"),
        )

    def plaintext(self, value: object) -> Peer:
        fields = self.mapping(value, "plaintext", {"allow", "legacy"})
        rules = self.rules(fields.get("allow", []), "plaintext.allow")
        return Peer("plaintext", PLAINTEXT_PEER, None, rules, self.flag(fields.get("legacy", False), "plaintext.legacy"))

    def rules(self, value: object, where: str) -> tuple[Rule, ...]:
        entries = self.sequence(value, where)
        return tuple(self.rule(entry, f"{where}[{number}]") for number, entry in enumerate(entries))

    def rule(self, value: object, where: str) -> Rule:
        fields = self.mapping(value, where, {"bucket", "prefixes", "options"})
        if "bucket" not in fields:
            self.refuse(where, "has no bucket")
        bucket = self.text(fields["bucket"], f"{where}.bucket")
        if not _BUCKET_PATTERN.fullmatch(bucket):
            self.refuse(f"{where}.bucket", f"{bucket!r} is no bucket name or pattern")
        prefixes = self.sequence(fields.get("prefixes", [""]), f"{where}.prefixes")
        options = self.sequence(fields.get("options", []), f"{where}.options")
        for option in options:
            if not isinstance(option, str) or option not in POLICY_GATED:
                self.refuse(f"{where}.options", f"has {option!r}; known: {', '.join(sorted(POLICY_GATED))}")
        return Rule(
            bucket,
            tuple(self.text(prefix, f"{where}.prefixes[{number}]") for number, prefix in enumerate(prefixes)),
            frozenset(options),
        )


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return result
