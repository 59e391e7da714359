"""The user's private directory for what outlives a process: sessions, learned records, the breaker.

RAPTOR_RUNTIME_DIR, else XDG_RUNTIME_DIR/raptor-s3, else ~/.cache/raptor-s3/run (%LOCALAPPDATA% on Windows). 0700 with
files of 0600, all owned by the user; anything else is a ConfigError, because the files hold keys. A directory that
can't be made (read-only, full, no home) is no error: the caller then works in memory.

Files are replaced atomically. Locks are advisory (`flock`, `msvcrt.locking`), taken on a lock file that is opened for
each use, so neither fork nor threads can share one by accident; waiting is bounded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Final

from raptor_s3.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if sys.platform == "win32":  # pragma: no cover
    import msvcrt
else:
    import fcntl

LOCK_TIMEOUT_S: Final = 0.1
_LOCK_POLL_S: Final = 0.0005
_IS_POSIX: Final = os.name == "posix"
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def default_runtime_dir() -> str | None:
    """Where the directory should be; None when no place belongs to this user (no home, `sudo -E`)."""
    if explicit := os.environ.get("RAPTOR_RUNTIME_DIR"):
        return os.path.expanduser(explicit)
    xdg = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(xdg) and _is_own(xdg):
        return os.path.join(xdg, "raptor-s3")
    home = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.path.expanduser("~")
    if not home or not os.path.isabs(home) or not _is_own(home):
        return None
    return os.path.join(home, ".cache", "raptor-s3", "run")


def prepare_runtime_dir(directory: str) -> None:
    """Make the directory with its parents, or check it.

    Raises ConfigError (others may read it, not ours) and OSError (can't be made).
    """
    try:
        os.makedirs(os.path.dirname(directory) or ".", exist_ok=True)
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError("the runtime directory is not a directory", source=directory)
    _check_private(status, directory, "0700")


def open_private(path: str, flags: int) -> int:
    """A descriptor of a file in the directory; created as 0600.

    Raises ConfigError for a file others can read, a link, or not ours; OSError.
    """
    try:
        descriptor = os.open(path, flags | _NO_FOLLOW, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise ConfigError("must be a plain file, not a link", source=path) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("must be a plain file", source=path)
        _check_private(status, path, "0600")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_private(path: str, max_size: int) -> bytes | None:
    """The content, None if there is no such file; at most `max_size` octets of it. Raises ConfigError, OSError."""
    try:
        descriptor = open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, max_size)
    finally:
        os.close(descriptor)


def replace_private(path: str, content: bytes | Callable[[os.stat_result], bytes]) -> None:
    """Write the whole file or nothing. Raises OSError, e.g. when the disk is full; the old content is then still there.

    `content` may be made from the status of the file that will be at `path`.
    """
    temporary = f"{path}.{os.getpid()}.{time.monotonic_ns():x}.tmp"
    descriptor = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            octets = content if isinstance(content, bytes) else content(os.fstat(descriptor))
            if os.write(descriptor, octets) != len(octets):
                raise OSError(errno.ENOSPC, "short write", temporary)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def locked(path: str, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[int]:
    """Hold the lock file at `path`; yields its descriptor (read and write).

    Raises TimeoutError after `timeout_s`, ConfigError, OSError.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            _acquire(descriptor, deadline, path)
            # Someone may have cleaned the directory while we waited: a lock on an unlinked file excludes nobody.
            if _is_same_file(descriptor, path):
                yield descriptor
                return
        finally:
            # Explicitly: a child forked meanwhile holds a copy of the descriptor, and closing ours alone would leave it locked.
            with contextlib.suppress(OSError):
                _release(descriptor)
            os.close(descriptor)


def _acquire(descriptor: int, deadline: float, path: str) -> None:
    while True:
        try:
            if sys.platform == "win32":  # pragma: no cover
                # A byte that is never read or written: locks are mandatory here.
                os.lseek(descriptor, 1 << 20, os.SEEK_SET)
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path} stayed locked") from None
        time.sleep(_LOCK_POLL_S)


def _release(descriptor: int) -> None:
    if sys.platform == "win32":  # pragma: no cover
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _is_same_file(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _check_private(status: os.stat_result, path: str, expected_mode: str) -> None:
    if not _IS_POSIX:  # pragma: no cover - the profile directory's ACL protects it
        return
    if status.st_uid != os.geteuid():
        raise ConfigError(f"belongs to user {status.st_uid}, not to {os.geteuid()}", source=path)
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"others have access (mode {mode:04o}): it holds keys; chmod {expected_mode}", source=path)


def _is_own(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return not _IS_POSIX or status.st_uid == os.geteuid()
