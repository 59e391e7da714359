"""The checksums that a put carries, computed from the body as botocore would have (docs/wire.md).

CRC-32 always: the receiver checks it. Beside it what the caller gave, or what the caller or botocore's default chose;
S3 is then told that one alone. What botocore computes through awscrt is computed through awscrt here, or not at all.

Invariant: no put leaves with a checksum of other octets than its body's.
"""

from __future__ import annotations

import binascii
import hashlib
import zlib
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.routing.parameters import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOCAL: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "SHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}
_AWSCRT: Final[Mapping[str, Callable[[Any, bytes], bytes]]] = {
    "CRC32C": lambda crt, data: crt.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda crt, data: crt.crc64nvme(data).to_bytes(8, "big"),
}


def add_checksum(fields: dict[str, Any], algorithm: str | None, data: bytes) -> None:
    """Complete `fields` with the checksum of `data`; `algorithm` as botocore resolved it, None for no choice.

    Raises Unsupported when it can't be computed here, and when a given ContentMD5 or CRC-32 does not match: S3 itself
    is to say so, over HTTPS.
    """
    content_md5 = fields.get("ContentMD5")
    if content_md5 is not None:
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        if content_md5 != _base64(digest):
            raise Unsupported("ContentMD5 does not match the body")
    crc32 = _base64(zlib.crc32(data).to_bytes(4, "big"))
    if fields.setdefault("ChecksumCRC32", crc32) != crc32:
        raise Unsupported("ChecksumCRC32 does not match the body")
    if algorithm is None or algorithm in ("crc32", "CRC32"):
        return
    name = f"Checksum{algorithm.upper()}"
    if name not in fields:
        fields[name] = _base64(_digest(algorithm.upper(), data))


def _base64(digest: bytes) -> str:
    return binascii.b2a_base64(digest, newline=False).decode("ascii")


def _digest(name: str, data: bytes) -> bytes:
    local = _LOCAL.get(name)
    if local is not None:
        return local(data)
    compute = _AWSCRT.get(name)
    try:
        from awscrt import checksums

        if compute is None:
            raise Unsupported(f"checksum algorithm {name} is not known here")
        return compute(checksums, data)
    except (ImportError, AttributeError):
        raise Unsupported(f"checksum algorithm {name} needs awscrt") from None
