"""When an attempt to write may begin at the latest (docs/transport.md, 'No stale overwrite').

    first datagram ............ begin_by .. + TtlMs .. + settle
                                    |- last moment -|   the sender turns to HTTPS

The sender allows a write that was begun in time a tenth of its timeout to end. S3 may take longer now and then, so nothing is
begun in the last moment of the time to live either.

Invariant: `begin_by` lies strictly within the time to live.
"""

from __future__ import annotations

from typing import Final

LAST_MOMENT_S: Final = 0.25
LAST_MOMENT_SHARE: Final = 0.1
MAX_SHARE: Final = 0.5
"""Of a short time to live, half stays."""


def begin_by(first_at: float, ttl_s: float) -> float:
    """No attempt to write begins at or after this; times in seconds on one clock.

    >>> begin_by(100.0, 4.0)
    103.6
    >>> begin_by(100.0, 0.25)
    100.125
    """
    return first_at + ttl_s - min(max(LAST_MOMENT_S, LAST_MOMENT_SHARE * ttl_s), MAX_SHARE * ttl_s)
