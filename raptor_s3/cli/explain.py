"""What an error means for whoever typed the command, and what to do about it.

Invariant: no advice that can't help: `raptor ping` is not for those who have just pinged, nor for a name that does not exist.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from raptor_s3 import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

_NO_WAY: Final = "There is no way to that address: is this machine online, and is {endpoint} right?"
_REMEDIES: Final[Mapping[int, str]] = {
    errno.ECONNREFUSED: "Nobody listens on that port: is the gateway running, and is the port in {endpoint} right?",
    errno.ENETUNREACH: _NO_WAY,
    errno.EHOSTUNREACH: _NO_WAY,
    errno.ENETDOWN: _NO_WAY,
    errno.EPERM: "A firewall on this machine forbids it",
}


def explain(error: BaseException, *, endpoint: str = "raptor.endpoint", may_ping: bool = False) -> str:
    """What went wrong and what to do about it, in one line.

    `endpoint`: what the user calls the place where it is set. `may_ping`: whether `raptor ping` is still to be tried.
    """
    text = str(error) or type(error).__name__
    ping = " Try: raptor ping" if may_ping else ""
    if isinstance(error, errors.HandshakeTimeout):
        remedy = _remedy(error, text)
        if remedy:
            return f"{text}. {remedy.format(endpoint=endpoint)}"
        return (
            f"{text}. Is UDP to the endpoint open, is server_key its key, and does its operator know ours "
            f"(raptor keygen [FILE] --public)?{ping}"
        )
    if isinstance(error, errors.ConfirmationTimeout):
        return f"{text}. The link or the receiver is too slow or silent.{ping + ';' if ping else ' Try'} a longer --timeout"
    if isinstance(error, errors.TransferCancelled):
        return (
            f"{text}. Nothing confirmed it in time: the link is slow, or S3 does not answer the receiver. Try a longer --timeout"
        )
    return text


def _remedy(error: errors.HandshakeTimeout, text: str) -> str:
    """Empty when nothing is known but silence."""
    if text.endswith("could not be resolved in time"):
        return "No name server answers: is this machine online?"
    cause = error.__context__
    if isinstance(cause, socket.gaierror):
        if cause.errno == socket.EAI_AGAIN:
            return "No name server answers: is this machine online?"
        return "There is no such host: check the name in {endpoint}"
    return next((remedy for number, remedy in _REMEDIES.items() if text.endswith(f": {os.strerror(number)}")), "")
