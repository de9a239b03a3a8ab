"""`Folder`: the few operations that versions need of the place where they are stored. A local folder is one such place.

They are those that an object store has too: write a new object, create one only if it does not exist, list, read a
range, remove. Names are relative, with `/` between their parts. Whatever opens, renames or locks files is behind this.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Protocol

from embtables.state.format.checksums import Buffer, Written

TEMPORARY = "tmp-"
"""How the names of temporary files begin; what a crash leaves of them is garbage."""


class Lock(Protocol):
    """An exclusive lock, held until it is closed or its process ends."""

    def close(self) -> None:
        """Gives it back; no effect if that was done already."""


class Folder(Protocol):
    """A place with files by name."""

    @property
    def root(self) -> PurePath:
        """What the place is called in errors. Do not open it: other kinds of folders give an address, not a path."""

    @property
    def scratch(self) -> Path | None:
        """A local folder near it for temporary files without a name; None: that of the system."""

    def path(self, name: str) -> PurePath:
        """What a file is called in errors. Raises StateError for a name that could be outside the folder."""

    def make(self, name: str) -> None:
        """Makes a folder, and those above it, durably. Raises OSError."""

    def write(self, name: str, chunks: Iterable[Buffer]) -> Written:
        """Writes a new file and makes its bytes durable; its name is so after `sync` of its folder. Raises OSError."""

    def create(self, name: str, content: bytes) -> None:
        """Makes a file appear whole, durably. Raises FileExistsError if there is one of that name; OSError."""

    def replace(self, name: str, content: bytes) -> None:
        """Makes a file appear whole, durably, in the place of one of that name. Raises OSError."""

    def sync(self, name: str) -> None:
        """Makes the names in a folder durable. Raises OSError."""

    def read(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes.

        Raises:
            StateError: it is longer, or no file but a folder, a pipe or a device.
            OSError: there is none, or it cannot be read.
        """

    def read_into(self, name: str, start: int, view: memoryview) -> int:
        """Fills a view with a file's bytes from `start` on; how many there were. Raises as `read`."""

    def size(self, name: str) -> int:
        """Bytes of a file. Raises as `read`."""

    def exists(self, name: str) -> bool:
        """Whether there is a file or a folder of that name."""

    def names(self, name: str) -> list[str]:
        """Names within a folder, sorted; none if there is no such folder. Passes over names that no write makes.

        Raises OSError.
        """

    def remove(self, name: str) -> None:
        """Removes a file, if it is there. Raises OSError."""

    def remove_tree(self, name: str) -> None:
        """Removes a folder of files, if it is there. Raises OSError."""

    def lock(self, name: str) -> Lock:
        """Takes the lock of that name, which the system takes back when the process ends.

        Raises:
            BlockingIOError: another process holds it.
            StateError: it is not a file.
            OSError: it cannot be made.
        """
