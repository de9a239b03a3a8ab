"""`PartitionWriter`: appends to one partition, beside other threads and processes that do the same.

    append      under the lock of the partition: what others appended since is taken over, a torn end is cut off, the
                frame is written
    then        one fsync for all frames that this process has written by then; threads that wait find theirs done
    then        the head is advanced, and readers see the entry

The lock is held for the write only, so that an fsync of one process covers what others wrote meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

from embtables.errors import EventLogError
from embtables.events.folder.disk import create_whole, locked, named_errors, open_file, read_at, sync_folder, write_at
from embtables.events.folder.frame import (
    FRAME_HEADER,
    SEGMENT_HEADER,
    frame_header,
    pack_frame,
    pack_segment,
    unpack_segment,
)
from embtables.events.folder.head import Head, HeadFile, boot_id
from embtables.events.folder.position import Position
from embtables.events.folder.recovery import recovered, scan
from embtables.events.folder.retention import remove_old
from embtables.events.folder.segments import segment_path
from embtables.events.options import FolderOptions

_ROLLS_PER_AGE = 8  # a log that keeps a week begins a segment every 21 hours, so that whole segments become old
_COPIED = 1 << 20  # bytes


class PartitionWriter:
    """Appends entries to the segments in one folder, which is made if need be."""

    def __init__(self, folder: Path, partition: int, options: FolderOptions) -> None:
        self._folder, self._partition, self._options = folder, partition, options
        self._turn, self._sync_turn = threading.Lock(), threading.Lock()
        self._segment: int | None = None  # descriptor of the newest segment's file
        self._created = 0.0
        self._now = Head(0, 0, 0, 0, 0, 0, boot_id())  # what is written, acknowledged or not
        self._durable = 0  # entries below are durable
        with named_errors(folder=folder):
            self._lock = open_file(folder / "lock", os.O_RDWR | os.O_CREAT)
            try:
                with locked(self._lock):
                    path = folder / "head"
                    if not path.exists():
                        create_whole(path, recovered(folder, partition, None).pack())
                self._head = HeadFile(path)
            except BaseException:
                os.close(self._lock)
                raise

    def append(self, payload: memoryview) -> Position:
        """Writes one entry and returns where it lies.

        Raises:
            EventLogError: the disk is full or failed, or a file is damaged. The entry is not there, unless it was an
                fsync that failed.
        """
        with named_errors(folder=self._folder), self._turn, locked(self._lock):
            self._catch_up()
            if self._is_full(FRAME_HEADER + payload.nbytes):
                self._roll()
            position = self._write(payload)
            if self._options.fsync != "always":
                self._head.advance(self._now)
        if self._options.fsync == "always":
            self._make_durable(position.entry)
        return position

    def head(self) -> Head:
        """Where the acknowledged entries end; after a start of the machine what was cut off is looked at first."""
        head = self._head.read()
        if head is None or head.boot != boot_id():
            with named_errors(folder=self._folder), self._turn, locked(self._lock):
                head = self._current_head()
        return head

    def sync(self) -> None:
        """Makes everything durable that is acknowledged."""
        self._make_durable(self._now.next_entry - 1)

    def close(self) -> None:
        """Frees the files."""
        with self._turn:
            self._close_segment()
            self._head.close()
            os.close(self._lock)

    def _current_head(self) -> Head:
        """Under the lock of the partition: no other process recovers, rolls or appends."""
        head = self._head.read()
        if head is None or head.boot != boot_id():
            head = recovered(self._folder, self._partition, head)
            self._head.replace(head)
        return head

    def _catch_up(self) -> None:
        """Takes over what others have appended since, and cuts off what one of them did not finish."""
        head = self._current_head()
        if self._segment is None or head.segment != self._now.segment:
            self._open_segment(head)
        elif head.next_entry > self._now.next_entry:
            self._now = head
        if self._segment is None:
            return
        path, size = segment_path(self._folder, head.segment), os.fstat(self._segment).st_size
        if size < self._now.end:
            raise EventLogError(f"has {size:,} bytes, but entries up to {self._now.end:,} were appended", file=path)
        if size == self._now.end:
            return
        found = scan(self._segment, self._now.end, self._now.next_entry)
        if found.last_offset is not None:
            self._now = self._head_at(found.next_entry, found.end, found.last_offset)
        if found.end < size:
            os.ftruncate(self._segment, found.end)

    def _head_at(self, next_entry: int, end: int, last_offset: int) -> Head:
        segment = self._now.segment
        return Head(segment, next_entry, end, self._now.synced, segment, last_offset, boot_id())

    def _open_segment(self, head: Head) -> None:
        self._close_segment()
        self._now = head
        if not head.end:
            return
        path = segment_path(self._folder, head.segment)
        handle = open_file(path, os.O_RDWR)
        try:
            header = read_at(handle, SEGMENT_HEADER, 0)
            self._created = unpack_segment(header, self._partition, head.segment, file=path) / 1e6
            # Where an fsync has failed, the system takes what it could not write for written: an fsync of bytes that
            # nobody has synced means nothing until they are written again.
            unsynced = os.fstat(handle).st_size - head.synced
            for start in range(head.synced, head.synced + unsynced, _COPIED):
                write_at(handle, [read_at(handle, min(_COPIED, head.synced + unsynced - start), start)], start)
        except BaseException:
            os.close(handle)
            raise
        self._segment = handle

    def _close_segment(self) -> None:
        if self._segment is not None:
            os.close(self._segment)
            self._segment = None

    def _is_full(self, size: int) -> bool:
        if self._segment is None:
            return True
        if self._now.end == SEGMENT_HEADER:
            return False
        keep = self._options.keep_seconds
        too_old = keep is not None and time.time() - self._created > keep / _ROLLS_PER_AGE
        return too_old or self._now.end + size > self._options.segment_bytes

    def _roll(self) -> None:
        """Begins a segment, durably, after the one before has become durable; then removes what is too old."""
        if self._segment is not None:
            try:
                os.fsync(self._segment)
            except OSError:
                self._close_segment()
                raise
        first, now = self._now.next_entry, time.time()
        path = segment_path(self._folder, first)
        path.unlink(missing_ok=True)  # of a process that was killed at this place: no head names it
        made = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            write_at(made, [pack_segment(self._partition, first, int(now * 1e6))], 0)
            os.fsync(made)
            sync_folder(self._folder)
            last = (self._now.last_segment, self._now.last_offset)
            head = Head(first, first, SEGMENT_HEADER, SEGMENT_HEADER, *last, boot_id())
            self._head.advance(head)
            self._head.sync()
        except BaseException:
            os.close(made)
            raise
        self._close_segment()
        self._segment, self._created, self._now = made, now, head
        self._durable = max(self._durable, first)
        remove_old(self._folder, self._partition, first, self._options, now)

    def _write(self, payload: memoryview) -> Position:
        assert self._segment is not None
        now = self._now
        header = frame_header(now.next_entry, payload)
        try:
            write_at(self._segment, [pack_frame(header), payload], now.end)
        except BaseException:
            with contextlib.suppress(OSError):  # then the next append cuts it off
                os.ftruncate(self._segment, now.end)
            raise
        self._now = self._head_at(now.next_entry + 1, now.end + header.size, now.end)
        return Position(now.next_entry, now.segment, now.end, header.digest)

    def _make_durable(self, entry: int) -> None:
        """Returns when an entry is on the disk and readers see it: one fsync for all that wait."""
        with self._sync_turn, named_errors(folder=self._folder):
            if self._durable > entry:
                return
            with self._turn:
                if self._segment is None:
                    raise EventLogError("an fsync failed after the entry was written", folder=self._folder)
                head, handle = self._now, os.dup(self._segment)
            try:
                os.fdatasync(handle)
            except OSError:
                with self._turn:
                    self._close_segment()
                raise
            finally:
                os.close(handle)
            self._head.advance(replace(head, synced=head.end))
            self._durable = max(self._durable, head.next_entry)
