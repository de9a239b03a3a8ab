"""Small versions for the tests of state: real tables, trained a little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchrec import KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, FixedTable, Tables
from embtables.schema import Adagrad, Adam, DenseDecay, MinCount, RowwiseAdagrad
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.read.rows import read_rows
from embtables.state.read.saved_version import find_version
from embtables.state.write.version_writer import VersionWriter

# Two tables of which all rows decay: their files hold weights at a scale.
FIXED = FixedTable(
    name="fixed",
    dim=4,
    num_rows=60,
    optimizer=RowwiseAdagrad(learning_rate=0.1, weight_decay=DenseDecay(rate=0.5)),
)
GROWS = CollisionlessTable(
    name="grows",
    dim=3,
    optimizer=Adam(learning_rate=0.1, weight_decay=DenseDecay(rate=0.2)),
    admission=MinCount(count=2),
    max_rows=40,
    cold_row="trained",
)
COUNTS = CollisionlessTable(
    name="counts",
    dim=8,
    optimizer=Adagrad(learning_rate=0.1),
    admission=MinCount(count=2, max_waiting=2000, counting="sketch"),
)


def tables(seed: int = 3, **changes: Any) -> Tables:
    """A fixed and two collisionless tables: waiting keys, a sketch, evictions, every kind of optimizer state."""
    configs = [FIXED, GROWS, COUNTS]
    features = [Feature(name=f"f{n}", table=config.name) for n, config in enumerate(configs)]
    return Tables(configs, features, seed=seed, **changes)


def train(made: Tables, steps: range) -> None:
    """Steps on random ids, the same for the same numbers."""
    view = EmbeddingBagCollection.over(made)
    for step in steps:
        rng = np.random.default_rng(step)
        ids = torch.from_numpy(rng.integers(0, 150, 60))
        out = view(KeyedJaggedTensor(["f0", "f1", "f2"], ids, lengths=torch.full((60,), 1))).values()
        out.backward(torch.from_numpy(rng.standard_normal(out.shape).astype(np.float32)))
        made.step()


@contextmanager
def open_chain(state: StateFolder, made: Tables, **options: Any) -> Iterator[VersionWriter]:
    """A chain of `resume` versions under a writer of its own. What was cut is on the disk at the end."""
    with LeaseHolder(state) as writer:
        chain = VersionWriter(writer, "resume", made, **options)
        yield chain
        chain.wait()
        chain.close()


def write(folder: Path, cuts: int, **options: Any) -> tuple[Tables, list[Manifest]]:
    """A chain of versions, five steps between them; the tables as the last one has them."""
    made, state = tables(), StateFolder(folder)
    with open_chain(state, made, keep=100, **options) as chain:
        for cut in range(cuts):
            train(made, range(5 * cut, 5 * cut + 5))
            chain.cut({"dense": np.arange(cut, cut + 4.0)}, {"schema": {"a": 1}, "step": cut})
    return made, [state.manifest("resume", number) for number in state.sequences("resume")]


def weights_by_key(state: StateFolder, version: str, table: str) -> dict[int, list[float]]:
    """The weights of a table in a version, as whoever reads its files sees them."""
    batches = read_rows(find_version(state, version), table, ["key", "weight"])
    return {row["key"]: row["weight"] for batch in batches for row in batch.to_pylist()}


def rows_of(state: StateFolder, version: str) -> dict[str, dict[int, bytes]]:
    """The weights of all tables in a version, bit for bit."""
    found = {}
    for table in find_version(state, version).tables:
        weights = weights_by_key(state, version, table)
        found[table] = {key: np.array(row, np.float32).tobytes() for key, row in weights.items()}
    return found
