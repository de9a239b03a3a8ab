"""A disk that is full or fails: the append says so, nothing half-written is read, and it goes on afterwards."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from embtables.errors import EventLogError
from embtables.events.folder import FolderLog
from embtables.events.options import FolderOptions
from tests.contracts.event_log import read_all
from tests.events.events_for_tests import events
from tests.faults.test_full_disk import fill, small_disk

__all__ = ["small_disk"]


def firsts(log: FolderLog) -> list[int]:
    return [int(entry.events["event_id"][0].as_py()[1:]) for entry in read_all(log, 0)]


@pytest.mark.parametrize("segment_bytes", [4096, 64 << 20])
def test_a_full_disk_loses_nothing_and_appending_goes_on(small_disk: Path, segment_bytes: int) -> None:
    options = FolderOptions(segment_bytes=segment_bytes)
    with closing(FolderLog(small_disk / "log", options)) as log, closing(FolderLog(small_disk / "log")) as other:
        acknowledged, sent, refused = [], 0, 0
        for _ in range(3):
            for _ in range(5):
                log.append(0, events(sent, 1))
                acknowledged.append(sent)
                sent += 1
            ballast = fill(small_disk)
            refusals = 0
            while refusals < 5:
                try:
                    (log if sent % 2 else other).append(0, events(sent, 40))
                    acknowledged.append(sent)
                except EventLogError as error:
                    assert "No space left on device" in str(error)
                    refusals += 1
                sent += 1
                assert firsts(other) == acknowledged
            refused += refusals
            ballast.unlink()
        other.append(0, events(sent, 40))
        assert firsts(log) == [*acknowledged, sent]
        assert refused == 15


@pytest.mark.parametrize("call", ["fdatasync", "pwritev", "ftruncate"])
def test_a_call_that_fails_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real, failures = getattr(os, call), iter([True])

    def fails_once(*arguments: object) -> object:
        if next(failures, False):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    with closing(FolderLog(tmp_path)) as log:
        log.append(0, events(0, 1))
        if call == "ftruncate":  # after a write that stopped half way
            write = os.pwritev
            parts = iter([20])

            def half(handle: int, buffers: list[memoryview], offset: int) -> int:
                if (size := next(parts, None)) is not None:
                    write(handle, [bytes(buffers[0])[:size]], offset)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return write(handle, buffers, offset)

            monkeypatch.setattr(os, "pwritev", half)
        monkeypatch.setattr(os, call, fails_once)
        with pytest.raises(EventLogError):
            log.append(0, events(1, 1))
        assert firsts(log) == [0]
        log.append(0, events(2, 1))
        # A sync that failed leaves open whether its entry is there: the next one that succeeds covers it.
        assert firsts(log) == ([0, 1, 2] if call == "fdatasync" else [0, 2])


def test_threads_that_wait_for_an_fsync_that_fails_are_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun, go_on = os.fdatasync, threading.Event(), threading.Event()
    fails = iter([True])

    def sync(handle: int) -> None:
        if next(fails, False):
            begun.set()
            go_on.wait(60)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(handle)

    with closing(FolderLog(tmp_path)) as log:
        log.append(0, events(0, 1))
        (segment,) = (tmp_path / "0000").glob("*.events")
        header = int(str(log.last(0)).split(".")[2])
        frame = segment.stat().st_size - header
        monkeypatch.setattr(os, "fdatasync", sync)
        refused, acknowledged = [], []

        def append(number: int) -> None:
            try:
                log.append(0, events(number, 1))
                acknowledged.append(number)
            except EventLogError:
                refused.append(number)

        first = threading.Thread(target=append, args=(1,))
        first.start()
        begun.wait(60)
        others = [threading.Thread(target=append, args=(n,)) for n in (2, 3)]
        for thread in others:
            thread.start()
        while segment.stat().st_size < header + 4 * frame:  # both have written
            first.join(0.002)
        go_on.set()
        for thread in (first, *others):
            thread.join()
        assert sorted(refused + acknowledged) == [1, 2, 3]
        assert 1 in refused
        log.append(0, events(4, 1))
        read = firsts(log)
        assert read[0] == 0 and read[-1] == 4
        assert set(acknowledged) <= set(read)
        assert len(read) == len(set(read))


def test_a_failure_between_two_syncs_reaches_the_next_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fails(handle: int) -> None:
        failed.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log = FolderLog(tmp_path, FolderOptions(fsync="interval", fsync_seconds=0.01))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        log.append(0, events(0, 1))
        failed.wait(60)
        with pytest.raises(EventLogError, match="Input/output error"):
            for i in range(10**6):
                log.append(0, events(1 + i, 1))
    log._failure = None  # of a sync after the one that was reported
    log.append(0, events(10**7, 1))
    log.close()
    with closing(FolderLog(tmp_path)) as again:
        assert firsts(again)[-1] == 10**7
