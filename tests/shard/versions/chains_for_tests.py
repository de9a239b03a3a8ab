"""Tables of several ranks that are trained a little and write versions together; each rank does its part."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from embtables import CollisionlessTable, Feature, FixedTable, Tables
from embtables.rows.protocol import Capture
from embtables.schema import Adagrad, Adam, Identity, MinCount, RowwiseAdagrad
from embtables.shard.copies import OwnedCapture
from embtables.shard.world import World
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.write.version_writer import VersionWriter
from tests.contents import Arrays, flat
from tests.state.ranks_for_tests import ONE, Batch, Ranks

FIXED_ROWS = 30
IDS = 60
EVERY_ID = np.stack([np.arange(IDS) % most for most in (FIXED_ROWS, IDS, IDS)])


def made() -> Tables:
    """Every kind of file: rows, waiting keys, a sketch, tombstones."""
    configs = [
        FixedTable(name="fixed", dim=4, num_rows=FIXED_ROWS, optimizer=RowwiseAdagrad(learning_rate=0.1)),
        CollisionlessTable(
            name="grows", dim=3, optimizer=Adam(learning_rate=0.1), admission=MinCount(count=2), ttl_seconds=40
        ),
        CollisionlessTable(
            name="counts",
            dim=8,
            optimizer=Adagrad(learning_rate=0.1),
            admission=MinCount(count=2, max_waiting=4000, counting="sketch"),
        ),
    ]
    features = [Feature(name=f"f{n}", table=c.name, encoder=Identity()) for n, c in enumerate(configs)]
    return Tables(configs, features, seed=3)


def batch(step: int) -> Batch:
    """The step's ids and gradients."""
    rng = np.random.default_rng(step)
    ids = np.stack([rng.integers(-1, most, 12) for most in (FIXED_ROWS, IDS, IDS)])
    return Batch(ids, rng.standard_normal((12, 15)).astype(np.float32), (1000 + 10 * step) * 1_000_000)


def train(ranks: Ranks, steps: range) -> None:
    """Some steps; ids that some of them delete."""
    for step in steps:
        ranks.step(batch(step))
        if step % 3 == 2:
            for table, most in enumerate((FIXED_ROWS, IDS, IDS)):
                ranks.delete(table, np.array([step, step + 7]) % most)


def of(world: World) -> Ranks:
    """This rank's tables. They have all rows of the fixed one, and give those that the rank owns."""
    ranks = Ranks(made, [world.buckets()])
    tables, whole = ranks.tables[0], ranks.tables[0].rows.capture

    def capture(table: int, after: int | None, *, weights_only: bool = False) -> Capture:
        found = whole(table, after, weights_only=weights_only)
        is_fixed = isinstance(tables.configs[table], FixedTable)
        return OwnedCapture(found, tables.stored[table].seed, world) if is_fixed else found

    tables.rows.capture = capture  # type: ignore[method-assign]
    return ranks


def holding(world: World, folder: Path) -> AbstractContextManager[LeaseHolder | StateFolder]:
    """The lease at rank 0, the folder elsewhere."""
    state = StateFolder(folder)
    return nullcontext(state) if world.rank else LeaseHolder(state)


def expected(steps: Sequence[int]) -> list[Arrays]:
    """What one process's tables hold after so many steps."""
    one, found, done = Ranks(made, ONE), [], 0
    for end in steps:
        train(one, range(done, end))
        done = end
        found.append(flat(one.tables[0]))
    return found


def loaded(folder: Path, sequence: int) -> Arrays:
    """A version, read by one process."""
    one, state = Ranks(made, ONE), StateFolder(folder)
    one.load(state, state.chain("resume", sequence))
    return flat(one.tables[0])


def write(world: World, folder: Path, ends: Sequence[int], **options: Any) -> list[str]:
    """Goes on from the newest version, with one after each of these numbers of steps. What failed."""
    ranks, state = of(world), StateFolder(folder)
    with holding(world, folder) as held:
        chain = VersionWriter(held, "resume", ranks.tables[0], world=world, keep=100, **options)
        numbers, done = state.sequences("resume"), 0
        if numbers:
            versions = state.chain("resume", numbers[-1])
            ranks.load(state, versions)
            chain.go_on_from(versions)
            done = int(versions[-1].content["steps"])
        for end in ends:
            train(ranks, range(done, end))
            done = end
            # Rank 0's word counts for what lies with no rank.
            chain.cut({"dense": np.full(3, end + 100 * world.rank)}, {"steps": end + 100 * world.rank})
        chain.wait()
        chain.close()
        return [str(error) for error in chain.failures]
