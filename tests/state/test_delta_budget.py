"""Deltas with a budget: the rows that moved most go first, nothing is lost, and the last version has everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import ConfigError
from embtables.schema import Adagrad, CollisionlessTable, DenseDecay, Feature, FixedTable, Sgd
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.version import DENSE_FILE
from embtables.state.read.load import load
from embtables.state.read.serve import load_served
from embtables.state.write.version_writer import VersionWriter
from embtables.tables.served_tables import ServedTables
from embtables.tables.table_set import Tables

DIM, ROW = 3, 8 + 4 + 4 * 3
MADE_OF: Any = (
    [
        CollisionlessTable(name="grows", dim=DIM, optimizer=Sgd(learning_rate=1.0), ttl_seconds=100),
        FixedTable(name="fixed", dim=DIM, num_rows=20, optimizer=Adagrad(learning_rate=0.1)),
    ],
    [Feature(name="a", table="grows"), Feature(name="b", table="fixed")],
)


class Chain:
    """A trainer's tables and what a server of their versions answers."""

    def __init__(self, folder: Path, budget: int | None, **options: Any) -> None:
        self.state, self.tables = StateFolder(folder), Tables(*MADE_OF, seed=0)
        self.holder = LeaseHolder(self.state).__enter__()
        self.writer = VersionWriter(
            self.holder,
            "serving",
            self.tables,
            projection="weights",
            keep=1000,
            max_delta_bytes=budget,
            **options,
        )

    def publish(self, dense: float = 0.0, *, whole: bool = False) -> int:
        self.writer.cut({"dense/w": np.array([dense])}, {}, whole=whole)
        self.writer.wait()
        return self.writer.held_back

    def served(self) -> ServedTables:
        made = ServedTables(*MADE_OF, seed=0)
        self.dense = load_served(self.state, self.state.chain("serving", self.newest), made).tensors["dense/w"][0]
        return made

    @property
    def newest(self) -> int:
        return self.state.sequences("serving")[-1]

    def close(self) -> None:
        self.writer.close()
        assert self.writer.failures == []
        self.holder.__exit__(None, None, None)


def weights(values: list[float]) -> torch.Tensor:
    return torch.tensor(values)[:, None].expand(-1, DIM).contiguous()


def test_rows_that_moved_most_go_first_and_small_moves_add_up(tmp_path: Path) -> None:
    chain = Chain(tmp_path, budget=2 * ROW)
    keys = torch.arange(4)
    chain.tables.set("grows", keys, weights([1.0, 1.0, 1.0, 1.0]))
    assert chain.publish() == 0  # a snapshot has everything
    chain.tables.set("grows", keys, weights([1.1, 2.0, 1.3, 0.0]))
    assert chain.publish() == 2
    assert chain.served().get("grows", [0, 1, 2, 3])[:, 0].tolist() == pytest.approx([1.0, 2.0, 1.0, 0.0])
    assert chain.state.manifest("serving", 2).tables["grows"].figures["held_back"] == 2
    # 0 moves a little again, 1 not; 3 moves less than 0 and 2 have in two turns.
    chain.tables.set("grows", keys[[0, 3]], weights([1.2, 0.1]))
    assert chain.publish() == 1
    assert chain.served().get("grows", [0, 1, 2, 3])[:, 0].tolist() == pytest.approx([1.2, 2.0, 1.3, 0.0])
    assert chain.publish() == 0
    assert chain.served().get("grows", [0, 1, 2, 3])[:, 0].tolist() == pytest.approx([1.2, 2.0, 1.3, 0.1])
    # All is there: what did not change is not written again.
    chain.publish()
    assert chain.state.manifest("serving", chain.newest).rows_of("grows", "rows") == 0
    chain.close()


