"""A folder log whose bytes are not what was written: torn ends are cut off, damage is reported where it lies."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from embtables.errors import EventLogError
from embtables.events import open_log
from embtables.events.folder import FolderLog
from embtables.events.options import FolderOptions
from tests.contracts.event_log import read_all, same
from tests.events.events_for_tests import events


def firsts(log: FolderLog) -> list[str]:
    return [entry.events["event_id"][0].as_py() for entry in read_all(log, 0)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A log with four entries."""
    with closing(FolderLog(tmp_path / "log")) as log:
        for i in range(4):
            log.append(0, events(i, 1))
    return tmp_path / "log"


def segment(root: Path) -> Path:
    (found,) = (root / "0000").glob("*.events")
    return found


def test_an_end_torn_at_any_byte_is_cut_off_and_never_read(root: Path, tmp_path: Path) -> None:
    head, end = (root / "0000" / "head").read_bytes(), segment(root).stat().st_size
    with closing(FolderLog(root)) as log:
        log.append(0, events(4, 1))
    whole = segment(root).read_bytes()
    for size in range(end, len(whole) + 1):
        torn = tmp_path / "torn"
        shutil.copytree(root, torn)
        (torn / "0000" / "head").write_bytes(head)  # nobody was told of the last entry
        segment(torn).write_bytes(whole[:size])
        with closing(FolderLog(torn)) as log:
            assert firsts(log) == ["e0", "e1", "e2", "e3"]
            position = log.append(0, events(5, 1))
            kept = ["e4"] if size == len(whole) else []
            assert firsts(log) == ["e0", "e1", "e2", "e3", *kept, "e5"]
            assert same(log.fetch(0, position), events(5, 1))
        shutil.rmtree(torn)


def test_an_end_that_is_garbage_is_cut_off(root: Path) -> None:
    with segment(root).open("ab") as file:
        file.write(b"EVNT" + bytes(range(256)) * 8)
    with closing(FolderLog(root)) as log:
        assert len(firsts(log)) == 4
        log.append(0, events(4, 1))
        assert firsts(log) == ["e0", "e1", "e2", "e3", "e4"]


def test_every_flipped_byte_is_reported_with_its_file_and_offset(root: Path) -> None:
    path = segment(root)
    whole = path.read_bytes()
    with closing(FolderLog(root)) as log:
        starts = [int(entry.position.split(".")[2]) for entry in read_all(log, 0)]
        positions = [entry.position for entry in read_all(log, 0)]
        for at in range(len(whole)):
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([whole[at] ^ 0x10]))
            with pytest.raises(EventLogError) as caught:
                read_all(log, 0)
            frame = max([start for start in starts if start <= at], default=0)
            assert caught.value.path["file"] == path
            assert caught.value.path["offset"] == frame, f"byte {at}"
            before = starts.index(frame) if frame else 0
            if frame:
                assert len(log.read(0, None, max_entries=before)) == before if before else True
                with pytest.raises(EventLogError):
                    log.fetch(0, positions[before])
            with path.open("r+b") as file:
                file.seek(at)
                file.write(whole[at : at + 1])
        assert len(read_all(log, 0)) == 4


def test_appending_leaves_damage_as_it_is(root: Path) -> None:
    path = segment(root)
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    with closing(FolderLog(root)) as log:
        position = log.append(0, events(4, 1))
        assert path.read_bytes().startswith(damaged)
        assert same(log.fetch(0, position), events(4, 1))
        with pytest.raises(EventLogError, match="damaged"):
            read_all(log, 0)


def test_a_file_that_someone_has_shortened_is_no_torn_end(root: Path) -> None:
    path = segment(root)
    path.write_bytes(path.read_bytes()[:-1])
    with closing(FolderLog(root)) as log:
        with pytest.raises(EventLogError, match="but entries up to"):
            log.append(0, events(4, 1))
        with pytest.raises(EventLogError, match="damaged"):
            read_all(log, 0)


@pytest.mark.parametrize("damage", ["flipped", "empty", "gone"])
def test_a_head_that_is_damaged_or_gone_is_made_from_the_segments(root: Path, damage: str) -> None:
    path = root / "0000" / "head"
    whole = path.read_bytes()
    for at in range(len(whole)) if damage == "flipped" else [0]:
        path.unlink()
        if damage != "gone":
            path.write_bytes(b"" if damage == "empty" else whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with closing(FolderLog(root)) as log:
            assert firsts(log) == ["e0", "e1", "e2", "e3"]
            assert log.last(0) == read_all(log, 0)[-1].position
    with closing(FolderLog(root)) as log:
        log.append(0, events(4, 1))
        assert firsts(log)[-2:] == ["e3", "e4"]


def test_without_a_head_damage_is_not_taken_for_a_torn_end(root: Path) -> None:
    (root / "0000" / "head").unlink()
    path = segment(root)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EventLogError, match="damaged") as caught:
        FolderLog(root)
    assert caught.value.path["file"] == path


def test_a_position_of_an_entry_that_was_lost_and_replaced_is_refused(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(root, other)
    with closing(FolderLog(root)) as log:
        position = log.append(0, events(4, 1))
    with closing(FolderLog(other)) as log:
        log.append(0, events(5, 1))
        log.append(0, events(6, 1))
        for call in (lambda: log.read(0, position), lambda: log.fetch(0, position)):
            with pytest.raises(EventLogError, match="no entry of this log"):
                call()


def test_a_segment_of_another_partition_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "log"
    with closing(FolderLog(root, FolderOptions(partitions=2))) as log:
        log.append(0, events(0))
        log.append(1, events(0))
        (found,) = (root / "0000").glob("*.events")
        found.replace(root / "0001" / found.name)
        with pytest.raises(EventLogError, match="is the segment of partition 0"):
            log.read(1, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not describe"),
        (b"[]", "does not describe"),
        (json.dumps({"format": 2, "partitions": 1}).encode(), "has format 2"),
        (json.dumps({"format": 1, "partitions": 0}).encode(), "partitions is 0"),
        (json.dumps({"format": 1, "partitions": 10**9}).encode(), "partitions is 1000000000"),
        (json.dumps({"format": 1, "partitions": True}).encode(), "partitions is True"),
    ],
)
def test_a_description_that_is_none(root: Path, content: bytes, message: str) -> None:
    (root / "log.json").write_bytes(content)
    with pytest.raises(EventLogError, match=message):
        FolderLog(root)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EventLogError, match="holds other files"):
        open_log(f"folder://{tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_pipe_or_a_link_in_the_place_of_a_segment_is_refused(root: Path, tmp_path: Path) -> None:
    path = segment(root)
    kept = tmp_path / "kept"
    path.replace(kept)
    path.symlink_to(kept)
    with closing(FolderLog(root)) as log, pytest.raises(EventLogError):
        log.read(0, None)
