"""Loss of power for logs that write within files: what is done to the disk is recorded, and replayed with gaps.

The model is pessimistic, as in tests/faults/power.py: bytes are safe after a sync of their file, names after one of
their folder, nothing else is. What is not safe may be there or not, sector by sector, and a file may be longer than
what was written of it. A sector is written whole or not at all. Where a sync has failed, what it was to write is taken
for written by the system: later syncs do not write it, and fail once for each descriptor that was open then.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SECTOR = 512


@dataclass
class Op:
    """One thing done to the disk, to a file (by inode) or to a name in a folder (by path)."""

    kind: str  # write, truncate, sync, failed; make, remove, sync_folder, mkdir
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    path: str = ""


class Recorder:
    """Notes every operation below a root while `recording`; `fails()` says whether the next fdatasync does."""

    def __init__(self, root: Path, fails: Callable[[], bool]) -> None:
        self.ops: list[Op] = []
        self._root, self._fails = str(root), fails
        self._failures: Counter[int] = Counter()  # by inode
        self._told: dict[int, list[int]] = {}  # by descriptor: of how many failures it knows; duplicates share it

    @contextmanager
    def recording(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            self._patch_bytes(patch)
            self._patch_names(patch)
            yield

    def _of(self, handle: int) -> tuple[str, int] | None:
        path = str(Path(f"/proc/self/fd/{handle}").readlink())
        return (path, os.fstat(handle).st_ino) if path.startswith(self._root) else None

    def _patch_bytes(self, patch: pytest.MonkeyPatch) -> None:
        pwritev, ftruncate, dup = os.pwritev, os.ftruncate, os.dup

        def write(handle: int, parts: Any, offset: int) -> int:
            done = pwritev(handle, parts, offset)
            if of := self._of(handle):
                self.ops.append(Op("write", of[1], offset, b"".join(bytes(part) for part in parts)[:done]))
            return done

        def truncate(handle: int, size: int) -> None:
            ftruncate(handle, size)
            if of := self._of(handle):
                self.ops.append(Op("truncate", of[1], size))

        def sync(handle: int) -> None:
            if of := self._of(handle):
                told = self._told.get(handle, [0])
                if told[0] < self._failures[of[1]]:
                    told[0] = self._failures[of[1]]
                    raise OSError(5, "Input/output error")
                is_folder = Path(of[0]).is_dir()
                self.ops.append(Op("sync_folder", path=of[0]) if is_folder else Op("sync", of[1]))

        def sync_data(handle: int) -> None:
            if (of := self._of(handle)) and self._fails():
                self.ops.append(Op("failed", of[1]))
                self._failures[of[1]] += 1
            sync(handle)

        def duplicated(handle: int) -> int:
            copy = dup(handle)
            self._told[copy] = self._told.get(handle, [0])
            return copy

        patch.setattr(os, "dup", duplicated)
        patch.setattr(os, "pwritev", write)
        patch.setattr(os, "ftruncate", truncate)
        patch.setattr(os, "fsync", sync)
        patch.setattr(os, "fdatasync", sync_data)

    def _patch_names(self, patch: pytest.MonkeyPatch) -> None:
        open_, link, unlink, mkdir = os.open, os.link, Path.unlink, Path.mkdir

        def opened(path: Any, flags: int, *more: Any) -> int:
            new = bool(flags & os.O_CREAT) and str(path).startswith(self._root) and not Path(path).exists()
            handle = open_(path, flags, *more)
            inode = os.fstat(handle).st_ino
            self._told[handle] = [self._failures[inode]]
            if new:
                self.ops.append(Op("make", inode, path=str(path)))
            return handle

        def linked(old: Any, new: Any) -> None:
            link(old, new)
            self.ops.append(Op("make", Path(new).stat().st_ino, path=str(new)))

        def unlinked(path: Path, missing_ok: bool = False) -> None:
            inode = path.stat().st_ino if path.exists() else 0
            unlink(path, missing_ok=missing_ok)
            if inode:
                self.ops.append(Op("remove", inode, path=str(path)))

        def made(path: Path, *arguments: Any, **options: Any) -> None:
            new = not path.exists()
            mkdir(path, *arguments, **options)
            if new:
                self.ops.append(Op("mkdir", path=str(path)))

        patch.setattr(os, "open", opened)
        patch.setattr(os, "link", linked)
        patch.setattr(Path, "unlink", unlinked)
        patch.setattr(Path, "mkdir", made)


def baseline(root: Path) -> list[Op]:
    """A folder that lies on the disk, as operations that are all safe."""
    ops = []
    for path in sorted(root.rglob("*")):
        if path.is_dir():
            ops.append(Op("mkdir", path=str(path)))
        else:
            inode = path.stat().st_ino
            ops += [Op("make", inode, path=str(path)), Op("write", inode, data=path.read_bytes()), Op("sync", inode)]
        ops.append(Op("sync_folder", path=str(path.parent)))
    return ops


def after_power_loss(ops: list[Op], root: Path, to: Path, rng: random.Random) -> None:
    """Makes, at `to`, the folder `root` as it may be found when the power went after the last of these operations."""
    keep_all, keep_none = rng.random() < 0.1, rng.random() < 0.1

    def stays() -> bool:
        return keep_all or (not keep_none and rng.random() < 0.5)

    files: dict[int, bytearray] = defaultdict(bytearray)
    for inode in {op.inode for op in ops if op.inode}:
        _replay([op for op in ops if op.inode == inode], files[inode], stays, rng)
    names: dict[str, int] = {}
    folder_synced = {op.path: at for at, op in enumerate(ops) if op.kind == "sync_folder"}
    for at, op in enumerate(ops):
        if op.kind in ("make", "remove", "mkdir"):
            safe = folder_synced.get(str(Path(op.path).parent), -1) > at
            if not (safe or stays()):
                continue
            if op.kind == "mkdir":
                names[op.path] = 0
            elif op.kind == "make":
                names[op.path] = op.inode
            elif names.get(op.path) == op.inode:
                del names[op.path]
    to.mkdir()
    for path, inode in sorted(names.items()):
        place = to / Path(path).relative_to(root)
        if place == to or not place.parent.is_dir():
            continue  # there already, or its folder is not there
        if inode:
            place.write_bytes(bytes(files[inode]))
        else:
            place.mkdir()


def _replay(ops: list[Op], content: bytearray, stays: Callable[[], bool], rng: random.Random) -> None:
    """The bytes of one file: those of operations before the last sync, and some of the later ones."""
    syncs = [at for at, op in enumerate(ops) if op.kind == "sync"]
    failures = [at for at, op in enumerate(ops) if op.kind == "failed"]
    for at, op in enumerate(ops):
        safe = any(at < s and not any(at < f < s and not _safe_before(syncs, at, f) for f in failures) for s in syncs)
        if op.kind == "truncate" and (safe or stays()):
            del content[op.offset :]
            content.extend(bytes(op.offset - len(content)))
        elif op.kind == "write":
            longer = safe or rng.random() < 0.5  # the size of a file may be there before its bytes are
            for start in range(op.offset - op.offset % SECTOR, op.offset + len(op.data), SECTOR):
                low, high = max(start, op.offset), min(start + SECTOR, op.offset + len(op.data))
                if safe or stays():
                    content.extend(bytes(max(0, high - len(content))))
                    content[low:high] = op.data[low - op.offset : high - op.offset]
                elif longer:
                    content.extend(bytes(max(0, high - len(content))))


def _safe_before(syncs: list[int], at: int, failure: int) -> bool:
    """Whether a sync has written an operation before one failed."""
    return any(at < sync < failure for sync in syncs)
