"""What a store of a part of the key space keeps: the rows of its buckets, as a store of the whole table has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from embtables.errors import DataError
from embtables.keyspace import Buckets, buckets_of
from embtables.rows.content import TableContent, restrict
from embtables.rows.protocol import PartStore, RowStore, Segments
from embtables.rows.stored_table import StoredTable
from embtables.schema import Adagrad, Adam, CollisionlessTable, FixedTable, MinCount, Normal, Optimizer, RowwiseAdagrad
from tests.contents import flat_content, same
from tests.contracts.collisionless import OPTIMIZERS
from tests.contracts.messages import look_up
from tests.contracts.single import gather, train_rows

SEED = 7
ROWS = 3001  # seven lines of the index and a piece of one
RANGES: list[list[Buckets]] = [[(0, 512), (512, 1024)], [(0, 1), (1, 700), (700, 701), (701, 1023), (1023, 1024)]]


def fixed(rows: int = ROWS) -> list[StoredTable]:
    """Two fixed tables and, so that both kinds lie side by side, one that grows."""
    normal = Normal(std=0.1)
    return [
        StoredTable(
            FixedTable(name="a", dim=4, num_rows=rows, optimizer=Adam(learning_rate=0.1), initializer=normal), SEED
        ),
        StoredTable(CollisionlessTable(name="c", dim=4, optimizer=Adam(learning_rate=0.1), initializer=normal), 5),
        StoredTable(
            FixedTable(name="b", dim=3, num_rows=70, optimizer=RowwiseAdagrad(learning_rate=0.1), initializer=normal), 9
        ),
    ]


def own(keys: Tensor, table: StoredTable) -> Tensor:
    """Those of the table's part, (n,) bool."""
    found = buckets_of(keys.numpy(), table.seed)
    return torch.from_numpy((found >= table.buckets[0]) & (found < table.buckets[1]))


