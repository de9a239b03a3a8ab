"""Trainer, server and broker of the online loop are killed: every event is used once, and none that was acknowledged
is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from embtables.events import open_log
from tests.faults.online import drains, loop, world
from tests.faults.online.loop import LogKind, Part
from tests.faults.run_tables import tables_of

# A part of what `make crash` does.


@pytest.mark.slow
def test_a_trainer_that_is_killed_while_it_drains_ends_with_the_same_bits(tmp_path: Path) -> None:
    uri = f"folder://{tmp_path}/events"
    with closing(open_log(f"{uri}?partitions=2")) as log:
        world.append(log, world.in_order(world.visits(0, 2.0, 30.0)))
        world.end(log)
        (tmp_path / "whole").mkdir()
        whole = drains.drain(world.prepare(tmp_path / "whole", uri))
        joined = drains.assert_used_once(whole, log)
        assert joined.counts["late_positives"] > 0
        assert len(joined.set_aside) > 0
        (tmp_path / "killed").mkdir()
        config = world.prepare(tmp_path / "killed", uri)
        killed = drains.drain(config, 3, whole.seconds / 2, random.Random(5))
        assert killed.kills == 3
        drains.assert_used_once(killed, log)
    assert tables_of(killed.run) == tables_of(whole.run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kills"), [("folder", ["server", "trainer"]), ("redis", ["broker", "trainer", "server"])]
)
def test_parts_of_the_loop_are_killed_while_it_runs(tmp_path: Path, kind: LogKind, kills: Sequence[Part]) -> None:
    loop.survive(tmp_path, kind, kills, 3, world.visits(1, 1.0, 30.0))
