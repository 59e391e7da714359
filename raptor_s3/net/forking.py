"""What a forked child has to put right: locks that a vanished thread may hold, buffers and sockets that are its parent's.

`os.register_at_fork` keeps a function, and by its globals whole modules, until the interpreter is all but gone: each of the last
garbage collections then goes through everything that boto3 has loaded, some 20 ms at every exit. So one function is
registered here, and knows the others weakly.

Invariant: nothing lives longer because it was registered.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_functions: list[weakref.ref[Callable[[], None]]] = []


def in_forked_child(function: Callable[[], None]) -> Callable[[], None]:
    """A decorator: call a module's function in every child, in the order of registration, for as long as the module exists."""
    _functions.append(weakref.ref(function))
    return function


def _call_all() -> None:
    for reference in _functions:
        function = reference()
        if function is not None:
            function()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_all)
