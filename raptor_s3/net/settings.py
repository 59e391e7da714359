"""Where an endpoint is, and which keys speak to it.

Invariant: settings that exist are complete and well-formed; keys never reach repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from raptor_s3.codec import DegreeTable
from raptor_s3.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_HANDSHAKE_TIMEOUT_S: Final = 1.5
_KEY_SIZE: Final = 32
_CODES: Final = {"rfc6330": DegreeTable.RFC6330, "published": DegreeTable.RFC5053}


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """What an engine needs to know. Raises ConfigError for what can't work.

    `url` is `wg://host:port`, or `udp://host:port` (no encryption) with `allow_plaintext`. `rate_mbps` is a hard cap in
    megabits a second, `overhead` a fixed share of repair symbols; None follows the path. `code`: `published` for backends
    that draw RFC 5053's degrees. `runtime_dir` None is the user's own directory; without `share_sessions` nothing is kept there.
    """

    url: str
    server_key: bytes = b""
    client_key: bytes = field(default=b"", repr=False)
    preshared_key: bytes | None = field(default=None, repr=False)
    rate_mbps: float | None = None
    overhead: float | None = None
    code: str = "rfc6330"
    allow_plaintext: bool = False
    runtime_dir: Path | None = None
    share_sessions: bool = True
    handshake_timeout_s: float = DEFAULT_HANDSHAKE_TIMEOUT_S

    def __post_init__(self) -> None:
        scheme, host, port = self._parts()
        if scheme not in ("wg", "udp") or not host or not port:
            raise ConfigError(f"{self.url!r} is not wg://host:port", key="endpoint")
        if scheme == "udp" and not self.allow_plaintext:
            raise ConfigError(f"{self.url} is not encrypted, and allow_plaintext is not set", key="endpoint")
        if scheme == "wg":
            keys = {"server_key": self.server_key, "client_key": self.client_key, "preshared_key": self.preshared_key}
            for name, key in keys.items():
                if key is not None and len(key) != _KEY_SIZE:
                    raise ConfigError("is not a WireGuard key of 32 octets", key=name)
        if self.rate_mbps is not None and not 0.001 <= self.rate_mbps <= 1e6:
            raise ConfigError(f"{self.rate_mbps} is not a rate in megabits per second", key="rate_mbps")
        if self.overhead is not None and not 0.0 <= self.overhead <= 10.0:
            raise ConfigError(f"{self.overhead} is not a fraction", key="overhead")
        if self.code not in _CODES:
            raise ConfigError(f"{self.code!r} is neither rfc6330 nor published", key="code")

    def _parts(self) -> tuple[str, str, int]:
        try:
            parts = urlsplit(self.url)
            return parts.scheme, parts.hostname or "", parts.port or 0
        except ValueError:
            return "", "", 0

    @property
    def host(self) -> str:
        return self._parts()[1]

    @property
    def port(self) -> int:
        return self._parts()[2]

    @property
    def is_plaintext(self) -> bool:
        return self._parts()[0] == "udp"

    @property
    def degree_table(self) -> DegreeTable:
        return _CODES[self.code]

    @property
    def cap(self) -> float | None:
        """The hard cap in octets per second, None for none."""
        return None if self.rate_mbps is None else self.rate_mbps * 1e6 / 8
