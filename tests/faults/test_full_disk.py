"""A disk that is full, and then is not: a version that does not fit loses nothing, and is reported."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from embtables.errors import StateError
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.read.load import load as load_version
from embtables.state.write.version_writer import VersionWriter
from tests.contents import flat, same
from tests.state.versions_for_tests import tables, train


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    made = tmp_path / "disk"
    made.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(made)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("tmpfs cannot be mounted here")
    yield made
    subprocess.run(["umount", str(made)], check=True)


def fill(disk: Path) -> Path:
    """Takes all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def test_training_goes_on_over_a_full_disk_and_the_next_version_holds_everything(small_disk: Path) -> None:
    state, made = StateFolder(small_disk / "state"), tables()
    with LeaseHolder(state) as writer:
        chain = VersionWriter(writer, "resume", made)
        train(made, range(5))
        chain.cut({}, {})
        chain.wait()
        before = flat(made)
        ballast = fill(small_disk)
        for step in range(5, 8):
            train(made, range(step, step + 1))
            chain.cut({}, {})
            with pytest.raises(StateError, match="No space left on device"):
                chain.wait()
        again = tables()
        load_version(state, state.chain("resume", 1), again)
        assert same(flat(again), before)
        ballast.unlink()
        train(made, range(8, 10))
        chain.cut({}, {})
        chain.wait()
        chain.close()
    assert state.sequences("resume") == [1, 2]
    load_version(state, state.chain("resume", 2), again)
    assert same(flat(again), flat(made))
    assert state.manifest("resume", 2).parent == 1
    assert len(list((small_disk / "state" / "versions").iterdir())) == 2  # what failed is gone
