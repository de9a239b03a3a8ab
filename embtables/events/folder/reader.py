"""Reading one partition: entries after a position, one entry, the newest. No file stays open between calls."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from embtables.errors import EventLogError
from embtables.events.encoding import decode
from embtables.events.folder.disk import named_errors, opened, read_at
from embtables.events.folder.frame import FRAME_HEADER, SEGMENT_HEADER, FrameHeader, unpack_frame, unpack_segment
from embtables.events.folder.head import Head
from embtables.events.folder.position import Position
from embtables.events.folder.recovery import damaged
from embtables.events.folder.segments import segment_path, segments
from embtables.events.lost import events_lost
from embtables.events.protocol import Entry

Answer = TypeVar("Answer")

_TRIES = 100
_CHUNK = 1 << 18  # bytes that are read at once; a larger frame is read whole
_MAX_BYTES = 64 << 20  # of one answer, unless its first entry is larger


class PartitionReader:
    """Reads the segments in one folder.

    Args:
        newest: gives the head, which says how far entries may be read. It is asked at each call, and again where
            retention has removed what the call was about to read.
    """

    def __init__(self, folder: Path, partition: int, newest: Callable[[], Head]) -> None:
        self._folder, self._partition, self._newest = folder, partition, newest

    def read(self, after: str | None, max_entries: int) -> list[Entry]:
        """See EventLog. What cannot be read is reported once everything before it was given."""
        return self._beside_retention(lambda head: self._read(head, after, max_entries))

    def fetch(self, position: str) -> pa.RecordBatch:
        """See EventLog."""
        at = Position.parse(position, partition=self._partition)
        return self._beside_retention(lambda head: self._fetch(head, at))

    def last(self) -> str | None:
        """See EventLog."""
        return self._beside_retention(self._last)

    def _beside_retention(self, call: Callable[[Head], Answer]) -> Answer:
        """Calls again where a segment went between two looks at the folder."""
        with named_errors(folder=self._folder):
            for _ in range(_TRIES):
                with contextlib.suppress(FileNotFoundError):
                    return call(self._newest())
        raise EventLogError("segments vanish faster than they can be read", folder=self._folder)

    def _read(self, head: Head, after: str | None, max_entries: int) -> list[Entry]:
        found: list[Entry] = []
        left = _MAX_BYTES
        try:
            for position, payload in self._frames(head, after):
                path = segment_path(self._folder, position.segment)
                events = decode(payload, file=path, offset=position.offset)
                found.append(Entry(self._partition, str(position), events))
                left -= len(payload)
                if len(found) >= max_entries or left <= 0:
                    break
        except (EventLogError, FileNotFoundError):
            if not found:
                raise
        return found

    def _fetch(self, head: Head, at: Position) -> pa.RecordBatch:
        path = segment_path(self._folder, at.segment)
        try:
            with self._segment(head, at) as handle:
                header = self._header_of(handle, head, at)
                payload = read_at(handle, header.length, at.offset + FRAME_HEADER)
        except FileNotFoundError:
            self._segment_from(head, at.entry)
            raise
        if not header.matches(payload):
            raise damaged(path, at.offset)
        return decode(payload, file=path, offset=at.offset)

    def _last(self, head: Head) -> str | None:
        if head.next_entry == 0:
            return None
        path = segment_path(self._folder, head.last_segment)
        if head.last_segment != head.segment and not path.exists():
            return None  # the newest segment was begun, but its first entry did not fit on the disk
        with opened(path, os.O_RDONLY) as handle:
            header = unpack_frame(read_at(handle, FRAME_HEADER, head.last_offset))
        if header is None:
            raise damaged(path, head.last_offset)
        return str(Position(head.next_entry - 1, head.last_segment, head.last_offset, header.digest))

    def _frames(self, head: Head, after: str | None) -> Iterator[tuple[Position, bytes]]:
        """Every frame after a position, up to the head."""
        if after is None:
            kept = self._kept(head)
            if not kept:
                return
            entry = segment = kept[0]
            offset = SEGMENT_HEADER
        else:
            at = Position.parse(after, partition=self._partition)
            entry = at.entry + 1
            try:
                with self._segment(head, at) as handle:
                    segment, offset = at.segment, at.offset + self._header_of(handle, head, at).size
            except FileNotFoundError:
                segment, offset = self._segment_from(head, entry), SEGMENT_HEADER
        while True:
            path = segment_path(self._folder, segment)
            with opened(path, os.O_RDONLY) as handle:
                for position, payload in self._of_segment(handle, head, Position(entry, segment, offset, "")):
                    yield position, payload
                    entry = position.entry + 1
            if segment >= head.segment:
                return
            segment, offset = self._segment_from(head, entry), SEGMENT_HEADER

    def _of_segment(self, handle: int, head: Head, at: Position) -> Iterator[tuple[Position, bytes]]:
        """The frames of one segment from a place on, each compared with its checksum."""
        path, entry, offset = segment_path(self._folder, at.segment), at.entry, at.offset
        if offset == SEGMENT_HEADER:
            unpack_segment(read_at(handle, SEGMENT_HEADER, 0), self._partition, at.segment, file=path)
        limit = head.end if at.segment == head.segment else os.fstat(handle).st_size
        buffer, start = b"", offset
        while offset < limit:
            if start + len(buffer) < offset + FRAME_HEADER:
                buffer, start = read_at(handle, min(_CHUNK, limit - offset), offset), offset
            header = unpack_frame(buffer[offset - start : offset - start + FRAME_HEADER])
            if header is None or header.entry != entry or offset + header.size > limit:
                raise damaged(path, offset)
            if start + len(buffer) < offset + header.size:
                buffer, start = read_at(handle, min(max(_CHUNK, header.size), limit - offset), offset), offset
            payload = buffer[offset - start + FRAME_HEADER : offset - start + header.size]
            if not header.matches(payload):
                raise damaged(path, offset)
            yield Position(entry, at.segment, offset, header.digest), payload
            offset, entry = offset + header.size, entry + 1

    @contextmanager
    def _segment(self, head: Head, at: Position) -> Iterator[int]:
        """The file that a position names. Raises FileNotFoundError where it is no longer kept."""
        if at.segment > head.segment or at.entry >= head.next_entry or at.entry < at.segment:
            raise self._foreign(at, head)
        with opened(segment_path(self._folder, at.segment), os.O_RDONLY) as handle:
            yield handle

    def _header_of(self, handle: int, head: Head, at: Position) -> FrameHeader:
        """The header of the frame that a position names. Raises EventLogError if another lies there."""
        limit = head.end if at.segment == head.segment else os.fstat(handle).st_size
        header = None
        if SEGMENT_HEADER <= at.offset <= limit - FRAME_HEADER:
            header = unpack_frame(read_at(handle, FRAME_HEADER, at.offset))
        if header is None or (header.entry, header.digest) != (at.entry, at.digest) or at.offset + header.size > limit:
            raise self._foreign(at, head)
        return header

    def _kept(self, head: Head) -> list[int]:
        return [first for first in segments(self._folder) if first <= head.segment] if head.end else []

    def _segment_from(self, head: Head, entry: int) -> int:
        """The segment that begins with an entry.

        Raises:
            EventsLostError: the entry is no longer kept.
            FileNotFoundError: nor is any that this head knows.
        """
        kept = [first for first in self._kept(head) if first >= entry]
        if not kept:
            raise FileNotFoundError(segment_path(self._folder, entry))
        if kept[0] > entry:
            raise events_lost(entry, kept[0], "keep_seconds, keep_bytes", folder=self._folder)
        return kept[0]

    def _foreign(self, at: Position, head: Head) -> EventLogError:
        return EventLogError(
            f"position {at} is of no entry of this log, which ends with entry {head.next_entry - 1:,}: it is of "
            "another log, or a loss of power took entries that were not synced (fsync=interval or never)",
            folder=self._folder,
        )
