"""`MemoryFolder`: a folder whose files are in memory, for versions that nobody but this process reads."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable
from pathlib import Path, PurePath

from embtables.errors import StateError
from embtables.state.format.checksums import Buffer, Digests, Written


class MemoryFolder:
    """The operations of `Folder`. What is written takes as many bytes of memory as it would take of a disk."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._folders: set[str] = set()
        self._locked: set[str] = set()
        self._guard = threading.Lock()

    @property
    def root(self) -> PurePath:
        """See Folder."""
        return PurePath("<memory>")

    @property
    def scratch(self) -> Path | None:
        """See Folder: that of the system."""
        return None

    def path(self, name: str) -> PurePath:
        """See Folder."""
        return self.root / name

    def make(self, name: str) -> None:
        """See Folder."""
        self._folders.add(name)

    def write(self, name: str, chunks: Iterable[Buffer]) -> Written:
        """See Folder."""
        digests, content = Digests(), bytearray()
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            digests.update(view)
            content += view
        self.create(name, bytes(content))
        return digests.written()

    def create(self, name: str, content: bytes) -> None:
        """See Folder."""
        with self._guard:
            if name in self._files:
                raise FileExistsError(errno.EEXIST, "File exists", name)
            self._files[name] = content

    def replace(self, name: str, content: bytes) -> None:
        """See Folder."""
        self._files[name] = content

    def sync(self, name: str) -> None:
        """See Folder: there is nothing that a loss of power would leave."""

    def read(self, name: str, limit: int) -> bytes:
        """See Folder."""
        content = self._content(name)
        if len(content) > limit:
            raise StateError(f"has {len(content):,} bytes, more than the {limit:,} it may have", file=self.path(name))
        return content

    def read_into(self, name: str, start: int, view: memoryview) -> int:
        """See Folder."""
        found = memoryview(self._content(name))[start : start + len(view)]
        view[: len(found)] = found
        return len(found)

    def size(self, name: str) -> int:
        """See Folder."""
        return len(self._content(name))

    def _content(self, name: str) -> bytes:
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, "No such file", name)
        return self._files[name]

    def exists(self, name: str) -> bool:
        """See Folder."""
        return name in self._files or name in self._folders or bool(self.names(name))

    def names(self, name: str) -> list[str]:
        """See Folder."""
        below = f"{name}/"
        found = [each.removeprefix(below) for each in (*self._files, *self._folders) if each.startswith(below)]
        return sorted({each.split("/")[0] for each in found})

    def remove(self, name: str) -> None:
        """See Folder."""
        self._files.pop(name, None)

    def remove_tree(self, name: str) -> None:
        """See Folder."""
        for each in [each for each in self._files if each.startswith(f"{name}/")]:
            del self._files[each]
        self._folders.discard(name)

    def lock(self, name: str) -> MemoryLock:
        """See Folder."""
        with self._guard:
            if name in self._locked:
                raise BlockingIOError(errno.EAGAIN, "is locked", name)
            self._locked.add(name)
        return MemoryLock(self._locked, name)


class MemoryLock:
    """A lock within this process."""

    def __init__(self, held: set[str], name: str) -> None:
        self._held, self._name = held, name

    def close(self) -> None:
        """See Lock."""
        self._held.discard(self._name)
