"""The system calls of a folder log, each with its errors named."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from embtables.errors import EventLogError


@contextmanager
def named_errors(**path: object) -> Iterator[None]:
    """What the system refuses becomes an EventLogError that names where."""
    try:
        yield
    except OSError as error:
        raise EventLogError(f"{error.strerror or error} (errno {error.errno})", **path) from error


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A file for the length of a block."""
    handle = open_file(path, flags)
    try:
        yield handle
    finally:
        os.close(handle)


def open_file(path: Path, flags: int) -> int:
    """A file that no child process gets; it is not followed where it is a symbolic link, and not waited for."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)


@contextmanager
def locked(handle: int) -> Iterator[None]:
    """Holds the lock of a file, which the system takes back when the process dies."""
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def write_at(handle: int, parts: Sequence[bytes | memoryview], offset: int) -> None:
    """Writes all bytes of the parts, one after the other."""
    left = [memoryview(part) for part in parts]
    while left:
        done = os.pwritev(handle, left, offset)
        offset += done
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if left:
            left[0] = left[0][done:]


def read_at(handle: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes: fewer only where the file ends."""
    parts = []
    while size and (part := os.pread(handle, size, offset)):
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def sync_folder(path: Path) -> None:
    """What was created, renamed or removed in a folder stays so."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as handle:
        os.fsync(handle)


def create_whole(path: Path, content: bytes) -> None:
    """Makes a small file appear whole, durably. Raises FileExistsError if there is one."""
    temporary = path.with_name(f".{secrets.token_hex(6)}-{path.name}")
    try:
        with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as handle:
            write_at(handle, [content], 0)
            os.fsync(handle)
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
