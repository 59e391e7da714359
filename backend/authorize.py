"""The policy (raptor_s3.receiver.policy) from an SSM parameter, so that it changes without a deployment.

Invariant: where the document has any mistake, nobody may write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raptor_s3.errors import ConfigError
from raptor_s3.receiver.policy import NOBODY, Policy, parse_policy

if TYPE_CHECKING:
    from collections.abc import Callable

REFRESH_S: Final = 60.0
"""How old a policy may be. A change takes that long to reach every sandbox."""


class PolicyCache:
    """The policy as of at most `REFRESH_S` ago.

    Where the parameter can't be read, the last good policy goes on to hold; where its text is wrong, nobody may write.
    """

    def __init__(self, read: Callable[[], str], clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._read = read
        self._clock = clock
        self._report = report
        self._policy: Policy | None = None
        self._read_at = 0.0

    def get(self) -> Policy:
        """Raises what `read` raises while there has never been a policy: the caller's work is to be tried again."""
        now = self._clock()
        if self._policy is not None and now - self._read_at < REFRESH_S:
            return self._policy
        try:
            self._policy = parse_policy(self._read())
        except ConfigError as error:
            self._report(str(error))
            self._policy = NOBODY
        except Exception as error:
            if self._policy is None:
                raise
            self._report(f"the policy can't be read, the last one goes on to hold: {error}")
        self._read_at = now
        return self._policy
