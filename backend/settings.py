"""The functions' environment, as template.yaml sets it.

Invariant: a function whose environment is incomplete does not start; the error names the variable.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from raptor_s3.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

SMALL_OBJECT_BYTES: Final = 5 << 20
"""Below S3's least part size: one PutObject. From here on: staged blocks and a multipart upload."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`published_prefix` is where objects without a put header go; `guard_direct_writes` is explained in `delivery`."""

    table: str
    completion_queue_url: str
    reply_topic_arn: str
    objects_bucket: str
    staging_bucket: str
    policy_parameter: str
    published_prefix: str
    guard_direct_writes: bool
    max_peer_bytes: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises ConfigError that names the variable."""

        def text(name: str) -> str:
            value = environment.get(name, "")
            if not value:
                raise ConfigError(f"environment variable {name} is missing", source="Lambda")
            return value

        guard = text("DIRECT_WRITES")
        if guard not in ("guarded", "unguarded"):
            raise ConfigError(f"DIRECT_WRITES is {guard!r}, neither guarded nor unguarded", source="Lambda")
        megabytes = text("MAX_PEER_MEGABYTES")
        if not megabytes.isascii() or not megabytes.isdigit():
            raise ConfigError(f"MAX_PEER_MEGABYTES is {megabytes!r}, not a number", source="Lambda")
        return cls(
            table=text("TABLE"),
            completion_queue_url=text("COMPLETION_QUEUE_URL"),
            reply_topic_arn=text("REPLY_TOPIC_ARN"),
            objects_bucket=text("OBJECTS_BUCKET"),
            staging_bucket=text("STAGING_BUCKET"),
            policy_parameter=text("POLICY_PARAMETER"),
            published_prefix=environment.get("PUBLISHED_PREFIX", ""),
            guard_direct_writes=guard == "guarded",
            max_peer_bytes=int(megabytes) << 20,
        )
