"""Checksums of files: XXH3-128 of the whole, and of each block, so that a part can be verified alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import xxhash

BLOCK = 1 << 20  # bytes; part of the format: files longer than one have a checksum for each
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was written: its length and the hexadecimal XXH3-128 of its bytes.

    `blocks`: of a file longer than one block, the XXH3-128 of each; the last block may be shorter than the others.
    """

    bytes: int
    xxh3: str
    blocks: tuple[str, ...] = ()


def checksum(chunks: Iterable[Buffer]) -> str:
    """The XXH3-128 of a file's pieces, hexadecimal."""
    found = xxhash.xxh3_128()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


class Digests:
    """The checksums of bytes that come in pieces."""

    def __init__(self) -> None:
        self._whole, self._block = xxhash.xxh3_128(), xxhash.xxh3_128()
        self._filled = self._size = 0
        self._blocks: list[str] = []

    def update(self, view: Buffer) -> None:
        """The next bytes. A block at a time, so that the second checksum finds them in the processor's cache."""
        view = memoryview(view)
        self._size += len(view)
        while view:
            piece = view[: BLOCK - self._filled]
            self._whole.update(piece)
            self._block.update(piece)
            self._filled += len(piece)
            if self._filled == BLOCK:
                self._end_block()
            view = view[len(piece) :]

    def _end_block(self) -> None:
        self._blocks.append(self._block.hexdigest())
        self._block.reset()
        self._filled = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    def written(self) -> Written:
        """The length and checksums of all bytes. Nothing can be added afterwards."""
        if self._filled:
            self._end_block()
        blocks = tuple(self._blocks) if self._size > BLOCK else ()
        return Written(self._size, self._whole.hexdigest(), blocks)
