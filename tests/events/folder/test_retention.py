"""What a folder log no longer keeps: whole segments by age and size, and the error of who was too slow."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from embtables.errors import EventsLostError
from embtables.events.folder import FolderLog, writer
from embtables.events.options import FolderOptions
from tests.contracts.event_log import read_all
from tests.events.events_for_tests import events

SMALL = {"segment_bytes": 4096}  # two or three entries of these events


def files(root: Path) -> list[Path]:
    return sorted((root / "0000").glob("*.events"))


def test_the_oldest_segments_go_when_there_are_too_many_bytes(tmp_path: Path) -> None:
    with closing(FolderLog(tmp_path, FolderOptions(keep_bytes=20_000, **SMALL))) as log:
        positions = [log.append(0, events(i, 1)) for i in range(60)]
        sizes = [path.stat().st_size for path in files(tmp_path)]
        assert sum(sizes[:-1]) <= 20_000 < sum(sizes) + 2 * 4096
        kept = read_all(log, 0)
        first = len(positions) - len(kept)
        assert [entry.position for entry in kept] == positions[first:]
        assert 0 < first < 60
        for lost in range(first - 1):
            with pytest.raises(EventsLostError) as caught:
                log.read(0, positions[lost])
            assert caught.value.path == {
                "folder": tmp_path / "0000",
                "first_lost": lost + 1,
                "last_lost": first - 1,
                "first_kept": first,
            }
            assert f"entries {lost + 1} to {first - 1} ({first - lost - 1})" in str(caught.value)
        # Nothing lies between the last that was removed and the first that is kept.
        assert log.read(0, positions[first - 1])[0].position == positions[first]
        with pytest.raises(EventsLostError):
            log.fetch(0, positions[first - 1])
        assert log.wait({0: positions[0]}, 0)


def test_segments_go_by_the_time_of_their_last_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1e9, time=lambda: clock.now)
    monkeypatch.setattr(writer, "time", clock)
    with closing(FolderLog(tmp_path, FolderOptions(keep_seconds=800.0))) as log:
        for i in range(40):
            log.append(0, events(i, 1))
            clock.now += 50
        ages = [50 * (40 - int(entry.events["event_id"][0].as_py()[1:])) for entry in read_all(log, 0)]
    assert ages == sorted(ages, reverse=True)
    # All entries that are younger are there; older ones only as far as their segment, of 1/8 of the age, goes.
    assert {age for age in ages if age <= 800} == set(range(50, 801, 50))
    assert max(ages) <= 800 + 2 * 150


def test_a_clock_that_was_set_back_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1e9, time=lambda: clock.now)
    monkeypatch.setattr(writer, "time", clock)
    with closing(FolderLog(tmp_path, FolderOptions(keep_seconds=800.0, **SMALL))) as log:
        for i in range(20):
            log.append(0, events(i, 1))
            clock.now -= 1000
        assert len(read_all(log, 0)) == 20


def test_a_segment_that_is_missing_in_the_middle_is_a_loss(tmp_path: Path) -> None:
    with closing(FolderLog(tmp_path, FolderOptions(**SMALL))) as log:
        for i in range(20):
            log.append(0, events(i, 1))
        files(tmp_path)[2].unlink()
        with pytest.raises(EventsLostError, match="no longer kept"):
            read_all(log, 0)


def test_a_reader_beside_retention_reads_whole_entries_or_learns_what_it_lost(tmp_path: Path) -> None:
    done = threading.Event()

    def write() -> None:
        with closing(FolderLog(tmp_path, FolderOptions(keep_bytes=16_384, fsync="never", **SMALL))) as log:
            for i in range(1500):
                log.append(0, events(i, 1))
        done.set()

    thread = threading.Thread(target=write)
    with closing(FolderLog(tmp_path)) as log:
        thread.start()
        after, expected, losses, last = None, 0, 0, -1
        while not (done.is_set() and last == 1499):
            try:
                found = log.read(0, after, max_entries=7)
            except EventsLostError as error:
                assert error.path["first_lost"] == expected
                losses, after, expected = losses + 1, None, int(str(error.path["first_kept"]))
                continue
            for entry in found:
                last = int(entry.events["event_id"][0].as_py()[1:])
                assert last >= expected if after is None else last == expected
                after, expected = entry.position, last + 1
        thread.join()
    assert last == 1499
