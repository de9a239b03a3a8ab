"""Readers beside the thread that follows: dense weights of one version, rows whole and not older than it says."""

from __future__ import annotations

import threading
from pathlib import Path

from embtables.serving.versions.live import Live
from tests.serving.versions.numbered import assert_numbered, number_of, publish_number
from tests.serving.versions.test_follow import Follow
from tests.serving.versions.trainer_for_tests import trainer

VERSIONS = 40


class Readers:
    """Threads that read what answers, over and over."""

    def __init__(self, live: Live, threads: int = 3) -> None:
        self._live = live
        self.reads, self.seen = 0, set[str]()
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                version = self._live.current
                assert version is not None
                assert_numbered(version, VERSIONS)
                self.seen.add(version.name)
                self.reads += 1
        except BaseException as error:
            self.errors.append(error)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def test_no_reader_ever_sees_a_mix(tmp_path: Path, follow: Follow) -> None:
    """Deltas, tombstones, snapshots and roll backs meanwhile."""
    with trainer(tmp_path) as made:
        publish_number(made, 1)
        follows = follow(tmp_path)
        assert_numbered(follows.until("serving-1"))
        readers = Readers(follows.live)
        try:
            for number in range(2, VERSIONS):
                name = publish_number(made, number, snapshot=number % 11 == 0)
                version = follows.until(name)
                assert number_of(version.row_version) == number
                assert_numbered(version)
                if number % 8 == 0:
                    follows.roll_back()
                    assert follows.live.current is not None
                    assert_numbered(follows.live.current)
                    follows.following.follow()
                    assert_numbered(follows.until(name))
                assert not readers.errors
        finally:
            readers.stop()
    assert readers.reads > VERSIONS
    assert len(readers.seen) > VERSIONS / 4
    assert sum(follows.following.info().rejected.values()) == 0
