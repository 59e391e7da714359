"""What makes the functions of _wire.c. Each takes first its twin, which gets what is no plain case, then what they may know."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from typing_extensions import Buffer

_State = TypeVar("_State", bound=tuple[Any, ...])

def put_header_builder(
    twin: Callable[[Mapping[str, Any]], bytes],
    types: Mapping[str, type],
    required: tuple[str, str, str, str],
    max_key_bytes: int,
    max_ttl_ms: int,
    /,
) -> Callable[[Mapping[str, Any]], bytes]:
    """`required`: the names of bucket, key, checksum and time to live, in this order."""

def put_object_splitter(
    twin: Callable[[Buffer], tuple[dict[str, Any], memoryview]],
    types: Mapping[str, type],
    required: tuple[str, str, str, str],
    max_key_bytes: int,
    max_ttl_ms: int,
    /,
) -> Callable[[Buffer], tuple[dict[str, Any], memoryview]]: ...
def transfer_state_parser(
    twin: Callable[[Buffer], _State], state: type[_State], types: tuple[object, ...], /
) -> Callable[[Buffer], _State]:
    """`types`: for each of the 256 numbers its member, or None."""

def transfer_state_builder(twin: Callable[[_State], bytes], state: type[_State], /) -> Callable[[_State], bytes]: ...
def datagram_parser(
    twin: Callable[[Buffer], _State], datagram: type[_State], make_oti: Callable[[int, int, int], object], /
) -> Callable[[Buffer], _State]: ...
