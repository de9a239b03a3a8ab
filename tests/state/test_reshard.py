"""A state written at any number of ranks is the same state at any other: no key lost, every bit as in one process."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embtables import CollisionlessTable, Feature, FixedTable, Tables
from embtables.errors import StateError
from embtables.keyspace import Keys, buckets_of
from embtables.rows.content import restrict
from embtables.schema import Adagrad, Adam, DenseDecay, Identity, MinCount, Probability, RowwiseAdagrad, Sgd
from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
from embtables.state.format import checksums
from embtables.state.format.manifest import Manifest
from embtables.state.read.version_reader import read_version
from embtables.state.write.ranks import RankPart
from tests.contents import flat, flat_content, same
from tests.state.ranks_for_tests import ONE, Batch, Ranks, ranges, write_parts
from tests.state.versions_for_tests import tables, train

WORLDS = (1, 3, 2, 5, 1)
FIXED_ROWS = 30
IDS = 60
B = 12

rates = st.sampled_from([0.05, 0.5])
optimizers = st.one_of(
    st.builds(Sgd, learning_rate=rates),
    st.builds(Adagrad, learning_rate=rates),
    st.builds(RowwiseAdagrad, learning_rate=rates),
    st.builds(Adam, learning_rate=rates),
    st.builds(Adam, learning_rate=rates, weight_decay=st.just(DenseDecay(rate=1.9))),
)
admissions = st.one_of(
    st.none(),
    st.builds(MinCount, count=st.integers(1, 3)),
    st.builds(MinCount, count=st.sampled_from([2, 16]), max_waiting=st.just(4000), counting=st.just("sketch")),
    st.builds(Probability, probability=st.just(0.5)),
)
# Of what a table may hold at most each rank would have its own share, and a trained cold row the ranks would have to
# sum the gradients of: both are left to training at several ranks.
grown = st.builds(
    CollisionlessTable,
    name=st.just("grown"),
    dim=st.sampled_from([1, 3, 8]),
    optimizer=optimizers,
    admission=admissions,
    ttl_seconds=st.none() | st.sampled_from([5, 40]),
)
fixed = st.builds(
    FixedTable, name=st.just("fixed"), dim=st.sampled_from([2, 4]), num_rows=st.just(FIXED_ROWS), optimizer=optimizers
)


@dataclass
class Stage:
    """At one number of ranks: the steps, and whether a delta or a snapshot follows."""

    world: int
    steps: int
    whole: bool
    deletes: bool


def stages(world: int) -> st.SearchStrategy[Stage]:
    return st.builds(Stage, st.just(world), st.integers(0, 4), st.booleans(), st.booleans())


def edges(keys: Keys, seed: int) -> Keys:
    """Buckets at which a range can begin so that some key is the last or the first one's of a rank."""
    buckets = np.unique(buckets_of(keys, seed)).astype(np.int64)
    around = np.unique(np.concatenate([buckets, buckets + 1]))
    return around[(around > 0) & (around < 1024)]


def batch(rng: np.random.Generator, width: int, time: int) -> Batch:
    ids = np.stack([rng.integers(-1, most, B) for most in (IDS, FIXED_ROWS)])
    return Batch(ids, rng.standard_normal((B, width)).astype(np.float32), time * 1_000_000)


@settings(max_examples=15, deadline=None)
@example(
    CollisionlessTable(name="grown", dim=1, optimizer=Sgd(learning_rate=0.05), ttl_seconds=5),
    FixedTable(name="fixed", dim=2, num_rows=FIXED_ROWS, optimizer=Sgd(learning_rate=0.05)),
    (*(Stage(world, 0, False, False) for world in WORLDS[:-1]), Stage(1, 1, False, False)),
    0,
    "reference",  # counts nothing: a table with a ttl goes on all the same
)
@given(
    grown,
    fixed,
    st.tuples(*map(stages, WORLDS)),
    st.integers(0, 2**32),
    st.sampled_from(["host", "host", "reference"]),
)
def test_any_number_of_ranks_goes_on_from_any_other(
    table: CollisionlessTable, second: FixedTable, plan: tuple[Stage, ...], seed: int, store: Any
) -> None:
    def made() -> Tables:
        features = [Feature(name=f"f{n}", table=name, encoder=Identity()) for n, name in enumerate(("grown", "fixed"))]
        return Tables([table, second], features, seed=seed, row_store=store)

    rng, now, parent = np.random.default_rng(seed), 1000, None
    every_id = np.stack([np.arange(IDS), np.arange(IDS) % FIXED_ROWS])
    one = Ranks(made, ONE)
    # Blocks so small that ranks read parts of files.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksums, "BLOCK", 256)
        state = StateFolder(Path(folder))
        with LeaseHolder(state) as writer:
            for stage in plan:
                stored = one.tables[0].stored[int(rng.integers(2))]
                cuts = rng.choice(edges(every_id[0], stored.seed), stage.world - 1, replace=False)
                many = Ranks(made, ranges(cuts.tolist()))
                if parent is not None:
                    many.load(state, state.chain("resume", parent))
                for _ in range(stage.steps):
                    now += int(rng.integers(0, 20))
                    step = batch(rng, table.dim + second.dim, now)
                    assert many.step(step).equal(one.step(step))
                if stage.deletes:
                    gone = rng.integers(0, IDS, 6)
                    for ranks in (many, one):
                        ranks.delete(0, gone)
                        ranks.delete(1, gone % FIXED_ROWS)
                parent = many.write(writer, None if stage.whole else parent).sequence
                assert many.read(every_id).equal(one.read(every_id))
                last = Ranks(made, ONE)
                last.load(state, state.chain("resume", parent))
                assert same(flat(last.tables[0]), flat(one.tables[0]))