class PartsContract:
    """Subclass and define `build`."""

    def build(self, stored: list[StoredTable], feature_tables: Sequence[int]) -> PartStore:
        raise AssertionError("define build")

    def parts(
        self, stored: list[StoredTable], ranges: list[Buckets], feature_tables: Sequence[int] | None = None
    ) -> list[tuple[list[StoredTable], PartStore]]:
        found = [[replace(table, buckets=buckets) for table in stored] for buckets in ranges]
        return [
            (tables, self.build(tables, range(len(tables)) if feature_tables is None else feature_tables))
            for tables in found
        ]

    def learn(self, store: RowStore, stored: list[StoredTable], step: int) -> None:
        """A step on random keys; the store sees those of its buckets."""
        rng = np.random.default_rng(step)
        keys = [torch.from_numpy(rng.integers(0, getattr(t.config, "num_rows", 500), 200)) for t in stored]
        wide = [torch.from_numpy(rng.standard_normal((200, t.config.dim)).astype(np.float32)) for t in stored]
        mine = [own(k, table) for k, table in zip(keys, stored, strict=True)]
        _, kept = store.train_rows(range(len(stored)), [k[m] for k, m in zip(keys, mine, strict=True)])
        kept.add_gradients([g[m] for g, m in zip(wide, mine, strict=True)])
        store.update(1.0)

    def check(self, part: TableContent, whole: TableContent, table: StoredTable) -> None:
        assert same(flat_content(part), flat_content(restrict(whole, table.seed, table.buckets)))

    @pytest.mark.parametrize("ranges", RANGES)
    def test_parts_are_what_the_whole_table_is(self, ranges: list[Buckets]) -> None:
        stored = fixed()
        whole, parts = self.build(stored, range(3)), self.parts(stored, ranges)
        for step in range(6):
            self.learn(whole, stored, step)
            for tables, store in parts:
                self.learn(store, tables, step)
            if step in (1, 3):  # from the second cut on, contents hold what changed
                cut = whole.draw_cut()
                assert {store.draw_cut() for _, store in parts} == {cut}
            after = None if step < 3 else cut
            for n, table in enumerate(stored):
                content = whole.capture(n, after).content()
                keys = []
                for tables, store in parts:
                    self.check(store.capture(n, after).content(), content, tables[n])
                    state = store.key_state(n)
                    assert state is not None
                    assert bool(own(state.keys, tables[n]).all())
                    keys += state.keys.tolist()
                    for name in store.state_names(n):
                        assert torch.equal(store.read(n, name, state.keys), whole.read(n, name, state.keys))
                    if after is not None:
                        changed = whole.changes(n, after).keys
                        assert torch.equal(store.changes(n, after).keys, changed[own(changed, tables[n])])
                if isinstance(table.config, FixedTable):
                    assert sorted(keys) == list(range(table.config.num_rows))

    def test_a_part_takes_over_its_rows_of_a_snapshot_and_a_delta(self) -> None:
        stored = fixed()
        whole = self.build(stored, range(3))
        self.learn(whole, stored, 1)
        first = [whole.capture(n, None).content() for n in range(3)]
        cut = whole.draw_cut()
        self.learn(whole, stored, 2)
        second = [whole.capture(n, cut).content() for n in range(3)]
        for tables, store in self.parts(stored, RANGES[1]):
            self.learn(store, tables, 9)
            for n, table in enumerate(tables):
                store.clear(n)
                for content in (first, second):
                    store.apply(n, restrict(content[n], table.seed, table.buckets))
                self.check(store.capture(n, None).content(), whole.capture(n, None).content(), table)
            self.learn(store, tables, 3)
        self.learn(whole, stored, 3)
        for tables, store in self.parts(stored, RANGES[1]):
            for n, table in enumerate(tables):
                store.apply(n, restrict(whole.capture(n, None).content(), table.seed, table.buckets))
                self.check(store.capture(n, None).content(), whole.capture(n, None).content(), table)

    def test_rows_of_a_part_are_written_and_become_fresh(self) -> None:
        stored = fixed()
        initial = self.build(stored, range(3)).read(0, "weight", torch.arange(ROWS))
        for _, store in self.parts(stored, RANGES[0]):
            state = store.key_state(0)
            assert state is not None
            keys = state.keys
            cut = store.draw_cut()
            store.write(0, "weight", keys[[3, 700]], torch.ones(2, 4))
            store.write(0, "exp_avg", keys[[3]], torch.ones(1, 4))
            expected = initial[keys]
            expected[[3, 700]] = 1.0
            assert torch.equal(train_rows(store, 0, keys)[0], expected)
            store.make(0, keys[:5])
            store.delete(0, keys[[3, 9]])
            expected[3] = initial[keys[3]]
            assert torch.equal(store.read(0, "weight", keys), expected)
            assert not store.read(0, "exp_avg", keys).any()
            assert torch.equal(store.changes(0, cut).keys, keys[[3, 9, 700]])

    @pytest.mark.parametrize("bad", [ROWS, -1, 2**32, -(2**63), None])
    def test_keys_outside_a_part_are_refused(self, bad: int | None) -> None:
        stored = fixed()
        for tables, store in self.parts(stored, RANGES[0]):
            keys = torch.arange(ROWS)
            mine = own(keys, tables[0])
            key = int(keys[~mine][10]) if bad is None else bad
            asked = torch.cat([keys[mine][:700], torch.tensor([key]), keys[mine][700:]])
            for look_up_rows in (gather, train_rows):
                with pytest.raises(DataError, match=f"key {key} is"):
                    look_up_rows(store, 0, asked)
            with pytest.raises(DataError, match=f"key {key} is"):
                store.read(0, "weight", asked)

    def test_a_part_may_have_no_row_of_a_small_table(self) -> None:
        stored = fixed(rows=3)
        parts = self.parts(stored, [(n, n + 64) for n in range(0, 1024, 64)])
        held = []
        for tables, store in parts:
            self.learn(store, tables, 1)
            state = store.key_state(0)
            assert state is not None
            held.append(len(state.keys))
            content = store.capture(0, None).content()
            assert len(content.keys) == len(store.read(0, "weight", state.keys)) == held[-1]
            store.apply(0, content)
            assert store.num_steps(0) == 1
        assert sum(held) == 3
        assert 0 in held

    def test_memory_is_that_of_the_part(self) -> None:
        table = FixedTable(name="a", dim=4, num_rows=100_000, optimizer=Adagrad(learning_rate=0.1))
        ((_, whole),) = self.parts([StoredTable(table, SEED)], [(0, 1024)])
        ((_, part),) = self.parts([StoredTable(table, SEED)], [(100, 228)])
        for name in ("weight", "sum"):
            assert part.num_bytes(0)[name] / whole.num_bytes(0)[name] == pytest.approx(1 / 8, rel=0.05)
        assert part.num_bytes(0).get("keys", 0) < 1.2 / 8 * 100_000

    @pytest.mark.parametrize("how", ["exact", "sketch"])
    def test_a_key_counts_as_often_as_it_occurred(self, how: str) -> None:
        admission = MinCount.model_validate({"count": 5, "counting": how})
        grows = CollisionlessTable(
            name="c", dim=3, optimizer=Adagrad(learning_rate=0.1), admission=admission, max_rows=40
        )
        stored = [StoredTable(grows, SEED), fixed()[0]]
        counted, repeated = (self.build(stored, [0, 1, 0]) for _ in range(2))
        rng = np.random.default_rng(3)
        for step in range(30):
            keys = [torch.from_numpy(rng.integers(0, top, 25)) for top in (80, ROWS, 80)]
            many = [torch.from_numpy(rng.integers(1, 4, 25).astype(np.int32)) for _ in keys]
            if step == 20:  # more than a waiting key's count can hold
                many[0][:3] = 70_000
            counts = [many[0], None, many[2] if step % 2 else None]
            often = [torch.ones(25, dtype=torch.int32) if c is None else c for c in counts]
            rows, _ = look_up(counted, stored, [0, 1, 0], keys, often, seed=step)
            all_keys = [k.repeat_interleave(c) for k, c in zip(keys, often, strict=True)]
            all_rows, _ = repeated.train_rows([0, 1, 2], all_keys)
            for some, every, c in zip(rows, all_rows, often, strict=True):
                assert torch.equal(some.repeat_interleave(c, dim=0), every)
            counted.update(1.0)
            repeated.update(1.0)
            for n in range(2):
                contents = [flat_content(store.capture(n, None).content()) for store in (counted, repeated)]
                assert same(*contents)
            assert counted.figures(0) == repeated.figures(0)
        state = counted.key_state(0)
        assert state is not None
        assert len(state.keys) > 20

    def test_counts_are_of_training_alone(self) -> None:
        store = self.build(
            [StoredTable(CollisionlessTable(name="c", dim=3, optimizer=Adagrad(learning_rate=0.1)), 1)], [0]
        )
        segments = Segments((0,), np.array([0, 1]), np.array([0]))
        often = torch.tensor([9], dtype=torch.int32)
        store.owned(segments, torch.tensor([4])).rows_into(torch.empty(3))
        kept = store.train_owned(segments, torch.tensor([4]), often)
        kept.add_message(torch.ones(3), np.ones(1, np.bool_))
        store.update(1.0)
        state = store.key_state(0)
        assert state is not None
        assert state.keys.tolist() == [4]

    @pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
    def test_cold_rows_of_parts_learn_as_one(self, optimizer: Optimizer) -> None:
        grows = CollisionlessTable(
            name="c",
            dim=4,
            optimizer=optimizer,
            initializer=Normal(std=0.1),
            admission=MinCount(count=3),
            cold_row="trained",
        )
        zeros = replace(fixed()[1], config=grows.model_copy(update={"name": "z", "cold_row": "zeros"}))
        stored = [fixed()[0], StoredTable(grows, SEED), zeros]
        feature_tables = [0, 1, 2, 1]
        whole = self.build(stored, feature_tables)
        parts = self.parts(stored, RANGES[1], feature_tables)
        rng = np.random.default_rng(8)
        for step in range(20):  # in the last ones no key is cold any more
            tops = ROWS, 60, 60, 60
            keys = [torch.from_numpy(rng.integers(0, top, 25)) for top in tops]
            wide = [torch.from_numpy(rng.standard_normal((25, 4)).astype(np.float32)) for _ in feature_tables]
            _, kept = whole.train_rows(range(4), keys)
            kept.add_gradients(wide)
            cold, readers = torch.zeros(4), 0
            for tables, store in parts:
                mine = [own(k, tables[n]) for k, n in zip(keys, feature_tables, strict=True)]
                asked = [k[m] for k, m in zip(keys, mine, strict=True)]
                gradients = [g[m] for g, m in zip(wide, mine, strict=True)]
                rows, owned = look_up(store, tables, feature_tables, asked, None, seed=step, gradients=gradients)
                reads = owned.cold_keys()
                ends = torch.tensor([len(r) for r in rows]).cumsum(0)[:-1].tolist()
                by_slot = torch.tensor_split(reads, ends)
                assert not by_slot[0].any()
                for n in (1, 3):
                    cold += gradients[n][by_slot[n]].sum(dim=0)
                    readers += int(by_slot[n].sum())
                    if by_slot[n].any():
                        assert len(rows[n][by_slot[n]].unique(dim=0)) == 1
                assert not rows[2][by_slot[2]].any()
                assert rows[2][~by_slot[2]].any(dim=1).all()
            whole.update(1.0)
            for _, store in parts:
                if readers:
                    store.add_cold_gradient(1, cold)
                store.update(1.0)
        content = whole.capture(1, None).content()
        first = parts[0][1].capture(1, None).content()
        for name, values in content.cold.items():
            assert values.any()
            assert np.allclose(first.cold[name], values, rtol=1e-5, atol=1e-6)
        assert readers == 0
        for tables, store in parts:
            for n in range(3):
                state = store.key_state(n)
                assert state is not None
                assert torch.allclose(
                    store.read(n, "weight", state.keys), whole.read(n, "weight", state.keys), atol=1e-6
                )
                assert store.num_steps(n) == whole.num_steps(n)
            held = store.capture(1, None).content()
            assert all(np.array_equal(held.cold[name], first.cold[name]) for name in first.cold)
            self.check_keys(held, content, tables[1])

    def check_keys(self, part: TableContent, whole: TableContent, table: StoredTable) -> None:
        expected = restrict(whole, table.seed, table.buckets)
        for name in ("keys", "seen", "waiting", "waiting_counts", "waiting_seen"):
            assert np.array_equal(getattr(part, name), getattr(expected, name)), name
