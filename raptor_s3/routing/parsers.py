"""Text to value, one function per kind of setting.

A setting arrives as text (configuration file, environment) or as the Python value that a program passed as a keyword;
each parser takes both and returns the normal form.

Invariant: a parser returns a usable value or raises ValueError with a sentence that says what was expected and quotes
no secret.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

KEY_BYTES = 32  # Curve25519 keys and pre-shared keys alike (WireGuard whitepaper 5.4)
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "m": 1 << 20,
    "g": 1 << 30,
}  # as the AWS CLI has them
_TIME_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0}
_PARTITIONS = (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"))
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def parse_text(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ValueError("expected some text")


def parse_boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError(f"expected true or false, got {value!r}")


def parse_size(value: object) -> int:
    """Octets: `262144`, `256KB`, `1.5 MiB`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)i?b?", value.strip().lower()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a size such as 256KB, got {value!r}")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def parse_duration(value: object) -> float:
    """Seconds, above zero: `5`, `5s`, `750ms`."""
    number = _seconds(value)
    if not 0 < number < math.inf:
        raise ValueError(f"expected a time above zero such as 5s or 750ms, got {value!r}")
    return number


def parse_pause(value: object) -> float:
    """The same, but zero is legal."""
    number = _seconds(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"expected a time such as 5s or 750ms, or 0, got {value!r}")
    return number


def number_between(low: float, high: float) -> Callable[[object], float]:
    """A parser of numbers from `low` to `high`, both included."""

    def parse(value: object) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"expected a number from {low:g} to {high:g}, got {value!r}")
        return number

    return parse


def or_auto(parse: Callable[[object], T]) -> Callable[[object], T | None]:
    """`auto` is None: whoever uses the setting measures instead."""
    return lambda value: None if value is None or (isinstance(value, str) and value.strip().lower() == "auto") else parse(value)


def one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = value.strip().lower() if isinstance(value, str) else value
        if isinstance(text, str) and text in choices:
            return text
        raise ValueError(f"expected {' or '.join(choices)}, got {value!r}")

    return parse


def parse_list(value: object) -> tuple[str, ...]:
    """Comma- or space-separated text, or an iterable of strings; empty is legal."""
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | dict):
        items = tuple(value)
        if all(isinstance(item, str) and item for item in items):
            return items
    raise ValueError(f"expected a comma-separated list, got {value!r}")


def list_of(*choices: str) -> Callable[[object], tuple[str, ...]]:
    spelling = {choice.lower(): choice for choice in choices}

    def parse(value: object) -> tuple[str, ...]:
        items = parse_list(value)
        for item in items:
            if item.lower() not in spelling:
                raise ValueError(f"expected any of {', '.join(choices)}, got {item!r}")
        return tuple(spelling[item.lower()] for item in items)

    return parse


def parse_key(value: object) -> bytes:
    """A 32-octet key, raw or in base64. The message never quotes the value: it may be a private key."""
    if isinstance(value, bytes | bytearray) and len(value) == KEY_BYTES:
        return bytes(value)
    try:
        key = base64.b64decode(value.strip(), validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError("expected a WireGuard key: 32 octets in base64, 44 characters")
    return key


def parse_path(value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"expected a path, got {value!r}")
    return Path(os.path.expandvars(os.fspath(value))).expanduser()


def read_key_file(path: Path, *, if_missing: str = "") -> bytes:
    """The base64 key in `path`. ValueError when it holds no key, when anybody but its owner can read it, or when it does not
    exist: `if_missing` says what to do then."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(1024)
    except OSError as error:
        hint = f"; {if_missing}" if if_missing and isinstance(error, FileNotFoundError) else ""
        raise ValueError(f"can't read key file {path.absolute()}: {error.strerror}{hint}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"key file {path} is not a regular file")
    if os.name == "posix":
        if status.st_mode & 0o077:
            raise ValueError(f"key file {path} can be read by others (mode {status.st_mode & 0o777:04o}): run chmod 600 {path}")
        if status.st_uid not in (os.geteuid(), 0):
            raise ValueError(f"key file {path} belongs to another user (uid {status.st_uid})")
    try:
        return parse_key(content.decode("ascii"))
    except ValueError:
        raise ValueError(f"key file {path} does not hold a WireGuard key (32 octets in base64)") from None


def parse_endpoint(value: object) -> str:
    """`wg://host:port`, or `udp://host:port` for closed networks."""
    text = parse_text(value)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # a port out of range or no number, a bracket too few
        if re.search(r":\d+$", text):
            raise ValueError(f"expected a port from 1 to 65535, got {text!r}") from None
        raise ValueError(f"expected wg://host:port, got {text!r}") from None
    if port == 0:
        raise ValueError(f"expected a port from 1 to 65535, got {text!r}")
    plain = not (parts.username or parts.password or parts.path.strip("/") or parts.query or parts.fragment)
    if parts.scheme not in ("wg", "udp") or not parts.hostname or not port or not plain:
        raise ValueError(f"expected wg://host:port, got {text!r}")
    return f"{parts.scheme}://{parts.netloc}"


def parse_http_url(value: object) -> str:
    text = parse_text(value)
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname:
        raise ValueError(f"expected an http:// or https:// URL, got {text!r}")
    return text.rstrip("/")


def partition_of(region: str) -> str:
    """The AWS partition of a region: bucket names are unique within one only (AWS General Reference, ARNs)."""
    return next((name for prefix, name in _PARTITIONS if region.startswith(prefix)), "aws")


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = value.strip().lower() if isinstance(value, str) else ""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(ms|s|min|m|)", text)
    return math.nan if match is None else float(match[1]) * _TIME_UNITS[match[2]]
