"""A bounded journal of recent puts: which way each went, why, and what it cost.

One JSON object per line in `puts.jsonl` of the runtime directory, shared by all processes of a user; `aws raptor
status` and `raptor status` read it. Lines are appended whole (O_APPEND), at most a few times a second: what comes between is
buffered and flushed by the next put or at exit, of a burst the latest puts.

Invariant: the files never hold more than about twice MAX_BYTES, are 0600, and nothing that goes wrong here reaches a
caller of put_object.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from raptor_s3.errors import ConfigError
from raptor_s3.net.forking import in_forked_child
from raptor_s3.net.runtime_dir import open_private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger("raptor_s3.journal")

FILE_NAME: Final = "puts.jsonl"
MAX_BYTES: Final = 512 * 1024
_FLUSH_INTERVAL_S: Final = 0.25
_BUFFERED: Final = 256


class PutRecord:
    """One PutObject call. Times in seconds; `at` is unix time of the start."""

    # Class attributes are the defaults: a put pays for what it says.
    at: float
    bucket: str = ""
    key: str = ""
    size_bytes: int | None = None
    route: str = ""  # raptor or https
    reason: str = ""  # why HTTPS; empty on the fast path
    status: int = 0  # HTTP status that the caller saw; 0 when an exception ended the call
    error: str = ""  # error code, or the exception's class
    etag: str = ""
    elapsed_s: float = 0.0
    datagrams: int = 0  # sent
    lost: int = 0  # estimated
    rtt_s: float | None = None
    handshake: bool = False  # whether this put had to wait for one
    source: str = ""  # which face: boto3, aws, raptor
    pid: int = 0

    def __init__(self, at: float, bucket: str = "", key: str = "", source: str = "", **known: Any) -> None:
        self.at, self.bucket, self.key, self.source = at, bucket, key, source
        if known:
            vars(self).update(known)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}


class Journal:
    """Appends to and reads the journal of one runtime directory. Thread-safe; usable after fork."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._pending: deque[PutRecord] = deque(maxlen=_BUFFERED)
        self._lock = threading.Lock()
        self._flushed_at = 0.0
        _journals.add(self)

    def record(self, put: PutRecord) -> None:
        self._pending.append(put)
        now = time.monotonic()
        if now - self._flushed_at >= _FLUSH_INTERVAL_S:
            self._flushed_at = now
            self.flush()

    def flush(self) -> None:
        """Write what is buffered. Never raises."""
        if not self._pending or not self._lock.acquire(blocking=False):
            return
        try:
            self._append()
        except (OSError, ConfigError) as error:
            logger.debug("journal %s: %s", self._path, error)
        finally:
            self._lock.release()

    def read(self, limit: int = 100) -> list[PutRecord]:
        """The latest `limit` puts of all processes, oldest first; lines that don't parse are skipped."""
        self.flush()
        records: list[PutRecord] = []
        for path in (self._path, self._rotated):
            with contextlib.suppress(OSError):
                lines = path.read_text("utf-8", "replace").splitlines()
                records[:0] = [record for line in lines if (record := _parse(line)) is not None]
            if len(records) >= limit:
                break
        return records[-limit:]

    @property
    def _rotated(self) -> Path:
        return self._path.with_name(f"{FILE_NAME}.1")

    def _append(self) -> None:
        puts = [self._pending.popleft() for _ in range(len(self._pending))]
        pid = os.getpid()
        text = "".join(_encode(_compact(put, pid)) + "\n" for put in puts)
        descriptor = open_private(str(self._path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, text.encode("utf-8", "replace"))
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if size > MAX_BYTES:
            self._path.replace(self._rotated)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._pending.clear()  # the parent writes its own


def _compact(put: PutRecord, pid: int) -> dict[str, Any]:
    put.pid = put.pid or pid
    return {name: value for name, value in put.as_dict().items() if value not in _EMPTY}


def _parse(line: str) -> PutRecord | None:
    try:
        data: Mapping[str, Any] = json.loads(line)
        return PutRecord(**{name: data[name] for name in _FIELDS if name in data})
    except (ValueError, TypeError):
        return None


_FIELDS: Final = tuple(PutRecord.__annotations__)
_EMPTY: Final = ("", None, False)  # 0 too, which equals False
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_journals: set[Journal] = set()


def _flush_all() -> None:
    for journal in list(_journals):
        journal.flush()


@in_forked_child
def _reset_all() -> None:
    for journal in list(_journals):
        journal._after_fork()


atexit.register(_flush_all)
