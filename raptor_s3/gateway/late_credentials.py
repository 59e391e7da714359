"""Credentials that come after the gateway: boto3 looks for them when a client is made, and then never again.

Invariant: where boto3 finds credentials, nothing here is used.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from botocore.credentials import CredentialProvider, Credentials
from botocore.exceptions import NoCredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 5.0
"""Looking may take seconds where an instance's metadata service does not answer."""


class LateProvider(CredentialProvider):  # type: ignore[misc]
    """The last of a session's providers: has credentials that `load` looks for when they are needed."""

    METHOD = "late"

    def __init__(self, load: Callable[[], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock

    def load(self) -> Credentials:
        _log.warning("no AWS credentials found: puts are refused until there are some, as boto3 looks for them")
        return _LateCredentials(self._load, self._clock)


class _LateCredentials(Credentials):  # type: ignore[misc]
    def __init__(self, load: Callable[[], Any], clock: Callable[[], float]) -> None:
        super().__init__("", "", method=LateProvider.METHOD)
        self._load = load
        self._clock = clock
        self._found: Any = None
        self._look_at = clock() + LOOK_AGAIN_S
        self._lock = threading.Lock()

    def get_frozen_credentials(self) -> Any:
        """Raises NoCredentialsError while there are none."""
        with self._lock:
            if self._found is None and self._clock() >= self._look_at:
                self._found = self._load()
                self._look_at = self._clock() + LOOK_AGAIN_S
                if self._found is not None:
                    _log.info("AWS credentials found (%s)", self._found.method)
            found = self._found
        if found is None:
            raise NoCredentialsError
        return found.get_frozen_credentials()


def look_for_late_ones(session: Any) -> None:
    """Have this botocore session's clients look again. Before they are made."""
    resolver = session.get_component("credential_provider")
    providers = list(resolver.providers)
    others = type(resolver)(providers)
    resolver.providers.append(LateProvider(others.load_credentials))
