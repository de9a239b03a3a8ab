"""Long runs of the table engine: `python -m tests.soak [MINUTES]`, by default ten minutes of random histories.

1. Fifty million ids that come once, under `min_count: 2`: the table stays within its bound and keeps its regular keys.
2. Ten million keys into one table, each with the row it should have.
3. Readers beside a writer of served rows, for the same time.
4. The state machine of tests/rows/test_collisionless_machine.py, not derandomised, until the time is over.
5. A server under load while rows change and are evicted (tests/soak/serving.py), three times as long.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from hypothesis import HealthCheck, settings

from benchmarks import _harness
from benchmarks._serving.online_retail import RUNS
from embtables.native import isa
from embtables.rows.host.store import HostRowStore
from embtables.rows.initial import initial_rows
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, MinCount, Normal, Sgd
from tests.contracts.single import gather, train_rows
from tests.rows import served_for_tests
from tests.rows.test_collisionless_machine import Machine
from tests.soak.serving import soak

BATCH = 100_000
MIB = 2**20


def flood(ids: int) -> str:
    """Unique ids beside a thousand regular ones."""
    table = CollisionlessTable(
        name="t", dim=16, optimizer=Sgd(learning_rate=0.1), admission=MinCount(count=2, max_waiting=1_000_000)
    )
    store = HostRowStore([StoredTable(table, 1)], [0])
    regular = np.arange(1000)
    for start in range(0, ids, BATCH):
        unique = np.arange(start, start + BATCH) * 7919 + 10**12
        _, kept = train_rows(store, 0, torch.from_numpy(np.concatenate([regular, unique])))
        kept.add_gradients([torch.zeros(BATCH + 1000, 16)])
        store.update(1.0)
        figures = store.figures(0)
        assert figures["waiting"] <= 1_000_000, figures
        assert figures["map_bytes"] <= 64 * MIB, figures
    assert figures["rows"] == 1000, figures
    return f"{ids:,} ids that came once: map {figures['map_bytes'] / MIB:.0f} MiB, {figures['rows']:,} rows"


def growth(keys: int) -> str:
    """Every key has its own row, with its own initial values, after growth."""
    table = CollisionlessTable(name="t", dim=4, optimizer=Sgd(learning_rate=1.0), initializer=Normal(std=1.0))
    store = HostRowStore([StoredTable(table, 1)], [0])
    rng = np.random.default_rng(0)
    order = rng.permutation(keys) * 1_000_003 - 2**40
    for start in range(0, keys, BATCH):
        train_rows(store, 0, torch.from_numpy(order[start : start + BATCH]))
    asked = order[rng.integers(0, keys, 200_000)]
    rows = gather(store, 0, torch.from_numpy(asked))
    assert torch.equal(rows, torch.from_numpy(initial_rows(Normal(std=1.0), 1, asked, 4)))
    assert store.figures(0)["rows"] == keys
    return f"{keys:,} keys, each with its row: {sum(store.num_bytes(0).values()) / keys:.0f} bytes per key"


def histories(minutes: float) -> str:
    """Random histories until the time is over."""
    end = time.monotonic() + 60 * minutes
    runs = 0
    machine = type("Machine", (Machine,), {"isa": isa()}).TestCase
    machine.settings = settings(
        deadline=None, max_examples=200, stateful_step_count=60, suppress_health_check=list(HealthCheck), database=None
    )
    while time.monotonic() < end:
        machine("runTest").runTest()
        runs += 1
    return f"{200 * runs:,} random histories of up to 60 steps against the dict ({isa()})"


def served(minutes: float) -> str:
    """Readers check every row that they see, beside versions that come without a pause."""
    end = time.monotonic() + 60 * minutes
    versions, lookups, wrong = served_for_tests.run(lambda *_: time.monotonic() >= end)
    assert not wrong, wrong
    return f"{lookups:,} lookups beside {versions:,} versions: each row as some version has it"


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    lines = []
    for work in (
        lambda: flood(50_000_000),
        lambda: growth(10_000_000),
        lambda: served(minutes),
        lambda: histories(minutes),
        lambda: soak(3 * minutes, RUNS / "soak"),
    ):
        lines.append(f"- {work()}")
        print(lines[-1], flush=True)
    where = _harness.machine()
    about = f"`make soak` on {where['cpu']}, commit {where['commit']}, {where['date']}; all held:"
    _harness.write_section("soak", "\n".join([f"## Soak\n\n{about}\n", *lines, ""]))


if __name__ == "__main__":
    main()
