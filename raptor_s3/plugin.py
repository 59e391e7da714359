"""boto3's way in: `enable`, `disable`, and the entry point of botocore's client plugins.

    raptor_s3.enable(client)                                                  an S3 client, a resource, a session
    with raptor_s3.enable(session, buckets="telemetry-*"): ...                taken back at the end
    BOTOCORE_EXPERIMENTAL__PLUGINS=raptor_s3=raptor_s3.plugin                 every S3 client of the process, code unchanged

Settings (docs/settings.md) are those of the profile that the client's session uses, the environment's, and the keywords given
here.

Invariant: enabling again replaces, disabling twice is one disabling, and a client that is disabled is as it was before.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, Unpack

from raptor_s3.errors import ConfigError
from raptor_s3.net.forking import in_forked_child
from raptor_s3.routing import hooks, last_resort
from raptor_s3.routing.config import RaptorConfig
from raptor_s3.routing.profile import DEFAULT_CONFIG_FILE, describe, read_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from raptor_s3.routing.config import Keywords

logger = logging.getLogger("raptor_s3")

_CLASS_EVENT: Final = "creating-client-class.s3"
_CLASS_ID: Final = "raptor-s3.creating-client-class"
_MAKE_FAST_PATH: Any = None  # tests put a double here


class Activation:
    """What `enable` switched on. A context manager that switches it off again."""

    def __init__(self, config: RaptorConfig) -> None:
        self.config = config
        self._undo: list[Callable[[], None]] = []

    def disable(self) -> None:
        with _lock:
            while self._undo:
                self._undo.pop()()

    def __enter__(self) -> Activation:
        return self

    def __exit__(self, *_: object) -> None:
        self.disable()


def enable(target: Any, config: RaptorConfig | None = None, **keywords: Unpack[Keywords]) -> Activation:
    """Give the fast path to an S3 client or resource, or to the S3 clients that a boto3 or botocore session will make.

    `config` and `keywords` are laid over the environment and the profile of the target's session. Raises ConfigError for wrong
    settings, TypeError for any other target.
    """
    overrides: Mapping[str, Any] = {**(config.given if config is not None else {}), **keywords}
    client = _client_of(target)
    session = _session_of(target) if client is None else _session_of_client(client)
    if client is None and session is None:
        raise TypeError(f"expected an S3 client, an S3 resource or a session, not {type(target).__name__}")
    loaded = _load(session, overrides)
    if loaded.is_configured:
        loaded.prepare_runtime_dir()
    key = client if client is not None else session
    with _lock:
        _disable(key)
        activation = Activation(loaded)
        if client is not None:
            _enable_client(client, activation)
        else:
            _enable_session(session, activation)
        _activations[key] = activation
    return activation


def disable(target: Any) -> None:
    """Take back what `enable` or the environment did to a client, a resource or a session and the clients it has made since."""
    client = _client_of(target)
    with _lock:
        _disable(client if client is not None else _session_of(target))


def initialize_client_plugin(client: Any) -> None:
    """botocore's entry point, for each client of each service. botocore hides exceptions, so what is wrong is logged here."""
    if client.meta.service_model.service_name != "s3" or client in _activations:
        return
    last_resort.install()
    try:
        config = _load(_session_of_client(_client_of(client)), {})
        if not config.is_configured:
            logger.info("no fast path for this client: no raptor endpoint in %s", config.source)
            return
        config.prepare_runtime_dir()
        with _lock:
            activation = Activation(config)
            _enable_client(client, activation)
            _activations[client] = activation
        logger.info("fast path to %s for buckets %s", config.endpoint, ", ".join(config.buckets) or "(none)")
    except (ConfigError, TypeError) as error:
        logger.error("no fast path: %s", error)
    except Exception:
        logger.exception("no fast path for this client")


def _enable_client(client: Any, activation: Activation) -> None:
    attachment = hooks.attach(client, activation.config, has_shortcuts=True, make_fast_path=_MAKE_FAST_PATH)
    activation._undo.append(attachment.detach)


def _enable_session(session: Any, activation: Activation) -> None:
    """Clients of this session get the fast path as they are made, by a mix-in on boto3's own extension point."""
    made: weakref.WeakSet[Any] = weakref.WeakSet()

    class FastPathClient:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            with _lock:
                own = Activation(activation.config)
                _enable_client(self, own)
                _activations[self] = own
            made.add(self)

    def add_base(base_classes: list[type], **_: Any) -> None:
        base_classes.insert(0, FastPathClient)

    def undo() -> None:
        session.get_component("event_emitter").unregister(_CLASS_EVENT, unique_id=_CLASS_ID)
        for client in list(made):
            _disable(client)

    session.get_component("event_emitter").register_last(_CLASS_EVENT, add_base, unique_id=_CLASS_ID)
    activation._undo.append(undo)


def _disable(key: Any) -> None:
    activation = _activations.pop(key, None) if key is not None else None
    if activation is not None:
        activation.disable()


def _client_of(target: Any) -> Any:
    """The S3 client that `target` is or, as a resource, holds; None for anything else."""
    client = getattr(getattr(target, "meta", None), "client", target)
    model = getattr(getattr(client, "meta", None), "service_model", None)
    if model is None:
        return None
    if model.service_name != "s3":
        raise TypeError(f"expected an S3 client, not one of {model.service_name}")
    if inspect.iscoroutinefunction(inspect.unwrap(type(client)._make_api_call)):
        raise TypeError("asynchronous clients are not supported: a put would block their event loop")
    return client


def _session_of(target: Any) -> Any:
    """The botocore session that `target` is or wraps; None for anything else."""
    for candidate in (target, getattr(target, "_session", None)):
        if hasattr(candidate, "get_scoped_config") and hasattr(candidate, "get_component"):
            return candidate
    return None


def _session_of_client(client: Any) -> Any:
    """The session that made this client, if it can be found: the maker's own handlers on the client's events know it."""
    tree = getattr(getattr(client.meta.events, "_emitter", None), "_handlers", None)
    for handler in tree.prefix_search("choose-signer.s3.PutObject") if tree is not None else ():
        maker = getattr(handler, "__self__", None)
        session = _session_of(getattr(getattr(maker, "_auth_token_resolver", None), "__self__", None))
        if session is not None:
            return session
    return None


def _load(session: Any, overrides: Mapping[str, Any]) -> RaptorConfig:
    if session is None:
        profile = read_profile()
        return RaptorConfig.load(profile.scoped_config, None, overrides, source=profile.source, services=profile.services)
    shown = session.get_config_variable("config_file") or DEFAULT_CONFIG_FILE
    source = describe(shown, session.get_config_variable("profile") or "default")
    try:
        scoped_config = session.get_scoped_config()
        services = session.full_config.get("services", {})
    except Exception as error:  # botocore's ConfigParseError, ProfileNotFound; possibly a vendored botocore's
        raise ConfigError(str(error), source=source) from error
    return RaptorConfig.load(scoped_config, None, overrides, source=source, services=services)


_lock = threading.RLock()
_activations: weakref.WeakKeyDictionary[Any, Activation] = weakref.WeakKeyDictionary()


@in_forked_child
def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
