"""Bodies of a put as they stand at before-call: measured without reading, read once, put back untouched.

What botocore leaves there: BytesIO for bytes and str, bytearray and file objects as they came and at their position,
b'' for none; s3transfer's ReadFileChunk, whose progress callbacks and bandwidth limit are off until it is told that the
transfer begins.

Invariant: after `put_back` the request reads exactly the octets it would have read before `read`.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from typing import Any

from raptor_s3.routing.parameters import Unsupported

_CHUNK = 1 << 20


class GivenUp(Exception):
    """The caller does not want the put any more, and is to be told so by `reason`."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Body:
    """The body of one request. `size_bytes` counts from the current position; None for a stream that can't tell."""

    __slots__ = ("_complete", "_position", "_signalled", "_taken", "raw", "size_bytes")

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self._position: int | None = None  # where to rewind to; None: can't
        self._taken: Any = None  # what was read off a stream that can't rewind
        self._complete = False  # whether `_taken` is the whole body
        self._signalled = False
        self.size_bytes: int | None = len(raw) if type(raw) is bytes else self._measure()

    def expect(self, length: int | None) -> None:
        """What the caller says that the body's length is. Raises Unsupported when it is not."""
        if length is not None and self.size_bytes is None:
            self.size_bytes = length
        elif length is not None and length != self.size_bytes:
            raise Unsupported(f"ContentLength {length} is not the body's length")

    def read(self, limit: int) -> bytes:
        """All octets from the current position on. Raises Unsupported beyond `limit`, for text, and for a stream that ends early.

        Exceptions of the stream itself (s3transfer's cancellation among them) are the caller's and pass through.
        """
        raw = self.raw
        if type(raw) is bytes:
            return raw
        if isinstance(raw, bytes | bytearray | memoryview):
            return bytes(raw)
        if type(raw) is io.BytesIO:
            data = raw.getvalue()
            position = self._position or 0
            raw.seek(0, io.SEEK_END)
            return data[position:] if position else data
        signal = getattr(raw, "signal_transferring", None)
        if signal is not None:
            signal()
            self._signalled = True
        wanted = self.size_bytes
        data = self._read_up_to(limit + 1 if wanted is None else wanted)
        if self._position is None:
            self._taken = data
        if wanted is None and len(data) > limit:
            raise Unsupported(f"a stream of unknown length, over the threshold of {limit} octets")
        if wanted is not None and len(data) != wanted:
            raise Unsupported(f"the body ended after {len(data)} of {wanted} octets")
        self.size_bytes = len(data)
        self._complete = True
        return data

    @property
    def can_be_asked(self) -> bool:
        """Whether it is one of s3transfer's, of which every read begins with a look at whether the transfer was cancelled."""
        return self._signalled

    def ask(self) -> None:
        """Raises GivenUp if the caller does not want the put any more. Reads nothing."""
        try:
            self.raw.read(0)
        except Exception as error:
            raise GivenUp(error) from None

    def put_back(self) -> Any:
        """Undo `read`, and return the body that the request should go on with."""
        if self._position is not None:
            self.raw.seek(self._position)
        if self._signalled:
            self._signalled = False
            signal = getattr(self.raw, "signal_not_transferring", None)
            if signal is not None:
                signal()
        if self._taken is None:
            return self.raw
        taken, self._taken = self._taken, None
        return io.BytesIO(taken) if self._complete else PrefixedStream(taken, self.raw)

    def _measure(self) -> int | None:
        raw = self.raw
        if isinstance(raw, bytes | bytearray | memoryview):
            return len(raw)
        if type(raw) is io.BytesIO:
            self._position = raw.tell()
            return max(raw.getbuffer().nbytes - self._position, 0)
        if isinstance(raw, io.TextIOBase):
            raise Unsupported("the body is a text file")
        if not hasattr(raw, "read"):
            raise Unsupported(f"the body is a {type(raw).__name__}")
        if hasattr(raw, "signal_transferring") and hasattr(raw, "__len__"):
            self._position = raw.tell()
            return max(len(raw) - self._position, 0)
        try:
            position = raw.tell()
            raw.seek(0, io.SEEK_END)
            end = raw.tell()
            raw.seek(position)
        except (AttributeError, OSError, TypeError, ValueError):
            return len(raw) if hasattr(raw, "__len__") else None
        self._position = int(position)
        return max(int(end) - self._position, 0)

    def _read_up_to(self, count: int) -> bytes:
        parts: list[Any] = []
        problem = ""
        while count > 0:
            part = self.raw.read(min(count, _CHUNK))
            if part is None:
                problem = "the body is a non-blocking stream"
            elif isinstance(part, str):
                problem = "the body yields text"
                parts.append(part)
            if problem or not part:
                break
            parts.append(part)
            count -= len(part)
        if problem:
            if self._position is None:
                self._taken = (parts[-1][:0] if parts else b"").join(parts)
            raise Unsupported(problem)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)


class PrefixedStream:
    """A stream that can't rewind, with what was already read off it put back in front."""

    def __init__(self, prefix: Any, rest: Any) -> None:
        self._prefix: Any = io.StringIO(prefix) if isinstance(prefix, str) else io.BytesIO(prefix)
        self._rest = rest

    def read(self, size: int | None = None) -> Any:
        if size is None or size < 0:
            return self._prefix.read() + self._rest.read()
        return self._prefix.read(size) or self._rest.read(size)

    def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self._rest.close()


def size_at_a_glance(raw: Any) -> int | None:
    """Octets of a body that HTTPS carries, for the journal: nothing is read or moved. None where it takes more than a look."""
    try:
        if isinstance(raw, bytes | bytearray | memoryview):
            return len(raw)
        if type(raw) is io.BytesIO:
            return max(raw.getbuffer().nbytes - raw.tell(), 0)
        if hasattr(raw, "__len__"):
            return len(raw)
        status = os.fstat(raw.fileno())
        return max(status.st_size - raw.tell(), 0) if stat.S_ISREG(status.st_mode) else None
    except Exception:  # anybody's object: io.UnsupportedOperation, a closed file, whatever it raises
        return None
