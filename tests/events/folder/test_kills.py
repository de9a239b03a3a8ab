"""Several processes append and are killed at random moments, while others read: nothing acknowledged is lost."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from pathlib import Path

import pytest

from embtables.events import open_log
from tests.events.killed_writers import PARTITIONS, check, write_and_kill


@pytest.mark.slow
def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    uri = f"folder://{tmp_path}/log"
    done = threading.Event()
    seen: dict[int, list[str]] = {p: [] for p in range(PARTITIONS)}

    def read_beside() -> None:
        with closing(open_log(f"{uri}?partitions={PARTITIONS}")) as log:
            while not done.is_set():
                log.wait({p: positions[-1] for p, positions in seen.items() if positions}, 0.05)
                for p, positions in seen.items():
                    positions += [e.position for e in log.read(p, positions[-1] if positions else None)]

    reader = threading.Thread(target=read_beside)
    reader.start()
    try:
        acknowledged = write_and_kill(uri, 4, 3, random.Random(0))
    finally:
        done.set()
        reader.join()
    with closing(open_log(uri)) as log:
        assert check(log, acknowledged) >= 4 * 3 * 3
        for partition, positions in seen.items():
            entries = log.read(partition, None, max_entries=10**6)
            assert [entry.position for entry in entries][: len(positions)] == positions
            # And it goes on.
            log.append(partition, entries[0].events)
