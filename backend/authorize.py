"""Who may write what (hazard "confused deputy": the functions' role can write wherever its IAM policy says, peers can't).

The policy is one JSON document in an SSM parameter, so that it changes without a deployment. It is the self-hosted gateway's
peers file (`raptor_s3.gateway.policy`) without secrets, plus `everyone`:

    {"peers": [{"name": "camera-7", "public_key": "<base64>",
                "allow": [{"bucket": "telemetry-*",              `*` stands for any letters
                           "prefixes": ["camera-7/"],            left out: the whole bucket
                           "options": ["Tagging"]}],             parameters of wire.put_header.POLICY_GATED
                "legacy": true}],                                objects without a put header
     "everyone": {"allow": [{"bucket": "b", "prefixes": ["devices/${PeerKey}/"]}]},
     "plaintext": {"allow": [...]}}

`everyone` is for any WireGuard peer without an entry of its own; `${PeerKey}` is its key in URL-safe base64 without padding.
`plaintext` is for datagrams that came without WireGuard.

Invariant: deny by default. A put is allowed only by a rule that names its bucket, its key's prefix and each gated parameter;
a document with any mistake allows nothing.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import ConfigError
from raptor_s3.wire.put_header import POLICY_GATED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PEER_PLACEHOLDER: Final = "${PeerKey}"
REFRESH_S: Final = 60.0
"""How old a policy may be. A change takes that long to reach every sandbox."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Keys of `bucket` (a pattern with `*`) that begin with one of `prefixes`, with these gated parameters."""

    bucket: str
    prefixes: tuple[str, ...]
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class Grant:
    """What one peer may do."""

    rules: tuple[Rule, ...] = ()
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """`peers` by public key in base64; None where the document has no such entry."""

    peers: Mapping[str, Grant]
    everyone: Grant | None = None
    plaintext: Grant | None = None

    def grant(self, peer_key: str) -> Grant | None:
        """None for a peer that nothing names."""
        if not peer_key:
            return self.plaintext
        return self.peers.get(peer_key, self.everyone)

    def objection(self, peer_key: str, fields: Mapping[str, Any]) -> str:
        """Why this put is not allowed, or an empty string. `fields` are a put header's."""
        grant = self.grant(peer_key)
        if grant is None:
            return "this peer is not known"
        bucket, key = fields["Bucket"], fields["Key"]
        places = [rule for rule in grant.rules if _names(rule, bucket, key, peer_key)]
        if not places:
            return f"this peer may not write s3://{bucket}/{key}"
        gated = fields.keys() & POLICY_GATED.keys()
        if fields.get("ServerSideEncryption", "AES256") != "AES256":
            gated = gated | {"SSEKMSKeyId"}  # the backend's own rights on KMS keys are at stake, whichever key it is
        if any(gated <= rule.options for rule in places):
            return ""
        return f"this peer may not set {', '.join(sorted(gated))} in s3://{bucket}"


NOBODY: Final = Policy({})


def _names(rule: Rule, bucket: str, key: str, peer_key: str) -> bool:
    if not fnmatch.fnmatchcase(bucket, rule.bucket):
        return False
    own = peer_key.replace("+", "-").replace("/", "_").rstrip("=")
    return any(key.startswith(prefix.replace(PEER_PLACEHOLDER, own)) for prefix in rule.prefixes)


def parse_policy(text: str) -> Policy:
    """Raises ConfigError that says what is wrong where."""
    try:
        document = json.loads(text, object_pairs_hook=_object_of_pairs)
    except (ValueError, RecursionError) as error:
        raise _mistake("the policy", f"is not JSON: {error}") from None
    top = _mapping(document, "the policy", {"peers", "everyone", "plaintext"})
    peers: dict[str, Grant] = {}
    for number, entry in enumerate(_list(top.get("peers", []), "peers")):
        where = f"peers[{number}]"
        fields = _mapping(entry, where, {"name", "public_key", "allow", "legacy"})
        key = _public_key(fields.get("public_key"), f"{where}.public_key")
        if key in peers:
            raise _mistake(f"{where}.public_key", "stands twice")
        peers[key] = _grant(fields, where)
    others = {
        name: _grant(_mapping(top[name], name, {"allow", "legacy"}), name) for name in ("everyone", "plaintext") if name in top
    }
    return Policy(peers, **others)


def _grant(fields: Mapping[str, Any], where: str) -> Grant:
    rules = []
    for number, value in enumerate(_list(fields.get("allow", []), f"{where}.allow")):
        place = f"{where}.allow[{number}]"
        rule = _mapping(value, place, {"bucket", "prefixes", "options"})
        bucket = rule.get("bucket")
        if not isinstance(bucket, str) or not bucket:
            raise _mistake(f"{place}.bucket", "is missing or no text")
        options = _texts(rule.get("options", []), f"{place}.options")
        if unknown := set(options) - POLICY_GATED.keys():
            raise _mistake(f"{place}.options", f"has {sorted(unknown)}; known: {', '.join(sorted(POLICY_GATED))}")
        rules.append(Rule(bucket, _texts(rule.get("prefixes", [""]), f"{place}.prefixes"), frozenset(options)))
    legacy = fields.get("legacy", False)
    if not isinstance(legacy, bool):
        raise _mistake(f"{where}.legacy", "is neither true nor false")
    return Grant(tuple(rules), legacy)


def _mistake(where: str, what: str) -> ConfigError:
    return ConfigError(f"{where} {what}", source="policy")


def _mapping(value: object, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mistake(where, "is not a JSON object")
    if unknown := value.keys() - known:
        raise _mistake(where, f"has unknown keys {sorted(unknown)}; known: {', '.join(sorted(known))}")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _mistake(where, "is not a list")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    texts = _list(value, where)
    if not all(isinstance(text, str) for text in texts):
        raise _mistake(where, "holds something that is no text")
    return tuple(texts)


def _public_key(value: object, where: str) -> str:
    try:
        raw = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise _mistake(where, "is not a WireGuard key: 32 octets in base64")
    return base64.b64encode(raw).decode()


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return result


class PolicyCache:
    """The policy as of at most `REFRESH_S` ago.

    Where the parameter can't be read, the last good policy goes on to hold; where its text is wrong, nobody may write.
    """

    def __init__(self, read: Callable[[], str], clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._read = read
        self._clock = clock
        self._report = report
        self._policy: Policy | None = None
        self._read_at = 0.0

    def get(self) -> Policy:
        """Raises what `read` raises while there has never been a policy: the caller's work is to be tried again."""
        now = self._clock()
        if self._policy is not None and now - self._read_at < REFRESH_S:
            return self._policy
        try:
            self._policy = parse_policy(self._read())
        except ConfigError as error:
            self._report(str(error))
            self._policy = NOBODY
        except Exception as error:
            if self._policy is None:
                raise
            self._report(f"the policy can't be read, the last one goes on to hold: {error}")
        self._read_at = now
        return self._policy
