"""Tables that begin with rows made elsewhere, for the tests of warm starts."""

from __future__ import annotations

from typing import Any

from embtables import CollisionlessTable, Feature, FixedTable, Tables
from embtables.schema import Adagrad, Hash, Normal

LEARNS = Adagrad(learning_rate=0.1)
D = 4


def collisionless(encoder: Any = None, store: Any = "host", **changes: Any) -> Tables:
    config = CollisionlessTable(name="t", dim=D, optimizer=LEARNS, initializer=Normal(std=1.0), **changes)
    return Tables([config], [Feature(name="f", table="t", encoder=encoder or Hash(seed=3))], seed=1, row_store=store)


def fixed(num_rows: int, encoder: Any, store: Any = "host") -> Tables:
    config = FixedTable(name="t", dim=D, num_rows=num_rows, optimizer=LEARNS, initializer=Normal(std=1.0))
    return Tables([config], [Feature(name="f", table="t", encoder=encoder)], seed=1, row_store=store)
