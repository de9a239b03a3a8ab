"""Figures of a version against what the tables themselves hold, and what was put into them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchrec import KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, FixedTable, Tables
from embtables.errors import StateError
from embtables.ids import make_encoder
from embtables.schema import Adagrad, Adam, Hash, Identity, MinCount, MultiHash, RowwiseAdagrad, Sgd
from embtables.state.folder.version_folder import StateFolder
from embtables.state.tools.collisions import estimated_collisions
from embtables.state.tools.figures import TableFigures, figures_of
from embtables.state.tools.histograms import Distribution
from tests.faults.driver import run
from tests.state.versions_for_tests import open_chain, write

STEPS, START = 12, 1_600_000_000
CONFIGS = (
    FixedTable(name="hashed", dim=4, num_rows=512, optimizer=RowwiseAdagrad(learning_rate=0.1)),
    FixedTable(name="indexed", dim=1, num_rows=200, optimizer=Adagrad(learning_rate=0.1)),
    FixedTable(name="several", dim=3, num_rows=512, optimizer=Adam(learning_rate=0.1)),
    CollisionlessTable(name="kept", dim=5, optimizer=Sgd(learning_rate=0.1)),
    CollisionlessTable(
        name="forgets", dim=2, optimizer=Adagrad(learning_rate=0.1), ttl_seconds=7200, max_rows=90, cold_row="trained"
    ),
    CollisionlessTable(
        name="admits", dim=2, optimizer=Adagrad(learning_rate=0.1), admission=MinCount(count=4, max_waiting=5000)
    ),
    CollisionlessTable(name="mixed", dim=2, optimizer=Sgd(learning_rate=0.1)),
)
FEATURES = (
    Feature(name="f0", table="hashed"),
    Feature(name="f1", table="indexed", encoder=Identity()),
    Feature(name="f2", table="several", encoder=MultiHash(num_hashes=2)),
    Feature(name="f3", table="kept", encoder=Hash(seed=9)),
    Feature(name="f4", table="forgets", encoder=Identity()),
    Feature(name="f5", table="admits"),
    Feature(name="f6", table="mixed"),
    Feature(name="f7", table="mixed", encoder=Hash(seed=1)),
)


def batches() -> list[np.ndarray]:
    """Ids of each step: skewed, so that some are seen often and some hardly ever."""
    return [np.minimum(np.random.default_rng(n).geometric(0.02, 80) + 3 * n, 199) for n in range(STEPS)]


def train(folder: Path) -> Tables:
    """A snapshot and two deltas that know how the tables were configured."""
    tables = Tables(CONFIGS, FEATURES, seed=3)
    view, state = EmbeddingBagCollection.over(tables), StateFolder(folder)
    schema = {"tables": [c.model_dump(mode="json") for c in CONFIGS], "features": [f.model_dump() for f in FEATURES]}
    with open_chain(state, tables, keep=100) as chain:
        for step, ids in enumerate(batches()):
            tables.advance(torch.full((80,), (START + 1000 * step) * 1_000_000))
            all_ids = torch.from_numpy(np.tile(ids, len(FEATURES)))
            batch = KeyedJaggedTensor([f.name for f in FEATURES], all_ids, lengths=torch.ones(len(all_ids)).int())
            out = view(batch).values()
            out.backward(torch.from_numpy(np.random.default_rng(step).standard_normal(out.shape).astype(np.float32)))
            tables.step()
            if step % 4 == 3:
                chain.cut({}, {"schema": schema, "state": {"step": step + 1}})
    return tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, dict[str, TableFigures]]:
    folder = tmp_path_factory.mktemp("state")
    tables, state = train(folder), StateFolder(folder)
    return tables, {f.table: f for f in figures_of(state, state.chain("resume", 3), [], 6)}


def assert_of(found: Distribution | None, values: np.ndarray) -> None:
    """Every value is in the one bin that says so, and quantiles are values of that rank."""
    assert found is not None
    ordered = sorted(values.tolist())
    assert found.quantiles["least"] == pytest.approx(ordered[0])
    assert found.quantiles["p50"] == pytest.approx(ordered[(len(ordered) + 1) // 2 - 1])
    assert found.quantiles["greatest"] == pytest.approx(ordered[-1])
    ends = [bin_.end for bin_ in found.bins]
    assert [bin_.start for bin_ in found.bins[1:]] == ends[:-1]
    last = len(found.bins) - 1
    for number, bin_ in enumerate(found.bins):
        closed = number == last and isinstance(bin_.end, float)
        inside = [v for v in ordered if bin_.start <= v < bin_.end or (closed and v == bin_.end)]
        assert bin_.rows == len(inside)
    assert sum(bin_.rows for bin_ in found.bins) == len(values)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_figures_are_those_of_the_tables(config: Any, made: tuple[Tables, dict[str, TableFigures]]) -> None:
    tables, figures = made
    found, content = figures[config.name], tables.content()[config.name]
    fixed = isinstance(config, FixedTable)
    assert (found.kind, found.dim, found.optimizer) == (config.kind, config.dim, config.optimizer.kind)
    assert found.features == tuple(f.name for f in FEATURES if f.table == config.name)
    assert (found.now, found.steps, found.updates) == (content.now, content.steps, content.updates)
    assert found.rows == len(content.keys)
    norms = np.linalg.norm(content.columns["weight"].astype(np.float64), axis=1)
    assert_of(found.norm, norms)
    assert_of(found.count, content.counts)
    assert found.never_updated == np.mean(content.counts == 0)
    if fixed:
        assert found.age is None
        assert found.admission is None
    else:
        assert_of(found.age, content.now - content.seen.astype(np.int64))
    sizes = {"keys": content.keys.nbytes, **{name: values.nbytes for name, values in content.columns.items()}}
    assert {name: found.bytes_by_part[name] for name in sizes} == sizes
    order = sorted(range(found.rows), key=lambda at: (-int(content.counts[at]), int(content.keys[at])))[:6]
    assert [(top.key, top.count) for top in found.top] == [(content.keys[at], content.counts[at]) for at in order]
    assert [top.norm for top in found.top] == pytest.approx([norms[at] for at in order])


def test_top_rows_have_the_ids_that_were_seen_most(made: tuple[Tables, dict[str, TableFigures]]) -> None:
    figures, seen = made[1], Counter(np.concatenate(batches()).tolist())
    for name in ("kept", "indexed"):
        found = {top.id: top.count for top in figures[name].top}
        assert list(found.values()) == [count for _, count in seen.most_common(6)]
        assert found == {key: seen[key] for key in found if key is not None}
    for name in ("hashed", "several", "mixed"):
        assert {top.id for top in figures[name].top} == {None}


def test_admission_and_eviction(made: tuple[Tables, dict[str, TableFigures]]) -> None:
    figures = made[1]
    forgets, admits = figures["forgets"].admission, figures["admits"].admission
    assert forgets is not None
    assert admits is not None
    assert figures["forgets"].age is not None
    assert figures["forgets"].age.unit == "seconds"
    assert figures["admits"].age is not None
    assert figures["admits"].age.unit == "steps"
    assert forgets.full == figures["forgets"].rows / 90
    # A key that was in an earlier version and is not in this one was lost in between.
    assert forgets.lost_in_chain >= (forgets.lost or 0) > 0
    seen = Counter(np.concatenate(batches()).tolist())
    few = [count for count in seen.values() if count < 4]
    assert admits.waiting == len(few) > 0
    assert_of(admits.waiting_counts, np.array(few))
    assert figures["admits"].rows == len(seen) - len(few)
    assert figures["admits"].bytes_by_part["waiting"] == 16 * len(few)
    assert admits.policy is not None
    assert admits.policy["admission"] == {"kind": "min_count", "count": 4, "max_waiting": 5000, "counting": "exact"}
    assert admits.lost_in_chain == 0


def test_rows_past_their_ttl_that_were_not_swept_are_counted(tmp_path: Path) -> None:
    train(tmp_path)
    state = StateFolder(tmp_path)
    found = figures_of(state, state.chain("resume", 3), ["forgets"], 0)[0]
    assert found.admission is not None
    assert found.age is not None
    past = sum(bin_.rows for bin_ in found.age.bins if bin_.start > 7200)
    assert found.admission.past_ttl is not None
    assert found.admission.past_ttl >= past
    assert (found.admission.past_ttl > 0) == (found.age.quantiles["greatest"] > 7200)
    assert found.top == ()


def test_collisions_of_ids_that_are_hashed_are_estimated(made: tuple[Tables, dict[str, TableFigures]]) -> None:
    figures, ids = made[1], np.unique(np.concatenate(batches()))
    assert figures["kept"].collisions is None
    indexed = figures["indexed"].collisions
    assert indexed is not None
    assert (indexed.estimated, indexed.ids, indexed.sharing_a_row) == (False, len(ids), 0.0)
    for name in ("hashed", "several"):
        found = figures[name].collisions
        assert found is not None
        assert found.estimated
        assert found.ids == pytest.approx(len(ids), rel=0.1)


@pytest.mark.parametrize("hashes", [1, 2, 4])
@pytest.mark.parametrize("num_ids", [1, 5000, 30_000, 120_000])
def test_the_estimate_is_near_what_the_encoders_do(hashes: int, num_ids: int) -> None:
    encoder, num_rows = Hash(seed=4) if hashes == 1 else MultiHash(num_hashes=hashes), 2**16
    ids = np.random.default_rng(num_ids).integers(-(2**63), 2**63 - 1, num_ids)
    rows = make_encoder(encoder, num_rows).encode(ids).reshape(num_ids, hashes)
    # An id that has a row twice shares it with nobody by that.
    owners = np.unique(np.stack([rows.ravel(), np.arange(num_ids).repeat(hashes)]), axis=1)[0]
    shared = np.bincount(owners, minlength=num_rows)[rows] > 1
    found = estimated_collisions(num_rows, len(np.unique(rows)), hashes)
    assert found.ids == pytest.approx(num_ids, rel=0.06)
    assert found.sharing_a_row == pytest.approx(shared.any(axis=1).mean(), abs=0.025)
    assert found.sharing_every_row == pytest.approx(shared.all(axis=1).mean(), abs=0.025)


def test_a_table_without_a_free_row_gives_no_number_of_ids() -> None:
    full = estimated_collisions(4, 4, 1)
    assert (full.occupied, full.ids, full.sharing_a_row, full.sharing_every_row) == (4, None, None, None)
    assert estimated_collisions(4, 0, 1).ids == 0.0


def test_rows_lost_and_found_again_along_a_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embtables.state.tools.live_rows._NORM_VALUES", 8)  # two rows of three values at once
    rows = run(tmp_path, 5)
    state = StateFolder(tmp_path)
    chain = state.chain("resume", 5)
    assert len(chain) == 3
    found = figures_of(state, chain, [], 100)[0]
    assert {top.key: top.count for top in found.top} == rows.counts
    norms = {key: np.linalg.norm(weight.astype(np.float64)) for key, weight in rows.weights.items()}
    assert {top.key: top.norm for top in found.top} == pytest.approx(norms)
    assert found.admission is not None
    assert found.admission.policy is None
    gone = [m.files[name].rows or 0 for m in chain for name in m.files if ".tombstones." in name]
    assert found.admission.lost_in_chain == sum(gone) > 0


def test_a_version_without_a_schema_reports_what_its_files_hold(tmp_path: Path) -> None:
    tables, chain = write(tmp_path, 2)
    figures = {f.table: f for f in figures_of(StateFolder(tmp_path), chain, [], 3)}
    assert {name: f.kind for name, f in figures.items()} == {
        "fixed": "fixed",
        "grows": "collisionless",
        "counts": "collisionless",
    }
    assert {f.collisions for f in figures.values()} == {None}
    assert figures["counts"].bytes_by_part["sketch"] >= tables.content()["counts"].sketch.nbytes
    assert {top.id for f in figures.values() for top in f.top} == {None}


def test_what_cannot_be_reported_is_refused(tmp_path: Path) -> None:
    _, chain = write(tmp_path, 2)
    state = StateFolder(tmp_path)
    with pytest.raises(StateError, match="version resume-2: has no table 'nope'; it has: counts, fixed, grows"):
        figures_of(state, chain, ["nope"], 3)
    broken = chain[-1].model_copy(update={"content": {"schema": {"tables": [{"name": "fixed"}], "features": []}}})
    with pytest.raises(StateError, match="version resume-2: this build cannot read its schema: "):
        figures_of(state, [chain[0], broken], [], 3)
    file = next((tmp_path / "versions").glob("resume-0000000001-*/grows.rows.0.arrow"))
    raw = bytearray(file.read_bytes())
    raw[-2000] ^= 1
    file.write_bytes(raw)
    with pytest.raises(StateError, match=r"grows.rows.0.arrow: is damaged: its checksum"):
        figures_of(state, chain, ["grows"], 3)


def test_a_weight_that_is_not_finite_is_reported_and_left_out(tmp_path: Path) -> None:
    folder, tables = tmp_path, Tables(CONFIGS[:1], FEATURES[:1], seed=3)
    weight = tables.weight("hashed")
    weight[7, 1], weight[9, 2] = float("nan"), float("inf")
    tables.rows.write(0, "weight", torch.arange(len(weight)), weight)  # `set_weight` refuses them
    state = StateFolder(folder)
    with open_chain(state, tables) as chain:
        chain.cut({}, {})
    found = figures_of(state, state.chain("resume", 1), [], 3)[0]
    assert found.not_finite == 2
    assert sum(bin_.rows for bin_ in found.norm.bins) == 510
    assert np.isfinite(list(found.norm.quantiles.values())).all()


def test_counts_that_the_row_store_did_not_keep_are_not_reported_as_nothing(tmp_path: Path) -> None:
    tables, state = Tables(CONFIGS[:1], FEATURES[:1], seed=3, row_store="reference"), StateFolder(tmp_path)
    view = EmbeddingBagCollection.over(tables)
    view(KeyedJaggedTensor(["f0"], torch.arange(9), lengths=torch.ones(9).int())).values().sum().backward()
    tables.step()
    with open_chain(state, tables) as chain:
        chain.cut({}, {})
    found = figures_of(state, state.chain("resume", 1), [], 3)[0]
    assert (found.count, found.never_updated, found.top) == (None, None, ())
