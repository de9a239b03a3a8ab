"""The file `head` of a partition: how far its entries are acknowledged, so that readers see no others.

It is 80 bytes, less than a sector of any disk, and is written in place: after a loss of power it is an older one or
the newest. It names the boot of the machine in which it was written: in the same boot, everything that was written is
in the system's memory at least; in another, what lies beyond `synced` has to be looked at (recovery.py).
"""

from __future__ import annotations

import os
import struct
import threading
import time
import uuid
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import xxhash

from embtables.events.folder.disk import locked, open_file, read_at, write_at

_HEAD = struct.Struct("<8s16sQQQQQQ8s")
_MAGIC = b"EMBEVHED"
_TRIES = 20  # a reader may see a half of a write, for microseconds


@dataclass(frozen=True, slots=True)
class Head:
    """Where a partition ends.

    Attributes:
        segment: the number of the newest segment; the file is there where `end` is above 0.
        next_entry: the number of the entry that comes next.
        end: of the entries in the newest segment that are acknowledged, in bytes of the file.
        synced: what of these bytes is on the disk.
        last_segment: of the newest entry, where `next_entry` is above 0.
        last_offset: of its frame in that segment.
        boot: (16,) bytes that name the boot of the machine.
    """

    segment: int
    next_entry: int
    end: int
    synced: int
    last_segment: int
    last_offset: int
    boot: bytes

    def pack(self) -> bytes:
        """(80,) bytes."""
        places = (self.segment, self.next_entry, self.end, self.synced, self.last_segment, self.last_offset)
        head = _HEAD.pack(_MAGIC, self.boot, *places, b"")[:-8]
        return head + xxhash.xxh3_64_digest(head)

    @classmethod
    def unpack(cls, data: bytes) -> Head | None:
        """None where the bytes are not those of a head."""
        if len(data) != _HEAD.size or xxhash.xxh3_64_digest(data[:-8]) != data[-8:]:
            return None
        magic, boot, segment, next_entry, end, synced, last_segment, last_offset, _ = _HEAD.unpack(data)
        if magic != _MAGIC:
            return None
        return cls(segment, next_entry, end, synced, last_segment, last_offset, boot)


class HeadFile:
    """The head of one partition, read and written by any thread of any process.

    Args:
        path: of the file, which exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = open_file(path, os.O_RDWR)
        self._turn = threading.Lock()

    def read(self) -> Head | None:
        """The newest head; None where the file is damaged."""
        for _ in range(_TRIES):
            head = Head.unpack(read_at(self._handle, _HEAD.size + 1, 0))
            if head is not None:
                return head
            time.sleep(0.001)
        return None

    def advance(self, new: Head) -> None:
        """Makes it known that entries are acknowledged or synced; never goes back. Under the lock of the head."""
        with self._turn, locked(self._handle):
            now = self.read()
            if now is not None and now.boot == new.boot:
                synced = max(now.synced, new.synced) if now.segment == new.segment else now.synced
                if (now.next_entry, now.segment) > (new.next_entry, new.segment):
                    new = replace(now, synced=synced)
                elif now.segment == new.segment:
                    new = replace(new, synced=synced)
            if new != now:
                write_at(self._handle, [new.pack()], 0)

    def replace(self, new: Head) -> None:
        """Writes it, whatever there is."""
        with self._turn, locked(self._handle):
            write_at(self._handle, [new.pack()], 0)

    def sync(self) -> None:
        """Makes it durable."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Frees the file."""
        os.close(self._handle)


@cache
def boot_id() -> bytes:
    """(16,) bytes that name this boot of the machine."""
    return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
