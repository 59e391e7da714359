"""Settings of the fast path (docs/settings.md): file section, environment, keywords; the later wins.

    [profile edge]                                RAPTOR_THRESHOLD=1MB            RaptorConfig(threshold="1MB")
    raptor =
        endpoint = wg://gateway.example.com:51820
        threshold = 256KB

`RaptorConfig` holds validated values under one attribute per setting and knows which of them were given, so that a
program's few keywords can be laid over a profile. All of it is stdlib: boto3, the AWS CLI and the `raptor` command
share `RaptorConfig.load`.

Invariant: an instance is valid and immutable; what is unknown or malformed is a ConfigError naming file, profile and
key. Private keys never reach repr.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypedDict, Unpack

from raptor_s3.errors import ConfigError
from raptor_s3.routing import parsers
from raptor_s3.wire.put_header import POLICY_GATED

if TYPE_CHECKING:
    from raptor_s3.net.settings import EndpointSettings

logger = logging.getLogger("raptor_s3.routing")

SECTION: Final = "raptor"
ENVIRONMENT_PREFIX: Final = "RAPTOR_"
DEFAULT_THRESHOLD: Final = 256 * 1024
KEYWORDS_SOURCE: Final = "keyword of RaptorConfig"


class Keywords(TypedDict, total=False):
    """What `RaptorConfig(...)`, `raptor_s3.enable(...)` and `RaptorConfig.load(overrides=...)` accept."""

    endpoint: str
    server_key: str | bytes
    client_key: str | bytes
    client_key_file: str | os.PathLike[str]
    preshared_key: str | bytes
    preshared_key_file: str | os.PathLike[str]
    buckets: str | tuple[str, ...] | list[str]
    threshold: str | int
    confirm: str
    overhead: str | float
    rate_mbps: str | float
    timeout: str | float
    on_failure: str
    transport: str
    code: str
    allow_plaintext: str | bool
    backend_allows: str | tuple[str, ...] | list[str]
    s3_endpoint: str
    runtime_dir: str | os.PathLike[str]


class _Setting(NamedTuple):
    parse: Callable[[object], Any]
    attribute: str = ""


_SETTINGS: Final[dict[str, _Setting]] = {
    "endpoint": _Setting(parsers.parse_endpoint),
    "server_key": _Setting(parsers.parse_key),
    "client_key": _Setting(parsers.parse_key),
    "client_key_file": _Setting(parsers.parse_path),
    "preshared_key": _Setting(parsers.parse_key),
    "preshared_key_file": _Setting(parsers.parse_path),
    "buckets": _Setting(parsers.parse_list),
    "threshold": _Setting(parsers.or_auto(parsers.parse_size), "threshold_bytes"),
    "confirm": _Setting(parsers.one_of("file", "block", "packets", "none")),
    "overhead": _Setting(parsers.or_auto(parsers.number_between(0, 4))),
    "rate_mbps": _Setting(parsers.or_auto(parsers.number_between(0.01, 100_000))),
    "timeout": _Setting(parsers.parse_duration, "timeout_s"),
    "on_failure": _Setting(parsers.one_of("fallback", "raise")),
    "transport": _Setting(parsers.one_of("auto", "raptor", "https")),
    "code": _Setting(parsers.one_of("rfc6330", "published")),
    "allow_plaintext": _Setting(parsers.parse_boolean),
    "backend_allows": _Setting(parsers.list_of(*POLICY_GATED)),
    "s3_endpoint": _Setting(parsers.parse_http_url),
    "runtime_dir": _Setting(parsers.parse_path),
}
SETTINGS: Final = tuple(_SETTINGS)

# A key given here replaces its twin from a weaker source.
_TWINS: Final = {
    "client_key": "client_key_file",
    "client_key_file": "client_key",
    "preshared_key": "preshared_key_file",
    "preshared_key_file": "preshared_key",
}
_SECRETS: Final = ("client_key", "preshared_key", "server_key")


class RaptorConfig:
    """All settings of one client. Construct it with any of `Keywords`; what is left out has its default.

    Raises ConfigError for unknown or malformed keywords.
    """

    endpoint: str | None = None
    server_key: bytes | None = None
    client_key: bytes | None = None
    client_key_file: Path | None = None
    preshared_key: bytes | None = None
    preshared_key_file: Path | None = None
    buckets: tuple[str, ...] = ()  # shell patterns; none by default, so that nothing is hijacked by surprise
    threshold_bytes: int | None = DEFAULT_THRESHOLD  # None: by measured round-trip time, loss and rate
    confirm: str = "file"
    overhead: float | None = None  # fraction of extra symbols in the first flight; None: by measured loss
    rate_mbps: float | None = None  # None: follow what the link delivers
    timeout_s: float = 5.0
    on_failure: str = "fallback"
    transport: str = "auto"  # raptor: never HTTPS for a PutObject; https: never the fast path
    code: str = "rfc6330"
    allow_plaintext: bool = False
    backend_allows: tuple[str, ...] = ()  # parameters of POLICY_GATED that the receiver's policy grants
    s3_endpoint: str | None = None  # the S3 that the backend writes to, where it is not AWS
    runtime_dir: Path | None = None  # None: the user's own (raptor_s3.net)
    partition: str = "aws"  # of the profile's region: the same bucket name in another partition is another bucket
    source: str = ""  # where the settings stand, for messages
    given: Mapping[str, object] = MappingProxyType({})  # keywords as they came

    def __init__(self, **keywords: Unpack[Keywords]) -> None:
        layer = dict(keywords)
        self._assign(_validated(layer, lambda key: KEYWORDS_SOURCE))
        vars(self).update(given=layer)

    @classmethod
    def load(
        cls,
        scoped_config: Mapping[str, Any],
        environ: Mapping[str, str] | None = None,
        overrides: RaptorConfig | Mapping[str, Any] | None = None,
        *,
        source: str = "~/.aws/config",
        services: Mapping[str, Any] | None = None,
    ) -> RaptorConfig:
        """A profile's settings (`scoped_config`: its keys, `raptor` nested), under the environment's, under `overrides`.

        `source` names file and profile for error messages, e.g. `~/.aws/config [profile edge]`. `services` is the
        file's `[services ...]` sections, where the profile's S3 endpoint may stand. Key files are read here. Raises
        ConfigError.
        """
        environ = os.environ if environ is None else environ
        section = scoped_config.get(SECTION, {})
        if not isinstance(section, Mapping):
            raise ConfigError(f"expected indented settings below `{SECTION} =`, got {section!r}", source=source)
        section = {key: _without_comment(value) for key, value in section.items()}
        in_environment = {key: environ[_variable(key)] for key in SETTINGS if environ.get(_variable(key))}
        _refuse_misspelt(environ)
        keywords = overrides.given if isinstance(overrides, RaptorConfig) else overrides or {}
        layers: tuple[tuple[Mapping[str, Any], Callable[[str], str]], ...] = (
            (section, lambda key: source),
            (in_environment, lambda key: f"environment variable {_variable(key)}:"),
            (keywords, lambda key: KEYWORDS_SOURCE),
        )
        values: dict[str, Any] = {}
        origin: dict[str, str] = {}
        for layer, where in layers:
            for key, value in _validated(layer, where).items():
                values.pop(_TWINS.get(key, ""), None)
                values[key], origin[key] = value, where(key)
        endpoint_url = profile_endpoint(scoped_config, environ, services or {})
        if endpoint_url:
            values.setdefault("s3_endpoint", endpoint_url.rstrip("/"))
        config = cls.__new__(cls)
        config._assign(values)
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or scoped_config.get("region") or ""
        vars(config).update(given=dict(keywords), source=source, partition=parsers.partition_of(str(region)))
        config._check_endpoint(origin, source)
        return config

    @property
    def is_configured(self) -> bool:
        """Whether there is anything to send to."""
        return self.endpoint is not None and self.transport != "https"

    def prepare_runtime_dir(self) -> Path | None:
        """The runtime directory, made if need be; None without an endpoint, or when there can't be one.

        Raises ConfigError when others can read it.
        """
        from raptor_s3.net import runtime_dir

        directory = str(self.runtime_dir) if self.runtime_dir else runtime_dir.default_runtime_dir()
        if self.endpoint is None or directory is None:
            return None
        try:
            runtime_dir.prepare_runtime_dir(directory)
        except OSError as error:
            logger.info("no runtime directory %s: %s", directory, error)
            return None
        return Path(directory)

    def endpoint_settings(self) -> EndpointSettings:
        """What the engine needs of this, the keys included. Imports raptor_s3.net. Raises ConfigError without an endpoint."""
        from raptor_s3.net.settings import EndpointSettings

        if self.endpoint is None:
            raise ConfigError("no endpoint is set", source=self.source, key="endpoint")
        return EndpointSettings(
            url=self.endpoint,
            server_key=self.server_key or b"",
            client_key=self.client_key or b"",
            preshared_key=self.preshared_key,
            rate_mbps=self.rate_mbps,
            overhead=self.overhead,
            code=self.code,
            allow_plaintext=self.allow_plaintext,
            runtime_dir=self.runtime_dir,
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"RaptorConfig is immutable: {name} can't be set")

    def __eq__(self, other: object) -> bool:
        return self._settings() == other._settings() if isinstance(other, RaptorConfig) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._settings().values()))

    def __repr__(self) -> str:
        shown = {name: value for name, value in self._settings().items() if name not in _SECRETS}
        return f"RaptorConfig({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in RaptorConfig.__annotations__ if name not in ("source", "given")}

    def _assign(self, values: Mapping[str, Any]) -> None:
        vars(self).update({_SETTINGS[key].attribute or key: value for key, value in values.items()})

    def _check_endpoint(self, origin: Mapping[str, str], source: str) -> None:
        """What settings demand of each other; reads the key files."""

        def fail(key: str, message: str) -> ConfigError:
            return ConfigError(message, source=origin.get(key, source), key=key)

        for name in ("client_key", "preshared_key"):
            path = getattr(self, f"{name}_file")
            if path is not None:
                try:
                    remedy = f"make one: raptor keygen {path}" if name == "client_key" else ""
                    vars(self)[name] = parsers.read_key_file(path, if_missing=remedy)
                except ValueError as error:
                    raise fail(f"{name}_file", str(error)) from None
        if self.endpoint is None:
            if self.transport == "raptor":
                raise fail("endpoint", "transport = raptor needs an endpoint")
            return
        if self.endpoint.startswith("udp:"):
            if not self.allow_plaintext:
                raise fail(
                    "endpoint", f"{self.endpoint} is not encrypted: use wg://, or allow_plaintext = true on a closed network"
                )
            return
        if self.server_key is None:
            raise fail("server_key", "missing: the public key of the gateway, in base64")
        if self.client_key is None:
            raise fail("client_key_file", "missing: `raptor keygen` makes a key")


def profile_endpoint(scoped_config: Mapping[str, Any], environ: Mapping[str, str], services: Mapping[str, Any]) -> str | None:
    """The S3 endpoint that environment and profile ask for, in the order of the AWS SDKs; None for AWS's own."""
    ignore = environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", scoped_config.get("ignore_configured_endpoint_urls", ""))
    if str(ignore).lower() == "true":
        return None
    service = services.get(scoped_config.get("services", ""), {}).get("s3", {})
    in_service = service.get("endpoint_url") if isinstance(service, Mapping) else None
    found = (
        environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or in_service or scoped_config.get("endpoint_url")
    )
    return str(found) if found else None