def parts_of(made: Tables, cuts: list[int]) -> list[RankPart]:
    contents, seeds = made.content(), {table.config.name: table.seed for table in made.stored}
    return [
        RankPart(owned, {name: restrict(content, seeds[name], owned) for name, content in contents.items()})
        for owned in ranges(cuts)
    ]


def commit(folder: Path, made: Tables, parts: list[RankPart]) -> tuple[StateFolder, Manifest]:
    state = StateFolder(folder)
    with LeaseHolder(state) as writer:
        return state, write_parts(writer, VersionKind("resume"), made.stored, parts)


def test_each_rank_reads_what_it_owns_of_every_kind_of_table(tmp_path: Path) -> None:
    """Limits, cold rows that are trained: split from one process, read at other ranges, and joined again."""
    made = tables()
    train(made, range(8))
    seeds = {table.config.name: table.seed for table in made.stored}
    # Each range ends with the bucket of some key; the same lie elsewhere in the ranges that are read.
    held = np.unique(buckets_of(made.content()["grows"].keys, seeds["grows"])).tolist()
    written = ranges([held[5] + 1, held[20] + 1])
    state, version = commit(tmp_path, made, parts_of(made, [end for _, end in written[:-1]]))
    assert [version.files[f"grows.rows.{rank}.arrow"].buckets for rank in range(3)] == written
    read = []
    for owned in ranges([1, held[5], held[21] + 1, 1023]):
        part = read_version(state, version, made.stored, owned)
        for name, content in made.content().items():
            assert same(flat_content(part.tables[name]), flat_content(restrict(content, seeds[name], owned)))
        read.append(RankPart(owned, part.tables))
    state, again = commit(tmp_path / "again", made, read)
    other = tables()
    other.load([read_version(state, again, made.stored).tables])
    assert same(flat(other), flat(made))
    assert all(part.tables["grows"].cold["weight"].any() for part in read)


@pytest.mark.parametrize("shared", ["now", "steps", "updates", "scale", "cold", "sketch"])
def test_ranks_that_did_not_step_together_make_no_version(tmp_path: Path, shared: str) -> None:
    made = tables()
    train(made, range(3))
    parts = parts_of(made, [512])
    content = parts[1].tables["counts"]
    if shared == "cold":
        content.cold = {name: values + 1 for name, values in content.cold.items()}
        text = r"table counts: rank 1 has another cold row \(sum\) than rank 0"
    elif shared == "sketch":
        content.sketch = content.sketch[:0]
        text = "table counts: rank 1 counts its waiting keys in another way than rank 0"
    elif shared == "scale":
        content.scale = 0.5
        text = "table counts: rank 1 has scale 0.5, rank 0 has 1.0: ranks step together"
    else:
        text = (
            f"table counts: rank 1 has {shared} {getattr(content, shared) + 1}, rank 0 has {getattr(content, shared)}"
        )
        setattr(content, shared, getattr(content, shared) + 1)
    with pytest.raises(StateError, match=text):
        commit(tmp_path, made, parts)
    assert StateFolder(tmp_path).sequences("resume") == []


def test_ranks_own_each_bucket_once_and_hold_their_own_keys(tmp_path: Path) -> None:
    made = tables()
    train(made, range(3))
    first, second = parts_of(made, [512])
    swapped = RankPart((512, 1024), first.tables)
    for parts, text in (
        ([first], "the 1 ranks end at bucket 512, expected 1024"),
        ([second, first], "rank 0 has the buckets 512..1024, expected a range that begins at 0"),
        ([first, first, second], "rank 1 has the buckets 0..512, expected a range that begins at 512"),
        (parts_of(made, [512, 512]), "rank 1 has the buckets 512..512"),
        (
            [first, swapped],
            r"table fixed, rank 1: key \d+ is of bucket \d+, expected 512..1023",
        ),
    ):
        with pytest.raises(StateError, match=text):
            commit(tmp_path, made, parts)
    assert StateFolder(tmp_path).sequences("resume") == []
