"""Fifty kills of the parts of the online loop, over each kind of log: `python -m tests.faults.online.whole_loop`."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from benchmarks import _harness
from embtables.events import open_log
from tests.faults.online import drains, loop, world
from tests.faults.online.loop import LogKind, Part
from tests.faults.run_tables import tables_of

Kills = Mapping[tuple[str, str], int]
"""By log and part."""

_DRAINS = 14  # kills of a trainer that drains a folder, which has to end with the same bits
_LIVE: dict[LogKind, dict[Part, int]] = {
    "folder": {"trainer": 5, "server": 6},
    "redis": {"trainer": 4, "server": 5, "broker": 8},
    "kafka": {"trainer": 4, "server": 4},
}


def kills(folder: Path) -> Kills:
    """Kills all of them; every run has to use every event once. Returns how many of each there were."""
    done: Counter[tuple[str, str]] = Counter()
    folder.mkdir()
    done["folder", "trainer"] += _drained(folder)
    print(f"{_DRAINS} kills of a trainer that drains a log survived", flush=True)
    for kind, parts in _LIVE.items():
        (folder / kind).mkdir()
        order = [part for part, times in parts.items() for _ in range(times)]
        random.Random(kind).shuffle(order)
        loop.survive(folder / kind, kind, order, 1, world.visits(2, 2.0))
        for part in order:
            done[kind, part] += 1
        print(f"{len(order)} kills in a loop over {kind} survived", flush=True)
    return done


def _drained(folder: Path) -> int:
    uri = f"folder://{folder}/events"
    with closing(open_log(f"{uri}?partitions=2")) as log:
        world.append(log, world.in_order(world.visits(0, 5.0)))
        world.end(log)
        (folder / "whole").mkdir()
        whole = drains.drain(world.prepare(folder / "whole", uri))
        drains.assert_used_once(whole, log)
        (folder / "killed").mkdir()
        config = world.prepare(folder / "killed", uri)
        killed = drains.drain(config, _DRAINS, 2 * whole.seconds / _DRAINS, random.Random(0))
        drains.assert_used_once(killed, log)
    assert tables_of(killed.run) == tables_of(whole.run), "the tables differ"
    return killed.kills


def about(done: Kills) -> str:
    """The table, and what it says."""
    parts = ("trainer", "server", "broker")
    rows = [[kind, *(str(done.get((kind, part), 0)) for part in parts)] for kind in _LIVE]
    said = (
        f"{sum(done.values())} SIGKILLs of parts of the online loop at random moments of a world of two minutes: the "
        "trainer with its joiner, the server that takes events and logs what it served, Redis with an append-only "
        f"file. Each event that was acknowledged was used once, counted by its id. {_DRAINS} of them killed a trainer "
        "that drains a folder log: it ended with the bits of one that was not killed. The broker with Kafka's protocol "
        "that the tests have keeps everything in memory, and was not killed."
    )
    return f"{said}\n\n{_harness.table(['event log', *parts], rows)}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(about(kills(Path(name) / "online")))
