"""The native optimizers against the same rules in plain torch over touched rows: rtol 1e-5, Adam 1e-4."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embtables.native import _core
from embtables.rows.host.store import HostRowStore
from embtables.rows.optimizers import specs
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import Adam, FixedTable, Normal, OptimizerConfig
from tests.contracts.single import train_rows

ROWS = 200


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("kind", [spec.config for spec in specs() if spec.native_rule is not None])
def test_forty_steps_agree_with_plain_torch(
    kind: type[OptimizerConfig], decay: float, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embtables.rows.host.store.isa", lambda: isa)
    optimizer = kind(learning_rate=0.05, weight_decay=decay)
    table = FixedTable(name="t", dim=16, num_rows=ROWS, optimizer=optimizer, initializer=Normal(std=1.0))
    stored = [StoredTable(table, 1)]
    host, reference = HostRowStore(stored, [0]), ReferenceRowStore(stored, [0])
    rng = np.random.default_rng(0)
    for step in range(40):
        keys = torch.from_numpy(rng.integers(0, ROWS, 120))
        gradient = torch.from_numpy(rng.standard_normal((120, 16)).astype(np.float32))
        for store in (host, reference):
            _, kept = train_rows(store, 0, keys)
            kept.add_gradients([gradient])
            store.set_learning_rate_factor(1.0 / (1 + step % 3))
            store.update(1.0)
    rtol = 1e-4 if kind is Adam else 1e-5
    for name in host.state_names(0):
        ours, theirs = (store.read(0, name, torch.arange(ROWS)) for store in (host, reference))
        # Elements that cancel to nearly nothing are held to the same share of an ordinary one.
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol)