def _without_comment(value: object) -> object:
    """botocore takes `threshold = 1MB  # large` as it is; no setting of ours holds a blank and a number sign."""
    return re.split(r"\s+#", value, maxsplit=1)[0] if isinstance(value, str) else value


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.upper()


def _validated(layer: Mapping[str, Any], where: Callable[[str], str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, raw in layer.items():
        setting = _SETTINGS.get(key)
        if setting is None:
            near = _similar(key, SETTINGS)
            raise ConfigError(f"unknown setting{f'; did you mean {near[0]}?' if near else ''}", source=where(key), key=key)
        if _TWINS.get(key) in layer:
            raise ConfigError(f"{key} and {_TWINS[key]} are both given", source=where(key), key=key)
        try:
            values[key] = setting.parse(raw)
        except ValueError as error:
            raise ConfigError(str(error), source=where(key), key=key) from None
    return values


def _similar(word: str, words: Iterable[str], cutoff: float = 0.6) -> list[str]:
    from difflib import get_close_matches  # needed for mistakes only

    return get_close_matches(word, list(words), n=1, cutoff=cutoff)


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """RAPTOR_* is shared with other tools, so only a near miss of a setting is an error, not every unknown name."""
    known = [_variable(key) for key in SETTINGS]
    for name in environ:
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            near = _similar(name, known, cutoff=0.9)
            if near:
                raise ConfigError(f"unknown setting; did you mean {near[0]}?", source=f"environment variable {name}")
