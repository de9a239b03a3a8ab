"""What a partition no longer keeps: whole segments, the oldest first, never the newest."""

from __future__ import annotations

import os
from pathlib import Path

from embtables.events.folder.disk import opened, read_at, sync_folder
from embtables.events.folder.frame import SEGMENT_HEADER, unpack_segment
from embtables.events.folder.segments import segment_path, segments
from embtables.events.options import FolderOptions


def remove_old(folder: Path, partition: int, newest: int, options: FolderOptions, now: float) -> None:
    """Removes segments by age and size. Called under the lock of the partition.

    Args:
        newest: the first entry of the segment that is appended to.
        now: seconds since 1970. A segment is as old as the beginning of the next one: its entries are older.
    """
    if options.keep_seconds is None and options.keep_bytes is None:
        return
    kept = [first for first in segments(folder) if first <= newest]
    sizes = [segment_path(folder, first).stat().st_size for first in kept]
    total = sum(sizes)
    for first, following, size in zip(kept, kept[1:], sizes, strict=False):
        too_large = options.keep_bytes is not None and total > options.keep_bytes
        if not too_large and not _is_old(folder, partition, following, options.keep_seconds, now):
            return
        segment_path(folder, first).unlink(missing_ok=True)
        # One at a time: after a loss of power no older segment is there without a newer one.
        sync_folder(folder)
        total -= size


def _is_old(folder: Path, partition: int, following: int, keep_seconds: float | None, now: float) -> bool:
    if keep_seconds is None:
        return False
    path = segment_path(folder, following)
    with opened(path, os.O_RDONLY) as handle:
        created = unpack_segment(read_at(handle, SEGMENT_HEADER, 0), partition, following, file=path)
    return now - created / 1e6 > keep_seconds
