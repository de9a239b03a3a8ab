"""A file of a version of which only parts are read: whole blocks, each verified before anything of it is used."""

from __future__ import annotations

import xxhash

from embtables.errors import StateError
from embtables.state.folder import local_folder as folders
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format import checksums
from embtables.state.format.manifest import Manifest


class FileBlocks:
    """A file's bytes in memory, of which those are there that were asked for; the others are zeros and take none.

    Raises:
        StateError: the file is missing, or not as long as the manifest says.
    """

    def __init__(self, state: StateFolder, manifest: Manifest, name: str) -> None:
        state.check_size(manifest, name)
        file = manifest.files[name]
        self._folder = state.folder
        self._name = state.file(manifest, name)
        self._checksums = file.blocks or [file.xxh3] * (file.bytes > 0)
        self._there = [False] * len(self._checksums)
        try:
            self.view = folders.empty_memory(max(1, file.bytes), sparse=True)[: file.bytes]
        except OSError as error:
            raise self._unreadable(error) from error

    def need(self, first: int, end: int) -> None:
        """Has bytes [first, end) there, which are those that were written.

        Raises:
            StateError: the file has no such bytes, or a block of them cannot be read or is damaged.
        """
        if not 0 <= first <= end <= len(self.view):
            raise StateError(
                f"is damaged: it points to bytes {first}..{end} of its {len(self.view)}",
                file=self._folder.path(self._name),
            )
        block, last = first // checksums.BLOCK, -(-end // checksums.BLOCK)
        while block < last:
            if self._there[block]:
                block += 1
                continue
            missing = next((b for b in range(block, last) if self._there[b]), last)
            self._read(block, missing)
            block = missing

    def _read(self, first: int, end: int) -> None:
        """Blocks first..end-1, at once."""
        begin = first * checksums.BLOCK
        part = self.view[begin : min(end * checksums.BLOCK, len(self.view))]
        try:
            got = self._folder.read_into(self._name, begin, part)
        except OSError as error:
            raise self._unreadable(error) from error
        for block in range(first, end):
            raw = part[(block - first) * checksums.BLOCK : (block - first + 1) * checksums.BLOCK]
            if got < len(part) or xxhash.xxh3_128_hexdigest(raw) != self._checksums[block]:
                raise StateError(
                    f"is damaged: the checksum of its block {block} is not the one recorded",
                    file=self._folder.path(self._name),
                )
            self._there[block] = True

    def _unreadable(self, error: OSError) -> StateError:
        return StateError(f"cannot be read: {error.strerror}", file=self._folder.path(self._name))