@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_servers_hold_each_row_as_it_was_at_a_version_and_in_the_end_as_it_is(data: st.DataObject, seed: int) -> None:
    import tempfile

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(Path(folder), budget=data.draw(st.integers(1, 12)) * ROW, longest=3)
        history: dict[str, dict[int, set[bytes]]] = {"grows": {}, "fixed": {}}
        for _ in range(data.draw(st.integers(1, 8))):
            for _ in range(data.draw(st.integers(0, 3))):
                table = data.draw(st.sampled_from(["grows", "fixed"]))
                keys = torch.tensor(sorted(data.draw(st.sets(st.integers(0, 19), min_size=1, max_size=8))))
                if table == "grows" and data.draw(st.integers(0, 3)) == 0:
                    chain.tables.delete(table, keys)
                else:
                    values = torch.from_numpy(rng.normal(size=(len(keys), DIM)).astype(np.float32))
                    chain.tables.set(table, keys, values)
            held_back = chain.publish(dense=float(rng.integers(0, 2)))
            served = chain.served()
            for table, of_keys in history.items():
                own, theirs = chain.tables.get(table, range(20)), served.get(table, range(20))
                for key in range(20):
                    of_keys.setdefault(key, set()).add(own[key].numpy().tobytes())
                    assert theirs[key].numpy().tobytes() in of_keys[key]
            if not held_back:
                _need_same(chain, served)
            gone = ~chain.tables.known("grows", range(20))
            assert not (served.known("grows", range(20)) & gone).any()  # tombstones are never held back
        assert chain.publish(whole=True) == 0
        _need_same(chain, chain.served())
        chain.close()


def _need_same(chain: Chain, served: ServedTables) -> None:
    for table in ("grows", "fixed"):
        assert torch.equal(chain.tables.get(table, range(20)), served.get(table, range(20)))
        assert torch.equal(chain.tables.known(table, range(20)), served.known(table, range(20)))


def test_a_row_that_was_only_seen_goes_before_it_would_expire_at_servers(tmp_path: Path) -> None:
    chain = Chain(tmp_path, budget=ROW)
    chain.tables.set("grows", torch.arange(2), weights([1.0, 1.0]))
    chain.publish()
    for now in (40, 80):
        chain.tables.advance(torch.tensor([now * 1_000_000]))
        chain.tables.set("grows", torch.tensor([0]), weights([1.0]))
        chain.tables.set("grows", torch.tensor([1]), weights([1.0 + now]))
        chain.publish()
    # After 80 s the sight of key 0 went before the move of key 1.
    assert chain.served().get("grows", [0, 1])[:, 0].tolist() == pytest.approx([1.0, 41.0])
    assert chain.writer.held_back == 1
    chain.close()


def test_dense_tensors_are_written_where_they_changed_alone(tmp_path: Path) -> None:
    chain = Chain(tmp_path, budget=None, longest=3)
    for number, dense in enumerate([1.0, 1.0, 2.0, 2.0, 2.0], 1):
        chain.tables.set("grows", torch.tensor([number]), weights([1.0]))
        chain.publish(dense)
        chain.served()
        assert chain.dense == dense
    with_dense = [n for n in chain.state.sequences("serving") if DENSE_FILE in chain.state.manifest("serving", n).files]
    # 5 is the snapshot that the chain of 1 to 4 became; versions without them are read with those of the one before.
    assert with_dense == [1, 3, 5]
    chain.close()


def test_a_resumed_chain_knows_which_dense_tensors_it_has(tmp_path: Path) -> None:
    state, made = StateFolder(tmp_path), Tables(*MADE_OF, seed=0)
    with LeaseHolder(state) as holder:
        writer = VersionWriter(holder, "resume", made, keep=9)
        for dense in (1.0, 1.0):
            writer.cut({"w": np.array([dense])}, {})
        writer.close()
    with LeaseHolder(state) as holder:
        writer, again = VersionWriter(holder, "resume", made, keep=9), Tables(*MADE_OF, seed=0)
        writer.go_on_from(state.chain("resume", 2))
        for dense in (1.0, 3.0):
            writer.cut({"w": np.array([dense])}, {})
        writer.close()
        assert writer.failures == []
        loaded = [load(state, state.chain("resume", n), again).tensors["w"][0] for n in (1, 2, 3, 4)]
    assert loaded == [1.0, 1.0, 1.0, 3.0]
    assert [DENSE_FILE in state.manifest("resume", n).files for n in (1, 2, 3, 4)] == [True, False, False, True]


def test_a_budget_that_would_be_wrong_is_refused(tmp_path: Path) -> None:
    optimizer = Sgd(learning_rate=0.1, weight_decay=DenseDecay(rate=0.1))
    item = CollisionlessTable(name="item", dim=2, optimizer=optimizer)
    decays = Tables([item], [Feature(name="seen", table="item")], seed=0)
    with LeaseHolder(StateFolder(tmp_path)) as holder:
        with pytest.raises(ConfigError, match=r"item.*weight_decay|weight_decay.*item"):
            VersionWriter(holder, "serving", decays, projection="weights", max_delta_bytes=4096)
        with pytest.raises(ConfigError, match="max_delta_bytes"):
            VersionWriter(holder, "resume", Tables(*MADE_OF, seed=0), max_delta_bytes=4096)
