"""What all clients of a process share per endpoint: the engine, the breaker, and the journal of the runtime directory.

Invariant: a runtime directory that can't be used costs the memory between processes, never a put; one that others can
read is a ConfigError (raptor_s3.net.runtime_dir).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from raptor_s3.errors import RaptorError
from raptor_s3.net.forking import in_forked_child
from raptor_s3.net.session_store import SessionStore, endpoint_id
from raptor_s3.routing.breaker import Breaker
from raptor_s3.routing.fast_path import FastPath
from raptor_s3.routing.journal import Journal
from raptor_s3.routing.policy import LinkEstimate
from raptor_s3.wireguard.keys import public_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from raptor_s3.net.engine import Engine
    from raptor_s3.routing.config import RaptorConfig

_BREAKER: Final = "breaker"  # its place in the endpoint's learned record
_lock = threading.Lock()
_breakers: dict[tuple[str, str | None], Breaker] = {}
_journals: dict[Path, Journal] = {}


def directory_for(config: RaptorConfig) -> Path | None:
    """`RaptorConfig.prepare_runtime_dir`."""
    return config.prepare_runtime_dir()


def journal_for(config: RaptorConfig) -> Journal | None:
    directory = config.prepare_runtime_dir()
    if directory is None:
        return None
    with _lock:
        journal = _journals.get(directory)
        if journal is None:
            journal = _journals[directory] = Journal(directory)
        return journal


def breaker_for(config: RaptorConfig) -> Breaker:
    """The breaker of the settings' endpoint, shared within the process and, by its learned record, among a user's processes."""
    directory = config.prepare_runtime_dir()
    if config.endpoint is None:
        return Breaker(None)
    record = LearnedRecord(config, directory)
    with _lock:
        return _breakers.setdefault((record.endpoint, record.directory), Breaker(record))


def fast_path_for(config: RaptorConfig) -> FastPath:
    """Everything real behind a client's puts. The engine is made at the first of them. Raises ConfigError."""
    engine = _engine_factory(config)
    breaker = breaker_for(config) if config.is_configured else Breaker(None)
    return FastPath(config, engine, breaker, lambda: link_estimate(engine()))


def link_estimate(engine: Engine) -> LinkEstimate | None:
    """What the engine has learned about the way; None before its first put, or when it can't open."""
    try:
        status = engine.status()
    except (RaptorError, OSError):
        return None
    if status.rtt_s is None or status.rate is None:
        return None
    return LinkEstimate(status.rtt_s, status.loss, status.rate * 8)


class LearnedRecord:
    """What the processes of a user have learned about an endpoint (raptor_s3.net.session_store); a breaker's Store."""

    def __init__(self, config: RaptorConfig, directory: Path | None) -> None:
        parts = urlsplit(config.endpoint or "")
        client = public_key(config.client_key) if config.client_key else b"\0" * 32
        self.endpoint = endpoint_id(parts.hostname or "", parts.port or 0, config.server_key or b"\0" * 32, client)
        self.directory = None if directory is None else str(directory)
        self._store = SessionStore(self.directory)

    def learned(self) -> Mapping[str, Any]:
        """All of it. Raises ConfigError when others can read or write the file."""
        return self._store.load_learned(self.endpoint)

    def load(self) -> Mapping[str, Any]:
        state = self.learned().get(_BREAKER)
        return state if isinstance(state, dict) else {}

    def update(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        # Two processes that do this at once may both let a put try again: harmless.
        self._store.update_learned(self.endpoint, {_BREAKER: dict(change(self.load()))})


def _engine_factory(config: RaptorConfig) -> Callable[[], Engine]:
    engine: Engine | None = None  # itself one per process and endpoint, and aware of forks

    def get() -> Engine:
        nonlocal engine
        if engine is None:
            from raptor_s3.net.engine import Engine

            engine = Engine.for_endpoint(config.endpoint_settings())
        return engine

    return get


@in_forked_child
def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for breaker in _breakers.values():
        breaker.after_fork()
