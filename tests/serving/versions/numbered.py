"""Versions whose rows and dense weights are all their number, so that a reader can tell what it was given."""

from __future__ import annotations

import numpy as np
import torch

from embtables.serving.versions.served_version import ServedVersion
from tests.serving.versions.trainer_for_tests import DIM, Trainer

ITEMS = torch.arange(400)
USERS = torch.arange(300)
COUNTRIES = torch.arange(50)
GONE = 20  # items that each version's number decides on


def publish_number(made: Trainer, number: int, *, snapshot: bool = False) -> str:
    """Every row is its version's number; every twentieth item has none."""
    made.now += 1
    made.tables.advance(torch.full((1,), made.now * 1_000_000))
    value = float(number)
    for table, ids in (("item", ITEMS), ("user", USERS), ("country", COUNTRIES)):
        made.tables.set(table, ids, torch.full((len(ids), DIM), value))
        made.tables.set(f"linear.{table}", ids, torch.full((len(ids), 1), value))
    made.tables.delete("item", ITEMS[number % GONE :: GONE])
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.fill_(value)
    if snapshot:
        made.writer._parent = None
    name = made.cut()
    assert name == f"serving-{number}"
    return name


def number_of(name: str) -> int:
    """Of a version."""
    return int(name.rpartition("-")[2])


def assert_numbered(version: ServedVersion, newest: int | None = None) -> None:
    """A version's dense weights are its number; its rows are whole, and not older than it says.

    Args:
        newest: that may be there; None: the rows are those of the version, and its items are gone.
    """
    number, least = number_of(version.name), number_of(version.row_version)
    assert number <= least
    _assert_dense(version, number)
    greatest = number if newest is None else newest
    tables = version.scorer.tables
    for table, ids in (("item", ITEMS), ("user", USERS), ("country", COUNTRIES)):
        rows = tables.get(table, ids).numpy()
        first = rows[:, 0]
        assert np.array_equal(rows, np.repeat(first[:, None], DIM, axis=1)), "a row is torn"
        known = first != 0  # an item that is gone reads zeros
        assert ((first[known] >= least) & (first[known] <= greatest)).all(), (version.row_version, set(first))
        if newest is None:
            gone = np.zeros(len(ids), bool)
            if table == "item":
                gone[number % GONE :: GONE] = True
            assert np.array_equal(~known, gone), table
        else:
            assert table == "item" or known.all()
    _assert_dense(version, number)  # it is the same as at the beginning, whatever came meanwhile


def _assert_dense(version: ServedVersion, number: int) -> None:
    for parameter in version.scorer.model.parameters():
        assert bool((parameter == number).all()), (version.name, parameter.flatten()[:3])
