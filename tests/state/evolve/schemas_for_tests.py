"""Schemas of a version, in few words, for the tests of evolution."""

from __future__ import annotations

from typing import Any

from embtables import CollisionlessTable, Feature, FixedTable
from embtables.keyspace import table_seed
from embtables.rows.stored_table import StoredTable
from embtables.schema import Adagrad, Adam, Identity, RowwiseAdagrad, Sgd
from embtables.state.evolve.evolution import StateSchema

OPTIMIZERS: list[Any] = [
    Sgd(learning_rate=0.1),
    Adagrad(learning_rate=0.1),
    RowwiseAdagrad(learning_rate=0.1),
    Adam(learning_rate=0.1),
]


def grows(**changes: Any) -> CollisionlessTable:
    return CollisionlessTable(**{"name": "t", "dim": 4, "optimizer": OPTIMIZERS[1], **changes})


def fixed(**changes: Any) -> FixedTable:
    return FixedTable(**{"name": "t", "dim": 4, "num_rows": 9, "optimizer": OPTIMIZERS[1], **changes})


def feature(name: str = "f", table: str = "t", **changes: Any) -> Feature:
    return Feature(name=name, table=table, **changes)


def schema(*items: Any, seed: int = 0) -> StateSchema:
    """Tables and features; without a feature each table has one."""
    tables = [i for i in items if not isinstance(i, Feature)]
    features = [i for i in items if isinstance(i, Feature)]
    features = features or [feature(f"f_{t.name}", t.name) for t in tables]
    return StateSchema(tuple(StoredTable(t, table_seed(seed, t.name)) for t in tables), tuple(features))


IDENTITY = feature("f", encoder=Identity())
