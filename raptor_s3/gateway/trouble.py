"""What the network and AWS may answer at any time: one exception for nonsense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from raptor_s3.errors import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Callable


def ask(call: Callable[[], Any]) -> Any:
    """What `call` returns. botocore parses answers without much suspicion: what it stumbles over is a MalformedPacket here."""
    try:
        return call()
    except (ClientError, BotoCoreError):
        raise
    except Exception as error:
        raise MalformedPacket(f"AWS answered nonsense: {type(error).__name__}: {error}") from None
