"""The local stack (docs/backend.md): `python -m backend.local up|down|status`, or `with LocalStack(directory) as stack`."""

from __future__ import annotations

from backend.local.processes import LocalStackError
from backend.local.stack import Endpoint, LocalStack

__all__ = ["Endpoint", "LocalStack", "LocalStackError"]
