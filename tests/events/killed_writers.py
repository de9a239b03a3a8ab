"""Writers in processes of their own, killed at random moments, and what they were told."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from embtables.events import EventLog
from tests.contracts.event_log import read_all

PARTITIONS = 2


@dataclass
class Acknowledged:
    """By partition and writer the numbers of the first event of each entry, in order."""

    numbers: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def add(self, partition: int, number: int) -> int:
        with self.turn:
            self.numbers.setdefault((partition, number // 1_000_000), []).append(number)
            return sum(map(len, self.numbers.values()))


def write_and_kill(
    uri: str, rounds: int, writers: int, rng: random.Random, halfway: Callable[[], None] = lambda: None
) -> Acknowledged:
    """Runs writers, each killed after a random number of entries; returns what was acknowledged.

    Args:
        halfway: called once in each round, when all write.
    """
    acknowledged = Acknowledged()
    for turn in range(rounds):
        threads = []
        both = threading.Barrier(writers + 1)
        for writer in range(writers):
            number = turn * writers + writer
            command = [sys.executable, "-m", "tests.events.writing", f"{uri}?partitions={PARTITIONS}", str(number)]
            entries = rng.randint(3, 60)
            threads.append(threading.Thread(target=_run, args=(command, entries, acknowledged, both)))
            threads[-1].start()
        both.wait(120)
        halfway()
        for thread in threads:
            thread.join()
    return acknowledged


def _run(command: list[str], entries: int, acknowledged: Acknowledged, ready: threading.Barrier) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            ready.wait(120)
            for _ in range(entries):
                line = process.stdout.readline()
                assert line, "the writer ended by itself"
                acknowledged.add(*map(int, line.split()))
        finally:
            process.kill()
        # What it was told before it died, and could still say.
        for line in process.stdout:
            if line.endswith("\n"):
                acknowledged.add(*map(int, line.split()))


def check(log: EventLog, acknowledged: Acknowledged, *, once: bool = True) -> int:
    """Asserts that every acknowledged entry is there, in the order of its writer; returns how many entries are.

    Args:
        once: no entry is there twice.
    """
    total = 0
    for partition in range(PARTITIONS):
        found: dict[int, list[int]] = {}
        for entry in read_all(log, partition):
            number = int(entry.events["event_id"][0].as_py()[1:])
            found.setdefault(number // 1_000_000, []).append(number)
            total += 1
        for (where, writer), numbers in acknowledged.numbers.items():
            if where == partition:
                mine = found[writer]
                assert mine == sorted(set(mine)) or not once
                in_order = list(dict.fromkeys(mine))
                assert in_order[: len(numbers)] == numbers
                assert len(in_order) <= len(numbers) + 1  # one may have been on its way
    return total
