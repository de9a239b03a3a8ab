"""Loss of power: what a state folder does to the disk is recorded, then replayed with un-synced parts left out.

The model is pessimistic: bytes are safe after fsync of their file, names after fsync of their folder, nothing else is.
What is not safe may be there or not, each write and each name for itself; a rename happens whole or not at all.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Op:
    """One thing done to the disk. `inode` is the file or folder it concerns, `folder` the folder whose names change."""

    kind: str  # write, sync, mkdir, create, link, rename, unlink, rmdir
    inode: int
    folder: int = -1
    name: str = ""
    old_folder: int = -1
    old_name: str = ""
    data: bytes = b""


@dataclass
class Disk:
    """Files and folders by inode; folder 0 is the root."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    files: dict[int, bytearray] = field(default_factory=dict)

    def materialise(self, root: Path, inode: int = 0) -> None:
        """Makes it real."""
        root.mkdir(exist_ok=True)
        for name, child in self.folders[inode].items():
            if child in self.folders:
                self.materialise(root / name, child)
            else:
                (root / name).write_bytes(bytes(self.files.get(child, b"")))


class Recorder:
    """Notes every operation on the disk below a root while `recording`."""

    def __init__(self, root: Path) -> None:
        self.ops: list[Op] = []
        self._root = root
        self._inodes: dict[str, int] = {str(root): 0}
        self._next = 1
        # Where several ranks write, what was done first is noted first.
        self._turn = threading.RLock()

    def _inode(self, path: Path | str) -> int:
        return self._inodes[str(path)]

    def _place(self, path: Path) -> tuple[int, str]:
        return self._inode(path.parent), path.name

    def _new(self, path: Path) -> int:
        self._inodes[str(path)] = self._next
        self._next += 1
        return self._next - 1

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Operations of this process are noted until the end of the block."""
        with pytest.MonkeyPatch.context() as patch:
            self._patch(patch)
            yield

    def _patch(self, patch: pytest.MonkeyPatch) -> None:
        self._patch_bytes(patch)
        self._patch_names(patch)
        for kind in ("unlink", "rmdir"):
            patch.setattr(Path, kind, self._removing(kind, getattr(Path, kind)))

    def _inside(self, path: Path) -> bool:
        return path == self._root or self._root in path.parents

    def _patch_bytes(self, patch: pytest.MonkeyPatch) -> None:
        opened, write, fsync = Path.open, os.write, os.fsync

        def open_(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            with self._turn:
                file = opened(path, mode, *arguments, **options)
                if "x" in mode and self._inside(path):
                    folder, name = self._place(path)
                    self.ops.append(Op("create", self._new(path), folder, name))
                return file

        def write_(handle: int, data: Any) -> int:
            with self._turn:
                done = write(handle, data)
                path = Path(f"/proc/self/fd/{handle}").readlink()
                if self._inside(path):
                    self.ops.append(Op("write", self._inode(path), data=bytes(data[:done])))
                return done

        def fsync_(handle: int) -> None:
            with self._turn:
                path = Path(f"/proc/self/fd/{handle}").readlink()
                fsync(handle)
                if self._inside(path):
                    self.ops.append(Op("sync", self._inode(path)))

        patch.setattr(Path, "open", open_)
        patch.setattr("embtables.state.folder.local_folder.os.write", write_)
        patch.setattr("embtables.state.folder.local_folder.os.fsync", fsync_)

    def _patch_names(self, patch: pytest.MonkeyPatch) -> None:
        mkdir, rename, link = Path.mkdir, Path.rename, os.link

        def mkdir_(path: Path, *arguments: Any, **options: Any) -> None:
            with self._turn:
                made = not path.exists()
                mkdir(path, *arguments, **options)
                if made and self._inside(path) and path != self._root:
                    folder, name = self._place(path)
                    self.ops.append(Op("mkdir", self._new(path), folder, name))

        def link_(old: Path, new: Path) -> None:
            with self._turn:
                link(old, new)
                folder, name = self._place(new)
                self._inodes[str(new)] = self._inode(old)
                self.ops.append(Op("link", self._inode(old), folder, name))

        def rename_(old: Path, new: Path) -> Path:
            with self._turn:
                moved = rename(old, new)
                self._inodes[str(new)] = self._inode(old)
                (to, name), (at, before) = self._place(new), self._place(old)
                self.ops.append(Op("rename", self._inode(old), to, name, at, before))
                return moved

        patch.setattr(Path, "mkdir", mkdir_)
        patch.setattr(Path, "rename", rename_)
        patch.setattr("embtables.state.folder.local_folder.os.link", link_)

    def _removing(self, kind: str, function: Callable[..., None]) -> Callable[..., None]:
        def call(path: Path, *arguments: Any, **options: Any) -> None:
            with self._turn:
                there = path.exists()
                function(path, *arguments, **options)
                if there and self._inside(path):
                    folder, name = self._place(path)
                    self.ops.append(Op(kind, self._inode(path), folder, name))

        return call


def after_power_loss(ops: list[Op], rng: random.Random) -> Disk:
    """A disk as it may be found when the power went after the last of these operations."""
    synced = {op.inode: at for at, op in enumerate(ops) if op.kind == "sync"}
    keep_all, keep_none = rng.random() < 0.1, rng.random() < 0.1

    def stays(at: int, inode: int) -> bool:
        return synced.get(inode, -1) > at or keep_all or (not keep_none and rng.random() < 0.5)

    disk = Disk()
    for at, op in enumerate(ops):
        if op.kind == "mkdir":
            disk.folders[op.inode] = {}
        if op.kind == "create":
            disk.files[op.inode] = bytearray()
        if op.kind == "write":
            whole = stays(at, op.inode)
            kept = op.data if whole else op.data[: rng.choice((0, len(op.data) // 2))]
            disk.files[op.inode] += kept + bytes(len(op.data) - len(kept) if rng.random() < 0.5 else 0)
        elif op.folder >= 0 and stays(at, op.folder):
            _rename(disk, op)
    return disk


def _rename(disk: Disk, op: Op) -> None:
    """Applies a change of names."""
    names = disk.folders[op.folder]
    if op.kind in ("unlink", "rmdir"):
        if names.get(op.name) == op.inode:
            del names[op.name]
        return
    if op.kind == "rename" and disk.folders[op.old_folder].get(op.old_name) == op.inode:
        del disk.folders[op.old_folder][op.old_name]
    names[op.name] = op.inode
