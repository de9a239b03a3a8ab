"""A folder on a local disk, written so that a crash or a loss of power leaves each file whole or absent.

The few operations are those that an object store has too: write a new object, create one only if it does not exist,
list, read, remove. Names are relative, with `/` between their parts; every part is checked before the disk is touched.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from embtables.errors import StateError
from embtables.state.format import checksums
from embtables.state.format.checksums import Buffer, Digests, Written

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,254}")
_WRITTEN_BACK = 1 << 24  # bytes
_SYNC_FILE_RANGE = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux
_MAP_NORESERVE = 0x4000  # Linux; the mmap module of Python 3.11 has no name for it
TEMPORARY = "tmp-"


class Folder:
    """Operations below `root`, which is made at the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Where a name lies. Raises StateError for a name that could lie elsewhere."""
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
        """Makes a file appear whole, durably. Raises FileExistsError where there is one of that name."""
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
        """A whole file of at most `limit` bytes. Raises StateError where it is longer, OSError where there is none."""
        path = self.path(name)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise StateError(f"has {size:,} bytes, more than the {limit:,} it may have", file=path)
            return file.read(limit + 1)

    def read_buffer(self, name: str, size: int) -> memoryview:
        """The first `size` bytes of a file, in memory of their own; fewer where it is shorter. Raises OSError."""
        if size < checksums.BLOCK:
            with self.path(name).open("rb") as file:
                return memoryview(file.read(size))
        view = empty_memory(size)
        return view[: self.read_into(name, 0, view)]

    def read_into(self, name: str, start: int, view: memoryview) -> int:
        """Fills a view with a file's bytes from `start` on; how many there were. Raises OSError."""
        done = 0
        with self.path(name).open("rb", buffering=0) as file:
            file.seek(start)
            while done < len(view) and (got := file.readinto(view[done:])):
                done += got
        return done

    def size(self, name: str) -> int:
        """Bytes of a file. Raises OSError where there is none."""
        return self.path(name).stat().st_size

    def digest(self, name: str) -> Written:
        """A file's length and checksums, read in pieces. Raises OSError."""
        digests = Digests()
        with self.path(name).open("rb") as file:
            while chunk := file.read(checksums.BLOCK):
                digests.update(chunk)
        return digests.written()

    def names(self, name: str) -> list[str]:
        """Names within a folder, sorted; none where there is no such folder. Passes over names that no write makes."""
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


def empty_memory(size: int, *, sparse: bool = False) -> memoryview:
    """Zeros, of which only what is written to takes memory. Raises OSError where there is no room.

    Args:
        sparse: most of it will not be written to: it may be larger than the machine's memory.
    """
    # Private, for shared memory gets no huge pages; with small ones half of the time of reading would go to faults.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (_MAP_NORESERVE if sparse else 0)
    memory = mmap.mmap(-1, size, flags=flags)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def sync(path: Path) -> None:
    """fsync of a folder: what was created, linked, renamed or removed in it stays so."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _begin_writing_back(handle: int, start: int, size: int) -> None:
    """Tells the disk to begin; fsync, which follows and reports what fails, then has little left to wait for."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(handle, ctypes.c_int64(start), ctypes.c_int64(size), 2)  # SYNC_FILE_RANGE_WRITE


def _write_all(handle: int, view: memoryview) -> None:
    while len(view):
        view = view[os.write(handle, view[: 1 << 30]) :]
