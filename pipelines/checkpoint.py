"""Checkpoints of a run: safetensors + JSON, whole or absent. (The versioned state format replaces this.)

A checkpoint is a folder `step-<n>-<random>`: `state.safetensors` (every tensor) and `checkpoint.json` (step, reader
position, early-stopping state, transforms, schema, size and SHA-256 of the tensor file). It is written under a
temporary name, synced, renamed; then `last.json` or `best.json`, replaced atomically, names it. What no pointer names
is removed afterwards, so a crash or a full disk at any point leaves the former checkpoint loadable.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from embtables.errors import StateError
from pipelines.run_dir import fsync_folder, write_atomically

Which = Literal["last", "best"]
TENSORS_FILE = "state.safetensors"
META_FILE = "checkpoint.json"
VERSION = 0
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint: tensors by name, and what is not a tensor."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save(
    folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], which: tuple[Which, ...]
) -> None:
    """Writes checkpoint `step-<step>` below `folder` and points each of `which` at it.

    Raises:
        StateError: the disk is full or not writable; earlier checkpoints stay as they were.
    """
    # The same step may be saved twice with another run state (an evaluation in between): names are unique.
    name = f"step-{step:09d}-{secrets.token_hex(4)}"
    temporary = folder / f".{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / TENSORS_FILE)
        _fsync(temporary / TENSORS_FILE)
        content = dict(meta)
        content.update(
            version=VERSION,
            step=step,
            tensors={"bytes": (temporary / TENSORS_FILE).stat().st_size, "sha256": _sha256(temporary / TENSORS_FILE)},
        )
        write_atomically(temporary / META_FILE, json.dumps(content, indent=1).encode())
        temporary.rename(folder / name)
        fsync_folder(folder)
        for pointer in which:
            write_atomically(folder / f"{pointer}.json", json.dumps({"checkpoint": name}).encode())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise StateError(
            f"cannot write the checkpoint: {reason}; earlier checkpoints are intact", folder=folder
        ) from error
    _remove_unnamed(folder)


def load(folder: Path, which: Which) -> Checkpoint:
    """The checkpoint that `which` points at, its size and checksum verified before it is read.

    Raises:
        StateError: there is none, or it is damaged.
    """
    pointer = folder / f"{which}.json"
    try:
        name = json.loads(pointer.read_text(encoding="utf-8"))["checkpoint"]
    except FileNotFoundError:
        raise StateError(f"there is no {which} checkpoint; the run ended before its first", folder=folder) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError("is damaged: it does not name a checkpoint", file=pointer) from error
    if not isinstance(name, str) or Path(name).name != name:
        raise StateError(f"names {name!r}, which is not a folder beside it", file=pointer)
    return _read(folder / name)


def _read(path: Path) -> Checkpoint:
    try:
        meta = json.loads((path / META_FILE).read_text(encoding="utf-8"))
        expected = meta["tensors"]
        if meta["version"] != VERSION:
            raise StateError(f"has version {meta['version']}, this build reads {VERSION}", file=path / META_FILE)
        file = path / TENSORS_FILE
        size = file.stat().st_size
        if size != expected["bytes"] or _sha256(file) != expected["sha256"]:
            raise StateError(f"is damaged: its checksum or size ({size} bytes) is not the one recorded", file=file)
        return Checkpoint(safetensors.torch.load_file(file), meta)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StateError(f"the checkpoint cannot be read: {error}", folder=path) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove_unnamed(folder: Path) -> None:
    named = set()
    for pointer in folder.glob("*.json"):
        try:
            named.add(json.loads(pointer.read_text(encoding="utf-8"))["checkpoint"])
        except (OSError, ValueError, KeyError, TypeError):
            return
    for path in folder.iterdir():
        if path.is_dir() and path.name not in named:
            shutil.rmtree(path, ignore_errors=True)
