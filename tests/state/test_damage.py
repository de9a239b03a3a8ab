"""Bit rot: whatever happens to a byte of any file, loading and verifying refuse and name the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embtables.errors import StateError
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.read.load import load as load_version
from tests.state.versions_for_tests import tables, write

REGIONS = 24


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    write(folder, 3)
    return folder


def refused(folder: Path) -> str:
    """What loading the newest version says, which verifying must say too."""
    state = StateFolder(folder)
    with pytest.raises(StateError) as loading:
        load_version(state, state.chain("resume", 3), tables())
    with pytest.raises(StateError):
        for version in state.chain("resume", 3):
            state.verify(version)
    return str(loading.value)


def flipped(data: bytearray, at: int) -> bytes:
    data[at] ^= 1 << (at % 8)
    return bytes(data)


def truncated(data: bytearray, at: int) -> bytes:
    return bytes(data[:at])


def zeroed(data: bytearray, at: int) -> bytes:
    size = min(64, len(data) - at)
    changed = data[:at] + bytes(size) + data[at + size :]
    return bytes(changed) if changed != data else flipped(data, at)


def appended(data: bytearray, at: int) -> bytes:
    return bytes(data) + bytes(1 + at % 9)


def files_of(folder: Path) -> list[str]:
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return [n for n in names if not n.startswith("lease")]


@pytest.mark.parametrize("damage", [flipped, truncated, zeroed, appended])
def test_no_damage_goes_unseen(whole: Path, tmp_path: Path, damage: Callable[[bytearray, int], bytes]) -> None:
    folder = tmp_path / "state"
    shutil.copytree(whole, folder)
    kinds = {name.rsplit("/", 1)[1].split(".", 1)[-1] for name in files_of(folder)}
    assert kinds >= {"json", "rows.0.arrow", "waiting.0.arrow", "tombstones.0.arrow", "safetensors"}
    for name in files_of(folder):
        file = folder / name
        data = file.read_bytes()
        for at in np.linspace(0, len(data) - 1, REGIONS).astype(int):
            file.write_bytes(damage(bytearray(data), int(at)))
            assert file.name in refused(folder)
        file.write_bytes(data)
    state = StateFolder(folder)
    load_version(state, state.chain("resume", 3), tables())


def test_files_of_another_version_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    shutil.copytree(whole, folder)
    first, second = (StateFolder(folder).manifest("resume", n) for n in (1, 2))
    for name in sorted(set(first.files) & set(second.files)):
        one, other = (folder / "versions" / m.folder / name for m in (first, second))
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        assert name in refused(folder)
        one.write_bytes(kept)
    manifests = [folder / "manifests" / f"resume-{n:010d}.json" for n in (1, 2)]
    kept = manifests[0].read_bytes()
    manifests[0].write_bytes(manifests[1].read_bytes())
    assert "is the manifest of resume-2, under another name" in refused(folder)
    manifests[0].write_bytes(kept)


@pytest.mark.parametrize("what", ["manifest", "file", "folder"])
def test_what_is_missing_is_named(whole: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "state"
    shutil.copytree(whole, folder)
    version: Manifest = StateFolder(folder).manifest("resume", 2)
    if what == "manifest":
        (folder / "manifests" / "resume-0000000002.json").unlink()
        state = StateFolder(folder)
        with pytest.raises(StateError, match="there is no version resume-2"):
            state.chain("resume", 3)
    elif what == "file":
        (folder / "versions" / version.folder / "grows.rows.0.arrow").unlink()
        assert "grows.rows.0.arrow" in refused(folder)
    else:
        shutil.rmtree(folder / "versions" / version.folder)
        assert version.folder in refused(folder)
