"""The native key map under insertion, growth and removal, against a dict; and a flood of keys that come once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from embtables.ids.mix import GOLDEN_GAMMA
from embtables.native import _core
from embtables.rows.host.store import HostRowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, MinCount, Sgd, Zeros
from tests.contracts.single import train_rows

SEED = 5
Keys = npt.NDArray[np.int64]


def store(**options: object) -> HostRowStore:
    table = CollisionlessTable(name="t", dim=1, optimizer=Sgd(learning_rate=0.1), initializer=Zeros(), **options)
    return HostRowStore([StoredTable(table, SEED)], [0])


def unmixed(words: npt.NDArray[np.uint64]) -> Keys:
    """Keys whose mix these words are, so that a test can choose shard and bucket."""
    x = (words ^ (words >> np.uint64(31)) ^ (words >> np.uint64(62))) * np.uint64(0x319642B2D24D8EC3)
    x = (x ^ (x >> np.uint64(27)) ^ (x >> np.uint64(54))) * np.uint64(0x96DE1B173F119089)
    x = x ^ (x >> np.uint64(30)) ^ (x >> np.uint64(60))
    return (x - np.uint64((SEED + 1) * GOLDEN_GAMMA % 2**64)).view(np.int64)


def rows_of(made: HostRowStore, keys: Keys) -> npt.NDArray[np.uint32]:
    rows = np.empty(len(keys), np.uint32)
    made._store.find(0, keys, 2, rows)
    return rows


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("crowded", [False, True], ids=["spread", "one shard, few buckets"])
def test_insertions_and_removals_leave_exactly_what_is_left(
    isa: str, crowded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embtables.rows.host.store.isa", lambda: isa)
    rng = np.random.default_rng(0)
    made = store()
    words = rng.integers(1, 2**63, 6000).astype(np.uint64)
    if crowded:
        # One shard; homes within the last sixteenth of it, so that buckets overflow, around the end too.
        words = (words & np.uint64(0xFFFFFFE0_0FFFFFFF)) | np.uint64(0xF0000000)
    keys = np.unique(unmixed(np.append(words, np.uint64(0))))
    held: set[int] = set()
    for round_ in range(12):
        added = rng.choice(keys, 2000)
        train_rows(made, 0, torch.from_numpy(added))
        held |= {int(key) for key in added}
        gone = [int(key) for key in rng.permutation(sorted(held))[: len(held) // (2 + round_ % 3)]]
        for _ in range(2):
            made.delete(0, torch.tensor(gone))
        held -= set(gone)
        rows = rows_of(made, keys)
        assert {int(key) for key in keys[rows > 0]} == held
        assert len(set(rows[rows > 0].tolist())) == len(held)  # no row has two keys
        state = made.key_state(0)
        assert state is not None
        assert set(state.keys.tolist()) == held
        assert made.figures(0)["rows"] == len(held)


def test_rows_of_removed_keys_are_used_again() -> None:
    made = store()
    for start in range(0, 50_000, 1000):
        keys = torch.arange(start, start + 1000)
        train_rows(made, 0, keys)
        made.delete(0, keys)
    assert made.figures(0)["rows_in_use"] <= 1001


@pytest.mark.slow
def test_a_flood_of_keys_that_come_once_stays_within_its_bound() -> None:
    made = store(admission=MinCount(count=2, max_waiting=100_000))
    regular = np.arange(1000)
    rng = np.random.default_rng(0)
    for step in range(80):
        flood = rng.integers(10**6, 2**62, 50_000)
        _, kept = train_rows(made, 0, torch.from_numpy(np.concatenate([regular, flood])))
        kept.add_gradients([torch.zeros(51_000, 1)])
        made.update(1.0)
        figures = made.figures(0)
        assert figures["waiting"] <= 100_000
        if step > 3:
            assert figures["map_bytes"] < 10 * 2**20
    assert figures["rows"] == 1000
    assert figures["waiting_evicted"] > 3_000_000


def test_the_norm_is_the_same_whatever_rows_the_keys_lie_in() -> None:
    rng = np.random.default_rng(3)
    keys = torch.from_numpy(rng.integers(-(2**63), 2**63, 3000))
    gradient = torch.from_numpy(
        (rng.standard_normal((3000, 1)) * 10.0 ** rng.uniform(-6, 3, (3000, 1))).astype(np.float32)
    )
    first, second = store(), store()
    train_rows(first, 0, keys)
    first.update(1.0)
    second.apply(0, first.capture(0, None).content())
    norms = []
    for made in (first, second):
        _, kept = train_rows(made, 0, keys)
        kept.add_gradients([gradient])
        norms.append(made.gradient_norm())
    assert not np.array_equal(rows_of(first, keys.numpy()), rows_of(second, keys.numpy()))
    assert norms[0] == norms[1]
