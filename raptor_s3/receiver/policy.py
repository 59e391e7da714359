"""Who may write what (docs/gateway.md; against the "confused deputy": the receiver's role may write more than any peer).

    {"peers": [{"name": "camera-7",                              left out: the public key
                "public_key": "<base64>",
                "allow": [{"bucket": "telemetry-*",              `*` stands for any letters
                           "prefixes": ["camera-7/"],            left out: the whole bucket
                           "options": ["Tagging"]}],             parameters of wire.put_header.POLICY_GATED
                "legacy": true}],                                objects without a put header
     "everyone": {"allow": [{"bucket": "b", "prefixes": ["devices/${PeerKey}/"]}]},
     "plaintext": {"allow": [...], "legacy": false}}

`everyone` is for any WireGuard peer without an entry of its own, `plaintext` for whoever came without WireGuard. `${PeerKey}` in
a prefix is the peer's public key in URL-safe base64 without padding. Secrets have no place here: the gateway takes its preshared
keys out of its file first (raptor_s3.gateway.peers).

Invariant: deny by default. A put is allowed only by a rule that names its bucket, its key's prefix and each gated parameter; a
document with any mistake is refused as a whole.
"""

from __future__ import annotations

import binascii
import fnmatch
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from raptor_s3.errors import ConfigError
from raptor_s3.wire.put_header import POLICY_GATED

if TYPE_CHECKING:
    from collections.abc import Mapping

PEER_PLACEHOLDER: Final = "${PeerKey}"

_MAY_BE_GATED: Final = frozenset({*POLICY_GATED, "ServerSideEncryption"})
_NOTHING: Final[frozenset[str]] = frozenset()
_BUCKET_PATTERN: Final = re.compile(r"[a-z0-9.*-]{1,63}")
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Rule:
    """Keys of `bucket` (a pattern with `*`) that begin with one of `prefixes`, with these gated parameters."""

    bucket: str
    prefixes: tuple[str, ...] = ("",)
    options: frozenset[str] = frozenset()

    def names(self, bucket: str, key: str, peer_key: str) -> bool:
        if bucket != self.bucket and not fnmatch.fnmatchcase(bucket, self.bucket):
            return False
        if "" in self.prefixes:
            return True
        own = peer_key.replace("+", "-").replace("/", "_").rstrip("=")
        return key.startswith(tuple(prefix.replace(PEER_PLACEHOLDER, own) for prefix in self.prefixes))


@dataclass(frozen=True, slots=True)
class Grant:
    """What one peer may do. `who` names it in refusals."""

    who: str
    rules: tuple[Rule, ...] = ()
    legacy: bool = False

    def objection(self, peer_key: str, fields: Mapping[str, Any]) -> str:
        bucket, key = fields["Bucket"], fields["Key"]
        gated = _NOTHING if _MAY_BE_GATED.isdisjoint(fields) else _gated(fields)
        is_named = False
        for rule in self.rules:
            if rule.names(bucket, key, peer_key):
                if gated <= rule.options:
                    return ""
                is_named = True
        if is_named:
            return f"{self.who} may not set {', '.join(sorted(gated))} in s3://{bucket}"
        return f"{self.who} may not write s3://{bucket}/{key}"


def _gated(fields: Mapping[str, Any]) -> frozenset[str]:
    gated = POLICY_GATED.keys() & fields.keys()
    if fields.get("ServerSideEncryption", "AES256") != "AES256":
        gated.add("SSEKMSKeyId")  # the receiver's own rights on KMS keys are at stake, whichever key it is
    return frozenset(gated)


@dataclass(frozen=True, slots=True)
class Policy:
    """`peers` by public key in canonical base64, in the document's order; None where the document has no such entry."""

    peers: Mapping[str, Grant] = field(default_factory=dict)
    everyone: Grant | None = None
    plaintext: Grant | None = None

    def grant(self, peer_key: str) -> Grant | None:
        """None for a peer that nothing names. `peer_key` is base64, empty for whoever came without WireGuard."""
        if not peer_key:
            return self.plaintext
        return self.peers.get(peer_key, self.everyone)

    def objection(self, peer_key: str, fields: Mapping[str, Any]) -> str:
        """Why this put is not allowed, or an empty string. `fields` are a put header's."""
        grant = self.grant(peer_key)
        return "this peer is not known" if grant is None else grant.objection(peer_key, fields)


NOBODY: Final = Policy()


def parse_policy(text: bytes | str, *, source: str = "policy") -> Policy:
    """Raises ConfigError that says what is wrong where; `source` names the document in it."""
    return build_policy(read_document(text, source=source), source=source)


def read_document(text: bytes | str, *, source: str) -> object:
    """The JSON value; no name may stand twice in one object. Raises ConfigError."""
    try:
        return json.loads(text, object_pairs_hook=_object_of_pairs)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}", source=f"{source}, line {error.lineno} column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}", source=source) from None


def build_policy(document: object, *, source: str, known_elsewhere: frozenset[str] = frozenset()) -> Policy:
    """The policy in a JSON value. `known_elsewhere` are keys of peers that the caller has taken out. Raises ConfigError."""
    reader = _Reader(source)
    top = reader.mapping(document, "the document", {"peers", "everyone", "plaintext"})
    peers: dict[str, Grant] = {}
    names: set[str] = set()
    for number, entry in enumerate(reader.sequence(top.get("peers", []), "peers")):
        where = f"peers[{number}]"
        fields = reader.mapping(entry, where, {"name", "public_key", "allow", "legacy"} | known_elsewhere)
        if "public_key" not in fields:
            reader.refuse(where, "has no public_key")
        key = reader.public_key(fields["public_key"], f"{where}.public_key")
        if key in peers:
            reader.refuse(f"{where}.public_key", f"is also that of {peers[key].who}")
        name = reader.text(fields.get("name", key), f"{where}.name")
        if name in names:
            reader.refuse(f"{where}.name", f"{name!r} stands twice")
        peers[key] = reader.grant(fields, where, f"peer {name}")
        names.add(name)
    others: dict[str, Grant] = {}
    for where in ("everyone", "plaintext"):
        if where in top:
            others[where] = reader.grant(reader.mapping(top[where], where, {"allow", "legacy"}), where, "this peer")
    plaintext = others.get("plaintext", Grant(""))
    if any(PEER_PLACEHOLDER in prefix for rule in plaintext.rules for prefix in rule.prefixes):
        reader.refuse("plaintext.allow", f"has {PEER_PLACEHOLDER}: without WireGuard nobody has a key")
    return Policy(peers, **others)


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

    def public_key(self, value: object, where: str) -> str:
        try:
            key = binascii.a2b_base64(self.text(value, where).strip().encode("ascii"), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            key = b""
        if len(key) != _KEY_BYTES:
            self.refuse(where, f"is not a WireGuard key: {_KEY_BYTES} octets in base64")
        return binascii.b2a_base64(key, newline=False).decode("ascii")

    def grant(self, fields: Mapping[str, Any], where: str, who: str) -> Grant:
        rules = self.sequence(fields.get("allow", []), f"{where}.allow")
        return Grant(
            who,
            tuple(self.rule(entry, f"{where}.allow[{number}]") for number, entry in enumerate(rules)),
            self.flag(fields.get("legacy", False), f"{where}.legacy"),
        )

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
