"""raptor-s3: small S3 uploads in one round trip.

    import raptor_s3
    raptor_s3.enable(client)         an S3 client, or a session for the S3 clients it will make; settings from ~/.aws/config
    raptor_s3.disable(client)

Importing this package imports nothing else: boto3 comes with the client that is handed in, the codec with the first put.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raptor_s3.errors import ConfigError, RaptorError
    from raptor_s3.plugin import Activation, disable, enable
    from raptor_s3.routing.config import RaptorConfig

__version__ = "0.1.0"
__all__ = ["Activation", "ConfigError", "RaptorConfig", "RaptorError", "disable", "enable"]

_HOMES = {
    "Activation": "raptor_s3.plugin",
    "ConfigError": "raptor_s3.errors",
    "RaptorConfig": "raptor_s3.routing.config",
    "RaptorError": "raptor_s3.errors",
    "disable": "raptor_s3.plugin",
    "enable": "raptor_s3.plugin",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
