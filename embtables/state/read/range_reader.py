"""`RangeReader`: the one way to read a file of a version, by blocks that are verified before they are used."""

from __future__ import annotations

from collections import OrderedDict

import xxhash

from embtables.errors import StateError
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format import checksums
from embtables.state.format.manifest import Manifest

_BLOCKS_AT_ONCE = 8  # read together; verified while they are in the processor's cache
_KEPT_OF_A_FILE = 8


class KeptBlocks:
    """Blocks of which only a part was wanted, kept because the rest is likely to be wanted next.

    Args:
        limit: how many; those that were used least recently go. Of one file, or of all that are read together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._blocks: OrderedDict[tuple[object, int], memoryview] = OrderedDict()

    def find(self, file: object, block: int) -> memoryview | None:
        """The block, if it is there."""
        found = self._blocks.get((file, block))
        if found is not None:
            self._blocks.move_to_end((file, block))
        return found

    def keep(self, file: object, block: int, content: memoryview) -> None:
        """Takes a verified block."""
        self._blocks[file, block] = content
        if len(self._blocks) > self._limit:
            self._blocks.popitem(last=False)


class RangeReader:
    """The bytes of one file of a version, as they were written.

    Args:
        kept: blocks that are kept for several files; by default up to 8 of this one.

    Attributes:
        path: what the file is called in errors.
        size: its bytes.

    Raises:
        StateError: the version has no such file, it is missing, or not as long as the manifest says.
    """

    def __init__(self, state: StateFolder, version: Manifest, name: str, kept: KeptBlocks | None = None) -> None:
        if name not in version.files:
            raise StateError(f"has no file {name}", folder=state.folder.root, version=version.name)
        state.check_size(version, name)
        file = version.files[name]
        self._folder = state.folder
        self._name = state.file(version, name)
        self._checksums = file.blocks or [file.xxh3] * (file.bytes > 0)
        self._kept = KeptBlocks(_KEPT_OF_A_FILE) if kept is None else kept
        self.path = state.folder.path(self._name)
        self.size = file.bytes

    def read_all(self) -> memoryview:
        """All of the file. Raises as `read_into`."""
        view = memoryview(bytearray(self.size))
        self.read_into(0, view)
        return view

    def read_into(self, start: int, view: memoryview) -> None:
        """Fills a view of bytes with those of the file from `start` on.

        Raises:
            StateError: the file has no such bytes, or a block of them cannot be read or is damaged.
        """
        at, end = start, start + len(view)
        self.check_range(start, end)
        while at < end:
            block, within = divmod(at, checksums.BLOCK)
            whole = (end if end == self.size else end // checksums.BLOCK * checksums.BLOCK) - at
            if within == 0 and whole > 0:
                upto = at + min(whole, _BLOCKS_AT_ONCE * checksums.BLOCK)
                self._fill(block, view[at - start : upto - start])
            else:
                upto = min(end, (block + 1) * checksums.BLOCK)
                view[at - start : upto - start] = self._block(block)[within : within + upto - at]
            at = upto

    def check_range(self, start: int, end: int) -> None:
        """Raises StateError if the file cannot have bytes [start, end)."""
        if not 0 <= start <= end <= self.size:
            raise StateError(f"is damaged: it points to bytes {start}..{end} of its {self.size}", file=self.path)

    def _block(self, block: int) -> memoryview:
        found = self._kept.find(self._name, block)
        if found is None:
            begin = block * checksums.BLOCK
            found = memoryview(bytearray(min(checksums.BLOCK, self.size - begin)))
            self._fill(block, found)
            self._kept.keep(self._name, block, found)
        return found

    def _fill(self, first: int, view: memoryview) -> None:
        """Reads whole blocks from `first` on."""
        try:
            got = self._folder.read_into(self._name, first * checksums.BLOCK, view)
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=self.path) from error
        for number, begin in enumerate(range(0, len(view), checksums.BLOCK), first):
            raw = view[begin : begin + checksums.BLOCK]
            if got < begin + len(raw) or xxhash.xxh3_128_hexdigest(raw) != self._checksums[number]:
                which = f"the checksum of its block {number}" if len(self._checksums) > 1 else "its checksum"
                raise StateError(f"is damaged: {which} is not the one recorded", file=self.path)
