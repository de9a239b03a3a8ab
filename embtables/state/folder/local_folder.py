"""`LocalFolder`: a folder on a local disk, written so that a crash or a loss of power leaves each file whole or absent.

Every part of a name is checked before the disk is touched. What is read is opened without waiting and has to be a
regular file: a pipe that nobody writes to would hold the reader for ever.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from embtables.errors import StateError
from embtables.state.folder.protocol import TEMPORARY
from embtables.state.format.checksums import Buffer, Digests, Written

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,254}")
_WRITTEN_BACK = 1 << 24  # bytes
_SYNC_FILE_RANGE = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


class LocalFolder:
    """The operations of `Folder` below `root`, which is made at the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def scratch(self) -> Path:
        """The folder itself: there is room for what is written there."""
        return self.root

    def path(self, name: str) -> Path:
        """The path of a name. Raises StateError for a name that could be outside the folder."""
        parts = name.split("/")
        if any(_PART.fullmatch(part) is None for part in parts):
            raise StateError(f"{name!r} is not the name of a file below this folder", folder=self.root)
        return self.root.joinpath(*parts)

    def make(self, name: str) -> None:
        """Makes a folder, and those above it, durably."""
        path = self.path(name)
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync(folder.parent)

    def write(self, name: str, chunks: Iterable[Buffer]) -> Written:
        """Writes a new file and makes its bytes durable; its name is so after `sync` of its folder."""
        digests, started = Digests(), 0
        with self.path(name).open("xb", buffering=0) as file:
            for chunk in chunks:
                view = memoryview(chunk).cast("B")
                digests.update(view)
                _write_all(file.fileno(), view)
                if digests.size - started >= _WRITTEN_BACK:
                    _begin_writing_back(file.fileno(), started, digests.size - started)
                    started = digests.size
            os.fsync(file.fileno())
        return digests.written()

    def create(self, name: str, content: bytes) -> None:
        """Makes a file appear whole, durably. Raises FileExistsError if there is one of that name."""
        temporary = self._write_temporary(name, content)
        try:
            os.link(temporary, self.path(name))
        finally:
            temporary.unlink(missing_ok=True)
        sync(temporary.parent)

    def replace(self, name: str, content: bytes) -> None:
        """Makes a file appear whole, durably, in the place of one of that name."""
        temporary = self._write_temporary(name, content)
        try:
            temporary.rename(self.path(name))
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync(temporary.parent)

    def _write_temporary(self, name: str, content: bytes) -> Path:
        beside, _, last = name.rpartition("/")
        temporary = f"{TEMPORARY}{secrets.token_hex(6)}-{last}"
        path = self.path(f"{beside}/{temporary}" if beside else temporary)
        try:
            self.write(f"{beside}/{temporary}" if beside else temporary, [content])
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def sync(self, name: str) -> None:
        """Makes the names in a folder durable."""
        sync(self.path(name))

    def read(self, name: str, limit: int) -> bytes:
        """See Folder."""
        with open_regular(self.path(name)) as handle:
            size = os.fstat(handle).st_size
            if size > limit:
                raise StateError(f"has {size:,} bytes, more than the {limit:,} it may have", file=self.path(name))
            view = memoryview(bytearray(size))
            return bytes(view[: _fill(handle, 0, view)])

    def read_into(self, name: str, start: int, view: memoryview) -> int:
        """See Folder."""
        with open_regular(self.path(name)) as handle:
            return _fill(handle, start, view)

    def size(self, name: str) -> int:
        """See Folder."""
        path = self.path(name)
        found = path.stat()
        _check_regular(path, found.st_mode)
        return found.st_size

    def exists(self, name: str) -> bool:
        """See Folder."""
        return self.path(name).exists()

    def names(self, name: str) -> list[str]:
        """Names within a folder, sorted; none if there is no such folder. Passes over names that no write makes."""
        try:
            return sorted(entry.name for entry in self.path(name).iterdir() if _PART.fullmatch(entry.name))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        self.path(name).unlink(missing_ok=True)

    def remove_tree(self, name: str) -> None:
        """Removes a folder of files, if it is there."""
        path = self.path(name)
        for entry in self.names(name):
            (path / entry).unlink(missing_ok=True)
        if path.exists():
            path.rmdir()

    def lock(self, name: str) -> LocalLock:
        """See Folder."""
        return LocalLock(self.path(name))


class LocalLock:
    """A lock that the system takes back when the process dies."""

    def __init__(self, path: Path) -> None:
        # Not to wait where it is a pipe.
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        try:
            _check_regular(path, os.fstat(self._handle).st_mode)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._handle)
            raise

    def close(self) -> None:
        """See Lock."""
        if self._handle is not None:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor too
            finally:
                os.close(self._handle)
                self._handle = None


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """A regular file, to be read. Raises StateError if it is something else, OSError if there is none."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check_regular(path, os.fstat(handle).st_mode)
        yield handle
    finally:
        os.close(handle)


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise StateError(f"is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a regular file", file=path)


def _fill(handle: int, start: int, view: memoryview) -> int:
    done = 0
    while done < len(view) and (got := os.preadv(handle, [view[done : done + (1 << 30)]], start + done)):
        done += got
    return done


def sync(path: Path) -> None:
    """fsync of a folder: what was created, linked, renamed or removed in it stays so."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _begin_writing_back(handle: int, start: int, size: int) -> None:
    """Asks the disk to begin; fsync, which follows and reports what fails, then has little left to wait for."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(handle, ctypes.c_int64(start), ctypes.c_int64(size), 2)  # SYNC_FILE_RANGE_WRITE


def _write_all(handle: int, view: memoryview) -> None:
    while len(view):
        view = view[os.write(handle, view[: 1 << 30]) :]
