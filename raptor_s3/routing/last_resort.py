"""Warnings for those who have not set up logging: to stderr, as Python does by itself, but with the name of who speaks.

Invariant: silent as soon as anybody listens to these loggers or to the root logger.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Final

_PREFIX: Final = "raptor_s3"


class _LastResort(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None and not self._is_heard(record.name):
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"{_PREFIX}: {self.format(record)}\n")

    def _is_heard(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


_handler: Final = _LastResort(logging.WARNING)


def install() -> None:
    """Does nothing the second time."""
    logging.getLogger(_PREFIX).addHandler(_handler)
