"""The contract of every row store, against one-row-at-a-time arithmetic in float64.

A store's test file subclasses `RowStoreContract` and says how to build it. What a store cannot do it declares by its
abilities; the contract then asserts that asking for it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from embtables.errors import ConfigError
from embtables.rows.initial import initial_rows
from embtables.rows.protocol import Ability, Lookup, RowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import Adagrad, Adam, FixedTable, Normal, Optimizer, RowwiseAdagrad, Sgd
from tests.contracts.single import gather, train_rows

OPTIMIZERS: list[Optimizer] = [
    Sgd(learning_rate=0.1),
    Adagrad(learning_rate=0.1),
    RowwiseAdagrad(learning_rate=0.1),
    Adam(learning_rate=0.01),
    Sgd(learning_rate=0.1, weight_decay=0.01),
    RowwiseAdagrad(learning_rate=0.1, weight_decay=0.01),
    Adam(learning_rate=0.01, weight_decay=0.01),
]
TABLES = (0, 1, 0, 2)  # two features share the first table


def tables(optimizer: Optimizer, dims: Sequence[int] = (8, 8, 4)) -> list[StoredTable]:
    return [
        StoredTable(
            FixedTable(name=f"t{i}", dim=d, num_rows=9 + i, optimizer=optimizer, initializer=Normal(std=0.5)), i
        )
        for i, d in enumerate(dims)
    ]


class Naive:
    """Rows as lists of floats, one at a time, straight from the formulas."""

    def __init__(self, stored: list[StoredTable]) -> None:
        self.stored = stored
        self.rows = {
            (t, k): initial_rows(s.config.initializer, s.seed, np.array([k]), s.config.dim)[0].astype(np.float64)
            for t, s in enumerate(stored)
            for k in range(s.config.num_rows)
        }
        self.state: dict[tuple[int, int], list[np.ndarray]] = {}
        self.steps = 0

    def pooled(self, batch: list[list[list[tuple[int, float]]]]) -> np.ndarray:
        """batch[feature][row] is a list of (key, weight)."""
        columns = []
        for feature, rows in enumerate(batch):
            dim = self.stored[TABLES[feature]].config.dim
            columns.append(
                np.stack([sum((w * self.rows[TABLES[feature], k] for k, w in row), np.zeros(dim)) for row in rows])
            )
        return np.concatenate(columns, axis=1)

    def gradients(
        self, batches: list[tuple[list[list[list[tuple[int, float]]]], np.ndarray]]
    ) -> dict[tuple[int, int], np.ndarray]:
        total: dict[tuple[int, int], np.ndarray] = {}
        for batch, gradient in batches:
            start = 0
            for feature, rows in enumerate(batch):
                dim = self.stored[TABLES[feature]].config.dim
                for b, row in enumerate(rows):
                    for k, w in row:
                        at = (TABLES[feature], k)
                        total[at] = total.get(at, np.zeros(dim)) + w * gradient[b, start : start + dim]
                start += dim
        return total

    def update(self, total: dict[tuple[int, int], np.ndarray], factor: float, scale: float) -> None:
        self.steps += 1
        for at, summed in total.items():
            o = self.stored[at[0]].config.optimizer
            w, lr = self.rows[at], o.learning_rate * factor
            g = summed * scale + o.weight_decay * w
            if isinstance(o, Sgd):
                self.rows[at] = w - lr * g
            elif isinstance(o, Adagrad):
                s = self.state.setdefault(at, [np.zeros_like(w)])
                s[0] = s[0] + g * g
                self.rows[at] = w - lr * g / (np.sqrt(s[0]) + o.eps)
            elif isinstance(o, RowwiseAdagrad):
                s = self.state.setdefault(at, [np.zeros(1)])
                s[0] = s[0] + (g * g).mean()
                self.rows[at] = w - lr * g / (np.sqrt(s[0]) + o.eps)
            else:
                assert isinstance(o, Adam)
                m = self.state.setdefault(at, [np.zeros_like(w), np.zeros_like(w)])
                m[0] = o.beta1 * m[0] + (1 - o.beta1) * g
                m[1] = o.beta2 * m[1] + (1 - o.beta2) * g * g
                mean, var = m[0] / (1 - o.beta1**self.steps), m[1] / (1 - o.beta2**self.steps)
                self.rows[at] = w - lr * mean / (np.sqrt(var) + o.eps)


def random_batch(rng: np.random.Generator, stored: list[StoredTable], rows: int) -> list[list[list[tuple[int, float]]]]:
    return [
        [
            [
                (int(rng.integers(stored[t].config.num_rows)), float(rng.uniform(-1, 2)))
                for _ in range(rng.integers(0, 4))
            ]
            for _ in range(rows)
        ]
        for t in TABLES
    ]


def lookup(batch: list[list[list[tuple[int, float]]]], *, weighted: bool = True) -> Lookup:
    flat = [pair for feature in batch for row in feature for pair in row]
    lengths = [len(row) for feature in batch for row in feature]
    keys = torch.tensor([k for k, _ in flat], dtype=torch.int64)
    weights = torch.tensor([w for _, w in flat], dtype=torch.float32) if weighted else None
    offsets = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64)
    return Lookup(tuple(range(len(TABLES))), keys, offsets, weights, len(batch[0]))


class RowStoreContract:
    """Subclass and define `build`."""

    def build(self, stored: list[StoredTable], feature_tables: Sequence[int]) -> RowStore:
        raise AssertionError("define build")

    def supported(self, store_abilities: frozenset[Ability], optimizer: Optimizer) -> bool:
        if isinstance(optimizer, Adam) and Ability.ADAM not in store_abilities:
            return False
        return optimizer.weight_decay == 0.0 or Ability.WEIGHT_DECAY in store_abilities

    @property
    def abilities(self) -> frozenset[Ability]:
        return self.build(tables(Sgd(learning_rate=0.1)), TABLES).abilities

    @pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o.kind}-{o.weight_decay}")
    def test_fifty_steps_follow_the_formulas(self, optimizer: Optimizer) -> None:
        stored = tables(optimizer)
        if not self.supported(self.abilities, optimizer):
            with pytest.raises(ConfigError, match="table t0"):
                self.build(stored, TABLES)
            return
        store, naive = self.build(stored, TABLES), Naive(stored)
        rng = np.random.default_rng(7)
        for step in range(50):
            batches = []
            factor, scale = (0.5, 1.0) if step % 2 else (1.0, 0.7)
            if step % 4 < 2:
                store.set_learning_rate_factor(factor)
            # Every third step holds two lookups: duplicates across them must be summed too.
            for _ in range(2 if step % 3 == 0 else 1):
                batch = random_batch(rng, stored, rows=5)
                out, kept = store.train_pooled(lookup(batch))
                assert np.allclose(out.numpy(), naive.pooled(batch), rtol=1e-4, atol=1e-5)
                gradient = rng.standard_normal(out.shape)
                kept.add_gradient(torch.from_numpy(gradient).float(), of_weights=False)
                batches.append((batch, gradient))
            total = naive.gradients(batches)
            norm = math.sqrt(sum(float((g * g).sum()) for g in total.values()))
            assert store.gradient_norm() == pytest.approx(norm, rel=1e-4)
            store.set_learning_rate_factor(factor)
            store.update(scale)
            naive.update(total, factor, scale)
        for t, s in enumerate(stored):
            got = store.read(t, "weight", torch.arange(s.config.num_rows)).numpy()
            expected = np.stack([naive.rows[t, k] for k in range(s.config.num_rows)])
            assert np.allclose(got, expected, rtol=1e-3, atol=2e-5)

    def test_the_gradient_of_weights_is_the_inner_product(self) -> None:
        stored = tables(Sgd(learning_rate=0.1))
        store, naive = self.build(stored, TABLES), Naive(stored)
        rng = np.random.default_rng(1)
        batch = random_batch(rng, stored, rows=4)
        out, kept = store.train_pooled(lookup(batch))
        gradient = rng.standard_normal(out.shape)
        got = kept.add_gradient(torch.from_numpy(gradient).float(), of_weights=True)
        expected, start = [], 0
        for feature, rows in enumerate(batch):
            dim = stored[TABLES[feature]].config.dim
            expected += [
                naive.rows[TABLES[feature], k] @ gradient[b, start : start + dim]
                for b, r in enumerate(rows)
                for k, _ in r
            ]
            start += dim
        assert got is not None
        assert np.allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5)

    def test_gathered_rows_learn_like_pooled_ones(self) -> None:
        stored = tables(RowwiseAdagrad(learning_rate=0.1))
        pooled, gathered = self.build(stored, TABLES), self.build(stored, TABLES)
        keys = [3, 3, 5, 0, 3]
        gradient = torch.randn(len(keys), 8, generator=torch.Generator().manual_seed(0))
        batch: list[list[list[tuple[int, float]]]] = [[[] for _ in keys] for _ in TABLES]
        batch[1] = [[(k, 1.0)] for k in keys]
        out, kept = pooled.train_pooled(lookup(batch, weighted=False))
        rows, of_rows = train_rows(gathered, 1, torch.tensor(keys))
        assert torch.equal(rows, out[:, 8:16])
        wide = torch.zeros(len(keys), out.shape[1])
        wide[:, 8:16] = gradient
        kept.add_gradient(wide, of_weights=False)
        of_rows.add_gradients([gradient])
        pooled.update(1.0)
        gathered.update(1.0)
        rows = torch.arange(10)
        assert torch.allclose(pooled.read(1, "weight", rows), gathered.read(1, "weight", rows), atol=1e-6)
        assert not torch.equal(gathered.read(1, "weight", rows), self.build(stored, TABLES).read(1, "weight", rows))

    def test_reading_for_inference_changes_and_keeps_nothing(self) -> None:
        store = self.build(tables(RowwiseAdagrad(learning_rate=0.1)), TABLES)
        before = {t: store.read(t, "weight", torch.arange(9)) for t in range(3)}
        batch = random_batch(np.random.default_rng(0), tables(Sgd(learning_rate=1.0)), rows=3)
        store.pooled(lookup(batch))
        store.update(1.0)
        assert all(torch.equal(before[t], store.read(t, "weight", torch.arange(9))) for t in range(3))

    def test_discarded_gradients_change_nothing(self) -> None:
        store = self.build(tables(Sgd(learning_rate=0.1)), TABLES)
        before = store.read(0, "weight", torch.arange(9))
        batch = random_batch(np.random.default_rng(0), tables(Sgd(learning_rate=1.0)), rows=3)
        out, kept = store.train_pooled(lookup(batch))
        kept.add_gradient(torch.ones_like(out), of_weights=False)
        store.discard()
        store.update(1.0)
        assert torch.equal(before, store.read(0, "weight", torch.arange(9)))

    @pytest.mark.parametrize("features", [(2,), (1, 0), (3, 1)])
    def test_a_lookup_may_name_some_features_in_any_order(self, features: tuple[int, ...]) -> None:
        stored = tables(Sgd(learning_rate=0.1))
        store, naive = self.build(stored, TABLES), Naive(stored)
        batch = random_batch(np.random.default_rng(4), stored, rows=3)
        whole = naive.pooled(batch)
        starts = np.cumsum([0, *(stored[t].config.dim for t in TABLES)])
        part = lookup([batch[s] for s in features])
        out, kept = store.train_pooled(Lookup(features, part.keys, part.offsets, part.weights, 3))
        assert np.allclose(
            out.numpy(), np.concatenate([whole[:, starts[s] : starts[s + 1]] for s in features], 1), atol=1e-5
        )
        kept.add_gradient(torch.ones_like(out), of_weights=False)
        gradient = np.zeros_like(whole)
        for s in features:
            gradient[:, starts[s] : starts[s + 1]] = 1.0
        kept = [rows if s in features else [[] for _ in rows] for s, rows in enumerate(batch)]
        naive.update(naive.gradients([(kept, gradient)]), 1.0, 1.0)
        store.update(1.0)
        got = store.read(0, "weight", torch.arange(9)).numpy()
        assert np.allclose(got, np.stack([naive.rows[0, k] for k in range(9)]), atol=1e-5)

    @pytest.mark.parametrize("rows", [0, 3])
    def test_batches_without_rows_or_ids(self, rows: int) -> None:
        store = self.build(tables(RowwiseAdagrad(learning_rate=0.1)), TABLES)
        empty: list[list[list[tuple[int, float]]]] = [[[] for _ in range(rows)] for _ in TABLES]
        nothing = Lookup(
            (0, 1, 2, 3), torch.empty(0, dtype=torch.int64), torch.zeros(4 * rows + 1, dtype=torch.int64), None, rows
        )
        assert lookup(empty, weighted=False).offsets.tolist() == nothing.offsets.tolist()
        before = store.read(0, "weight", torch.arange(9))
        out, kept = store.train_pooled(nothing)
        assert out.shape == (rows, 28)
        assert not out.any()
        kept.add_gradient(torch.ones_like(out), of_weights=False)
        assert store.gradient_norm() == 0.0
        store.update(1.0)
        assert torch.equal(before, store.read(0, "weight", torch.arange(9)))

    def test_what_is_written_is_read_and_looked_up(self) -> None:
        store = self.build(tables(Adagrad(learning_rate=0.1)), TABLES)
        keys = torch.tensor([1, 4])
        for name in store.state_names(2):
            values = torch.full_like(store.read(2, name, keys), 2.5)
            store.write(2, name, keys, values)
            assert torch.equal(store.read(2, name, keys), values)
            assert not torch.equal(store.read(2, name, torch.tensor([0, 2])), values)
        assert torch.equal(gather(store, 3, keys), torch.full((2, 4), 2.5))

    def test_rows_that_changed_since_a_cut(self) -> None:
        store = self.build(tables(Sgd(learning_rate=0.1)), TABLES)
        if Ability.CUTS not in self.abilities:
            with pytest.raises(ConfigError, match="does not know which rows changed"):
                store.draw_cut()
            return
        cut = store.draw_cut()
        gather(store, 1, torch.tensor([1, 3]))
        rows, kept = train_rows(store, 1, torch.tensor([2, 5, 5]))
        kept.add_gradients([torch.ones_like(rows)])
        store.update(1.0)
        store.write(1, "weight", torch.tensor([8]), torch.ones(1, 8))
        assert [store.changes(t, cut).keys.tolist() for t in range(3)] == [[], [2, 5, 8], []]
        assert not len(store.changes(1, cut).tombstones)
        assert not len(store.changes(1, store.draw_cut()).keys)

    def test_dimension_one_and_others(self) -> None:
        dims = (1, 1, 1) if Ability.ANY_DIM not in self.abilities else (1, 3, 7)
        for optimizer in (Sgd(learning_rate=0.1), Adagrad(learning_rate=0.1), RowwiseAdagrad(learning_rate=0.1)):
            stored = tables(optimizer, dims)
            store, naive = self.build(stored, TABLES), Naive(stored)
            rng = np.random.default_rng(5)
            for _ in range(5):
                batch = random_batch(rng, stored, rows=4)
                out, kept = store.train_pooled(lookup(batch))
                gradient = rng.standard_normal(out.shape)
                kept.add_gradient(torch.from_numpy(gradient).float(), of_weights=False)
                naive.update(naive.gradients([(batch, gradient)]), 1.0, 1.0)
                store.update(1.0)
            for t, s in enumerate(stored):
                got = store.read(t, "weight", torch.arange(s.config.num_rows)).numpy()
                assert got.shape[1] == dims[t]
                assert np.allclose(
                    got, np.stack([naive.rows[t, k] for k in range(s.config.num_rows)]), rtol=1e-3, atol=1e-5
                )
        if Ability.ANY_DIM not in self.abilities:
            with pytest.raises(ConfigError, match="received 6"):
                self.build(tables(Sgd(learning_rate=0.1), (8, 8, 6)), TABLES)

    def test_the_same_steps_give_the_same_bits(self) -> None:
        results = []
        for _ in range(2):
            stored = tables(RowwiseAdagrad(learning_rate=0.1))
            store, rng = self.build(stored, TABLES), np.random.default_rng(3)
            for _ in range(20):
                out, kept = store.train_pooled(lookup(random_batch(rng, stored, rows=40)))
                kept.add_gradient(torch.from_numpy(rng.standard_normal(out.shape)).float(), of_weights=False)
                store.update(1.0)
            results.append([store.read(t, "weight", torch.arange(9)) for t in range(3)])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
