"""Secrets in files that only their owner can read."""

import errno
import os
import secrets
import stat
from pathlib import Path

from kohakuriver.model.errors import NotAllowed

SECRET_BYTES = 32


class UnsafeFile(NotAllowed):
    """A secret's file could be read by somebody else, or is not a secret."""


def load_secret(path: Path) -> bytes:
    """The secret in `path` (hex text); raises UnsafeFile when others could read it, FileNotFoundError when absent."""
    try:
        secret = bytes.fromhex(read_private(path).strip().decode("ascii"))
    except ValueError:
        raise UnsafeFile(f"{path} does not hold a secret (hex digits)") from None
    if len(secret) < SECRET_BYTES:
        raise UnsafeFile(f"{path} holds a secret of {len(secret)} bytes; at least {SECRET_BYTES} are needed")
    return secret


def read_private(path: Path, most_bytes: int = 1024) -> bytes:
    """A file that only its owner can read; raises UnsafeFile when others could, FileNotFoundError when absent."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not hold us up
    except OSError as refused:
        if refused.errno == errno.ELOOP:
            raise UnsafeFile(f"{path} is a link: put the file itself there") from None
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o077:
            raise UnsafeFile(f"{path} must be a file of yours with mode 0600 (chmod 600 {path})")
        return os.read(file, most_bytes)
    finally:
        os.close(file)


def write_private(path: Path, content: bytes) -> None:
    """Put a file there that only its owner can read, in the place of the one before; nobody sees half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # else a machine that loses power may have the one before
    finally:
        os.close(folder)


def make_secret(path: Path) -> bytes:
    """The secret in `path`, drawn and written (mode 0600) when there is none; two makers agree on one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(secrets.token_hex(SECRET_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)  # atomic, and it never replaces one that is there
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return load_secret(path)
