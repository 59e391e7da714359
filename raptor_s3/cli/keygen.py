"""`raptor keygen`: a WireGuard key pair, the device's identity (docs/cli.md).

The private key goes into a file of its own, as base64 on one line, like `wg genkey` writes it; the public key goes to stdout, for
the operator who lets the device in.

Invariant: an existing file is never overwritten, and a private key is never in a file that anyone but its owner can read.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from raptor_s3.cli.options import EXIT_OK, JSON, Option, UsageError, Verb

if TYPE_CHECKING:
    import argparse

    from raptor_s3.cli.output import Output

DEFAULT_KEY_FILE = "~/.aws/raptor.key"


def create_key_file(path: Path) -> str:
    """Write a new private key to `path` (0600) and return its public key as base64.

    The folder is made with 0700 if it does not exist. Raises FileExistsError when `path` exists, OSError when writing fails.
    """
    from raptor_s3.wireguard.keys import generate_private_key, key_to_base64, public_key

    private = generate_private_key(os.urandom)
    if not path.parent.is_dir():
        os.makedirs(path.parent, mode=0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key_to_base64(private).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return key_to_base64(public_key(private))


def public_key_of(path: Path) -> str:
    """The public key, as base64, of the private key in `path`. Raises ValueError when the file is unusable or not private."""
    from raptor_s3.routing.parsers import read_key_file
    from raptor_s3.wireguard.keys import key_to_base64, public_key

    return key_to_base64(public_key(read_key_file(path, if_missing=f"make one: raptor keygen {path}")))


def run(args: argparse.Namespace, output: Output) -> int:
    path = Path(args.file).expanduser()
    if args.public:
        try:
            public = public_key_of(path)
        except ValueError as error:
            raise UsageError(str(error)) from None
    else:
        try:
            public = create_key_file(path)
        except FileExistsError as error:
            if error.filename != os.fspath(path):
                raise UsageError(f"can't write {path}: {error.filename} is in the way") from None
            raise UsageError(
                f"{path} exists and stays as it is. Its public key: raptor keygen {path} --public. "
                "A new key: name another file, or move this one away first"
            ) from None
        except OSError as error:
            raise UsageError(f"can't write {path}: {error.strerror}") from None
        output.note(f"Private key: {path} (keep it; only you can read it). Public key (share this one):")
    output.result({"file": str(path), "public_key": public}, public)
    return EXIT_OK


VERB = Verb(
    name="keygen",
    summary="make this device's key pair",
    opening=(
        "Makes a WireGuard key pair, for a device or for a gateway. The private key goes into FILE, readable by you alone, and "
        "stays there; the public key is printed: a device's goes into the gateway's peers file, a gateway's into the devices' "
        "server_key. An existing file is never overwritten."
    ),
    options=(
        Option(
            "file", f"Where the private key goes (default: {DEFAULT_KEY_FILE}).", "FILE", DEFAULT_KEY_FILE, is_positional=True
        ),
        Option("public", "Print the public key of the key that FILE holds already; make none.", is_switch=True, default=False),
        JSON,
    ),
    run=run,
    examples=(
        ("keygen", "a key in the usual place"),
        ("keygen /etc/raptor/camera7.key", "a key elsewhere"),
        ("keygen --public", "the public key of an existing file once more"),
    ),
)
