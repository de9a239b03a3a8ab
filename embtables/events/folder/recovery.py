"""What a segment holds: whole frames from a place on, and what is to be done with what follows them.

A frame that was not written whole is the end of a writer that was killed, or of the machine: nobody was told that it
is there, and it is cut off. A frame that was acknowledged and is not whole is damage: it is reported and left.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from embtables.errors import EventLogError
from embtables.events.folder.disk import opened, read_at, sync_folder
from embtables.events.folder.frame import FRAME_HEADER, SEGMENT_HEADER, unpack_frame, unpack_segment
from embtables.events.folder.head import Head, boot_id
from embtables.events.folder.segments import segment_path, segments


@dataclass(frozen=True, slots=True)
class Scanned:
    """Whole frames that follow each other.

    Attributes:
        end: of the last of them, in bytes of the file.
        last_offset: of the last of them; None if there is none.
    """

    end: int
    next_entry: int
    last_offset: int | None


def scan(handle: int, start: int, entry: int) -> Scanned:
    """Reads frames from a place on, as long as they are whole and have the numbers that follow `entry - 1`."""
    at, last = start, None
    while (header := unpack_frame(read_at(handle, FRAME_HEADER, at))) is not None and header.entry == entry:
        if not header.matches(read_at(handle, header.length, at + FRAME_HEADER)):
            break
        last, at, entry = at, at + header.size, entry + 1
    return Scanned(at, entry, last)


def recovered(folder: Path, partition: int, head: Head | None) -> Head:
    """The head of a partition that was last written in another boot of the machine, or whose head is gone.

    What was not written whole is cut off and the rest made durable. Called under the lock of the partition.

    Raises:
        EventLogError: entries that were on the disk are damaged; names file and offset.
    """
    if head is None:
        found = segments(folder)
        head = Head(found[-1] if found else 0, 0, SEGMENT_HEADER if found else 0, 0, 0, 0, boot_id())
        safe = None  # everything that is there may have been acknowledged
    else:
        safe = head.synced
    if head.end == 0:
        return Head(head.segment, head.next_entry, 0, 0, head.last_segment, head.last_offset, boot_id())
    path = segment_path(folder, head.segment)
    with opened(path, os.O_RDWR) as handle:
        unpack_segment(read_at(handle, SEGMENT_HEADER, 0), partition, head.segment, file=path)
        found_frames = scan(handle, SEGMENT_HEADER, head.segment)
        size = os.fstat(handle).st_size
        if found_frames.end < (size if safe is None else safe):
            raise damaged(path, found_frames.end)
        os.ftruncate(handle, found_frames.end)
        os.fsync(handle)
    sync_folder(folder)
    last = (head.last_segment, head.last_offset)
    if found_frames.last_offset is not None:
        last = (head.segment, found_frames.last_offset)
    return Head(head.segment, found_frames.next_entry, found_frames.end, found_frames.end, *last, boot_id())


def damaged(path: Path, offset: int) -> EventLogError:
    """Bytes of an entry that was acknowledged are not those that were written."""
    return EventLogError(
        "an entry is damaged; restore the file from a copy, or move it away to go on after the events that it holds",
        file=path,
        offset=offset,
    )
