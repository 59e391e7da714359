"""Where files go and what they are called there.

    raptor FILE   s3://bucket/key          the key as it stands; a bucket or a key ending in `/` gets the file's name appended
    raptor FOLDER s3://bucket/prefix       prefix/relative/path
    raptor ...    wg://host:port           object id = [timestamp/]relative/path, as the published CLI names objects

Invariant: names use `/` on every platform and never leave the folder they were found in.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raptor_s3.cli.options import UsageError
from raptor_s3.cli.output import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STDIN = "-"
MAX_OBJECT_ID_BYTES = 255
MAX_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Bucket:
    """s3://name/key"""

    name: str
    key: str

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"


@dataclass(frozen=True, slots=True)
class Receiver:
    """wg://host:port or udp://host:port: the receiver itself, which stores under a prefix of its own."""

    url: str

    @property
    def is_encrypted(self) -> bool:
        return self.url.startswith("wg://")


@dataclass(frozen=True, slots=True)
class Upload:
    """One file to send. `name` is its key or object id, `path` is None for stdin."""

    path: Path | None
    name: str


def parse_destination(text: str) -> Bucket | Receiver:
    """Raises UsageError for anything but s3://, wg:// and udp:// URLs."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "s3":
        name, _, key = rest.partition("/")
        if not name:
            raise UsageError(f"{text} names no bucket: write s3://BUCKET/KEY")
        return Bucket(name, key)
    if separator and scheme in ("wg", "udp"):
        host, _, port = rest.rpartition(":")
        if not host or not port.isascii() or not port.isdigit():
            raise UsageError(f"{text} is not an endpoint: write {scheme}://HOST:PORT")
        if len(port) > 5 or not 0 < int(port) < 65536:
            raise UsageError(f"{text}: a port is a number from 1 to 65535")
        return Receiver(text)
    raise UsageError(f"{text!r} is no destination: write s3://BUCKET/KEY, wg://HOST:PORT or udp://HOST:PORT")


def list_uploads(
    source: str, destination: Bucket | Receiver, *, recursive: bool, prefix: str, warn: Callable[[str], None]
) -> Iterator[Upload]:
    """The files of `source` (a file, a folder, or `-` for stdin) with their names at the destination, in a stable order.

    `prefix` goes before every object id at a Receiver. Files that can't be sent (sockets, devices, names too long) are told to
    `warn` and left out. Raises UsageError when `source` does not exist, or gets no name.
    """
    if source == STDIN:
        if isinstance(destination, Receiver) or not destination.key or destination.key.endswith("/"):
            raise UsageError("stdin needs a whole name: raptor - s3://BUCKET/KEY")
        yield Upload(None, destination.key)
        return
    root = Path(source)
    if not root.exists():
        raise UsageError(f"{source} does not exist")
    if not root.is_dir():
        if not root.is_file():
            raise UsageError(f"{source} is neither a file nor a folder (to send a stream: raptor - s3://BUCKET/KEY)")
        found: Iterator[Path] = iter([root])
    else:
        found = _walk(root, recursive, warn)
    for path in found:
        relative = root.name if path == root else path.relative_to(root).as_posix()
        name = _name(relative, destination, prefix, is_folder=path != root)
        limit = MAX_OBJECT_ID_BYTES if isinstance(destination, Receiver) else MAX_KEY_BYTES
        try:
            length = len(name.encode())
        except UnicodeEncodeError:
            warn(f"{path} is left out: its name is not text, and names over there are UTF-8")
            continue
        if length > limit:
            warn(f"{path} is left out: its name has {length} bytes there, {limit} fit")
            continue
        yield Upload(path, name)


def timestamp_prefix(unix_time: float) -> str:
    """The folder in front of object ids, to the millisecond.

    The published CLI's ends at the second. A receiver takes an object id that it has just finished for a repeated question,
    so that of two files sent within one second under one name, the second would be confirmed and never stored.

    >>> timestamp_prefix(1_777_593_600.25)
    '20260501000000250/'
    """
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(unix_time)) + f"{int(unix_time * 1000) % 1000:03d}/"


def _name(relative: str, destination: Bucket | Receiver, prefix: str, *, is_folder: bool) -> str:
    if isinstance(destination, Receiver):
        return prefix + relative
    key = destination.key
    if is_folder:
        return f"{key.rstrip('/')}/{relative}" if key else relative
    return key + relative if not key or key.endswith("/") else key


def _walk(folder: Path, recursive: bool, warn: Callable[[str], None]) -> Iterator[Path]:
    def complain(error: OSError) -> None:
        warn(f"{error.filename}: {error.strerror}")

    has_files = False
    for parent, folders, files in os.walk(folder, onerror=complain):
        links = {name for name in folders if os.path.islink(os.path.join(parent, name))}
        for name in sorted(links) if recursive else ():
            warn(f"{Path(parent, name)} is left out: it is a link to a folder")
        folders[:] = sorted(set(folders) - links)
        for name in sorted(files):
            path = Path(parent, name)
            if path.is_file():
                has_files = True
                yield path
            else:
                warn(f"{path} is left out: it is not a regular file")
        if not recursive:
            if folders and has_files:
                warn(f"{count(len(folders), 'folder')} in {folder} left out; to send subfolders, too: --recursive")
            return
