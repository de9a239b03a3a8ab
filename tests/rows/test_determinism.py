"""The same bits on every instruction set and for any number of threads; one OpenMP in the process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from embtables.native import _core
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import Lookup
from embtables.rows.stored_table import StoredTable
from embtables.schema import (
    Adagrad,
    Adam,
    CollisionlessTable,
    FixedTable,
    MinCount,
    Normal,
    Optimizer,
    RowwiseAdagrad,
    Sgd,
)
from tests.contracts.single import train_rows

THREADS = [1, 2, 3, 8]
OPTIMIZERS: list[Optimizer] = [
    Sgd(learning_rate=0.1, weight_decay=0.01),
    Adagrad(learning_rate=0.1),
    RowwiseAdagrad(learning_rate=0.1),
    Adam(learning_rate=0.1),
]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def batch(rng: np.random.Generator, keys: int, rows: int, weighted: bool) -> Lookup:
    """Three features; the first two read one table. One key in three is the hottest, so its sum has many pieces."""
    drawn = rng.integers(0, 3000, keys)
    drawn[rng.random(keys) < 0.33] = 7
    lengths = rng.multinomial(keys, np.full(3 * rows, 1 / (3 * rows)))
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))
    weights = torch.from_numpy(rng.standard_normal(keys).astype(np.float32)) if weighted else None
    return Lookup((0, 1, 2), torch.from_numpy(drawn), offsets, weights, rows)


def trained(optimizer: Optimizer, dim: int, isa: str, threads: int) -> list[torch.Tensor]:
    """Outputs, norms and rows of a few steps that are large enough for several groups, chunks and threads."""
    torch.set_num_threads(threads)
    common = {"optimizer": optimizer, "initializer": Normal(std=0.1)}
    fixed = FixedTable(name="f", dim=dim, num_rows=3000, **common)
    grows = CollisionlessTable(name="c", dim=dim, admission=MinCount(count=2), max_rows=1500, **common)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embtables.rows.host.store.isa", lambda: isa)
        store = HostRowStore([StoredTable(fixed, 1), StoredTable(grows, 2)], [0, 0, 1])
    rng = np.random.default_rng(0)
    found = []
    for step in range(3):
        lookup = batch(rng, keys=40_000, rows=700, weighted=step == 1)
        out, kept = store.train_pooled(lookup)
        gradient = torch.from_numpy(rng.standard_normal(out.shape).astype(np.float32))
        of_weights = kept.add_gradient(gradient, of_weights=True)
        assert of_weights is not None
        found += [out.clone(), of_weights, torch.tensor(store.gradient_norm(), dtype=torch.float64)]
        store.update(0.7)
    for table in range(2):
        state = store.key_state(table)
        keys = torch.arange(3000) if state is None else state.keys
        found += [keys, *(store.read(table, name, keys) for name in store.state_names(table))]
    return found


@pytest.mark.parametrize("dim", [1, 4, 8, 12, 16, 64, 100])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
def test_instruction_sets_and_threads_give_the_same_bits(optimizer: Optimizer, dim: int) -> None:
    expected = trained(optimizer, dim, "scalar", 1)
    for isa in _core.available_isas():
        for threads in THREADS if dim in (12, 16) else [2]:
            found = trained(optimizer, dim, isa, threads)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), (isa, threads)


def test_the_order_of_a_rows_gradients_is_that_of_the_batch_whatever_lies_between() -> None:
    """A row's sum does not depend on which other rows are in the batch."""
    values = np.random.default_rng(1).standard_normal((5000, 16)).astype(np.float32)

    def row_after(others: int) -> torch.Tensor:
        table = FixedTable(name="t", dim=16, num_rows=100_000, optimizer=Sgd(learning_rate=1.0))
        store = HostRowStore([StoredTable(table, 1)], [0])
        keys = torch.cat([torch.full((len(values),), 5), torch.arange(10, 10 + others)])
        order = torch.argsort(torch.rand(len(keys), generator=torch.Generator().manual_seed(others)), stable=True)
        own = order < len(values)
        gradient = torch.zeros(len(keys), 16)
        gradient[own] = torch.from_numpy(values)
        _, kept = train_rows(store, 0, keys[order])
        kept.add_gradients([gradient])
        store.update(1.0)
        return store.read(0, "weight", torch.tensor([5]))

    assert torch.equal(row_after(0), row_after(3))
    assert torch.equal(row_after(0), row_after(60_000))


def test_there_is_one_openmp_in_the_process() -> None:
    """The core runs on torch's threads: it loads no second libgomp, and work is really shared."""
    code = """
import torch
from embtables.rows.host.store import HostRowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import FixedTable, Sgd
torch.set_num_threads(2)
store = HostRowStore([StoredTable(FixedTable(name="t", dim=16, num_rows=99, optimizer=Sgd(learning_rate=1)), 1)], [0])
store.gather([0], [torch.arange(1_000_000) % 99])
maps = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line or "libomp" in line}
threads = sum(1 for line in open("/proc/self/status") if line.startswith("Threads:") and int(line.split()[1]) > 1)
print(len(maps), threads)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
