"""Misuse of the public calls that is no matter of ids: names, numbers, lengths, memory. Each is a typed error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from embtables import (
    Artifacts,
    CollisionlessTable,
    EmbeddingBagCollection,
    Feature,
    FixedTable,
    Scorer,
    Tables,
    hash_strings,
    warm_start,
)
from embtables.errors import ConfigError, DataError, EmbtablesError, StateError
from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import PooledView
from embtables.schema import Sgd

SGD = Sgd(learning_rate=1.0)
TABLE = FixedTable(name="t", dim=2, num_rows=10, optimizer=SGD)
KEPT = CollisionlessTable(name="kept", dim=2, optimizer=SGD, ttl_seconds=100)
FEATURE = Feature(name="f", table="t")
MEAN = Feature(name="m", table="kept", pooling="mean")


def tables() -> Tables:
    return Tables([TABLE, KEPT], [FEATURE, MEAN], seed=0)


MISUSES: dict[str, tuple[Callable[[Tables], Any], type[EmbtablesError], str]] = {
    "two tables of one name": (
        lambda t: Tables([TABLE, TABLE], [FEATURE], seed=0),
        ConfigError,
        "table t: is the name of 2 tables",
    ),
    "a table alone": (lambda t: Tables(TABLE, [FEATURE], seed=0), ConfigError, "argument tables: must be a list"),  # type: ignore[arg-type]
    "no table": (lambda t: Tables(["t"], [FEATURE], seed=0), ConfigError, "received a str at 0"),  # type: ignore[list-item]
    "no feature": (lambda t: Tables([TABLE], [TABLE], seed=0), ConfigError, "must be a list of Feature"),  # type: ignore[list-item]
    "a feature twice": (
        lambda t: Tables([TABLE], [FEATURE, FEATURE], seed=0),
        ConfigError,
        "feature f: reads table 't' 2 times",
    ),
    "a seed of text": (lambda t: Tables([TABLE], [FEATURE], seed="0"), ConfigError, "argument seed"),  # type: ignore[arg-type]
    "an unknown row store": (
        lambda t: Tables([TABLE], [FEATURE], seed=0, row_store="ssd"),  # type: ignore[arg-type]
        ConfigError,
        "argument row_store: must be one of host, fbgemm, reference, received 'ssd'",
    ),
    "an unknown replicated table": (
        lambda t: Tables([TABLE], [FEATURE], seed=0, replicated=["u"]),
        ConfigError,
        "table u: is to be replicated",
    ),
    "an unknown table's keys": (lambda t: t.keys("u"), ConfigError, "table u: there is no such table"),
    "an unknown table's weight": (lambda t: t.weight("u"), ConfigError, "table u: there is no such table"),
    "an unknown table's changes": (lambda t: t.changes("u", after=1), ConfigError, "table u: there is no such table"),
    "an unknown table's ages": (lambda t: t.row_quantiles("u"), ConfigError, "table u: there is no such table"),
    "a table as a list": (lambda t: t.get(["t"], [1]), ConfigError, "there is no such table"),  # type: ignore[arg-type]
    "changes after no cut": (lambda t: t.changes("t", after=1.5), ConfigError, "argument after"),  # type: ignore[arg-type]
    "a scale of nan": (lambda t: t.step(gradient_scale=float("nan")), ConfigError, "argument gradient_scale"),
    "a scale of text": (lambda t: t.step(gradient_scale="1"), ConfigError, "must be a finite number, received '1'"),  # type: ignore[arg-type]
    "a rate below 0": (lambda t: t.set_learning_rate_factor(-1.0), ConfigError, "a finite number from 0 on"),
    "times of floats": (lambda t: t.advance([1.5]), DataError, "argument event_time_us"),  # type: ignore[arg-type]
    "times of text": (lambda t: t.advance(["now"]), DataError, "argument event_time_us"),  # type: ignore[arg-type]
    "a time that is missing": (lambda t: t.advance(np.array(["NaT"], "M8[s]")), DataError, "is null at 0"),  # type: ignore[arg-type]
    "a time beyond": (lambda t: t.advance(np.array([2**62], "M8[s]")), DataError, "beyond the range"),  # type: ignore[arg-type]
    "a cut of text": (lambda t: t.cuts.consumer("a").hold("1"), ConfigError, "argument cut: must be an integer"),  # type: ignore[arg-type]
    "a consumer without a name": (lambda t: t.cuts.consumer([]), ConfigError, "argument name: must be a name"),  # type: ignore[arg-type]
    "a capture after text": (lambda t: t.capture("1"), ConfigError, "argument after: must be an integer"),  # type: ignore[arg-type]
    "no content": (lambda t: t.take_over("t", {}), ConfigError, "must be a table's content, received a dict"),  # type: ignore[arg-type]
    "a number for a run": (
        lambda t: Scorer.from_version(5),
        ConfigError,
        "argument folder: must be a path, received 5",
    ),  # type: ignore[arg-type]
    "a version by number": (lambda t: Scorer.from_version("x", 5), ConfigError, "argument which: must be a name"),  # type: ignore[arg-type]
    "keys of a fixed table": (
        lambda t: t.set_weight("t", torch.zeros(1, 2), keys=torch.tensor([1])),
        StateError,
        "table t: is a fixed table",
    ),
    "a key twice": (
        lambda t: t.set_weight("kept", torch.zeros(2, 2), keys=torch.tensor([1, 1])),
        StateError,
        "table kept: is given a key twice",
    ),
    "a view of no tables": (lambda t: PooledView(None), ConfigError, "a view needs Tables"),  # type: ignore[arg-type]
    "a view of a name": (lambda t: PooledView(t, "t"), ConfigError, "argument names: must be a list"),
    "a view of an unknown table": (lambda t: PooledView(t, ["t", "u"]), ConfigError, "among t, kept"),
    "a dict for a batch": (lambda t: PooledView(t)({"f": [1]}), DataError, "a view needs JaggedIds, received a dict"),
    "a dict for a KJT": (lambda t: EmbeddingBagCollection.over(t)({"f": [1]}), DataError, "needs a KeyedJaggedTensor"),
    "text for artifacts": (lambda t: Artifacts({"a": "b"}), ConfigError, "must be bytes, received a str"),  # type: ignore[dict-item]
    "a number for artifacts": (lambda t: Artifacts({"a": 5}), ConfigError, "must be bytes, received a int"),  # type: ignore[dict-item]
    "integers to hash": (lambda t: hash_strings([1, 2]), DataError, "only strings"),
    "mixed strings to hash": (lambda t: hash_strings(["a", 1]), DataError, "is no column of strings"),
    "nothing to hash": (lambda t: hash_strings(None), DataError, "received a NoneType"),
    "a list for a state_dict": (lambda t: warm_start.from_state_dict(t, [1]), ConfigError, "received Tables and list"),  # type: ignore[arg-type]
    "a number for a path": (
        lambda t: warm_start.from_parquet(t, "t", 5, id_column="i", vector_column="v"),  # type: ignore[arg-type]
        ConfigError,
        "the path of a parquet file, received Tables and int",
    ),
    "rows of floats": (lambda t: JaggedIds.of({"f": [[1.5]]}), DataError, "feature f, argument row 0: holds float64"),  # type: ignore[list-item]
    "rows of numbers": (lambda t: JaggedIds.of({"f": [1]}), DataError, "feature f, argument row 0: has shape ()"),  # type: ignore[list-item]
    "no dict of rows": (lambda t: JaggedIds.of([[1]]), DataError, "give a dict"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_a_typed_error(misuse: str) -> None:
    call, kind, text = MISUSES[misuse]
    with pytest.raises(kind) as raised:
        call(tables())
    assert type(raised.value) is kind
    assert text in str(raised.value)


@pytest.mark.parametrize("given", ["datetime64", "arrow", "arrow ns", "objects", "int32", "list"])
def test_times_of_every_type_move_the_clock_alike(given: str) -> None:
    seconds = [100, 130, 110]
    times: dict[str, Any] = {
        "datetime64": np.array(seconds, "M8[s]"),
        "arrow": pa.array(seconds, pa.timestamp("s", "Europe/Berlin")),
        "arrow ns": pa.array([s * 10**9 + 7 for s in seconds], pa.timestamp("ns")),
        "objects": np.array(seconds, "M8[s]").astype(object),
        "int32": np.array([s * 10**6 for s in seconds], np.int32),
        "list": [s * 10**6 for s in seconds],
    }
    moved = tables()
    moved.advance(times[given])
    assert moved.table_content("kept").now == 110


IDS = torch.arange(4)
BATCHES: dict[str, tuple[Any, str]] = {
    "lengths that wrap": (
        (IDS, [2**62, 2**62, 2**62, 2**62 + 4], None),
        "argument lengths: is 4611686018427387908 at 3",
    ),
    "a negative length": ((IDS, [5, -1, 0, 0], None), "argument lengths: is -1 at 1"),
    "ids beyond the lengths": ((IDS, [1, 1, 1, 0], None), "argument lengths: add up to 3, and there are 4 ids"),
    "lengths beyond the ids": ((IDS, [2, 1, 1, 1], None), "argument lengths: add up to 5, and there are 4 ids"),
    "too few lengths": ((IDS, [4], None), "argument lengths: has 1 values; 1 features of 4 rows need 4"),
    "lengths of floats": ((IDS, [1.0, 1.0, 1.0, 1.0], None), "argument lengths: holds float64"),
    "weights longer than the ids": ((IDS, [1, 1, 1, 1], torch.ones(5)), "argument weights: has shape (5,)"),
    "weights shorter than the ids": ((IDS, [1, 1, 1, 1], torch.ones(3)), "argument weights: has shape (3,)"),
    "complex weights": ((IDS, [1, 1, 1, 1], torch.ones(4, dtype=torch.complex64)), "argument weights: is a tensor of"),
    "weights of text": ((IDS, [1, 1, 1, 1], ["a"] * 4), "argument weights: holds"),
    "float ids": ((IDS + 0.5, [1, 1, 1, 1], None), "argument values: holds torch.float32"),
}


@pytest.mark.parametrize("case", BATCHES)
def test_a_batch_whose_parts_do_not_go_together_is_refused(case: str) -> None:
    (ids, lengths, weights), text = BATCHES[case]
    of_weights = Feature(name="m", table="kept", pooling="mean", column="m", weights_column="w")
    view = PooledView(Tables([KEPT], [of_weights], seed=0))
    with pytest.raises(DataError) as raised:
        view(JaggedIds(("m",), ids, lengths, 4, torch.ones(4) if weights is None else weights))
    assert text in str(raised.value)


def test_lengths_that_wrap_do_not_crash_a_process() -> None:
    code = """
import torch
from torchrec import KeyedJaggedTensor
from embtables import EmbeddingBagCollection, Feature, FixedTable, Sgd, Tables
from embtables.errors import DataError
table = FixedTable(name="t", dim=2, num_rows=10, optimizer=Sgd(learning_rate=1.0))
view = EmbeddingBagCollection.over(Tables([table], [Feature(name="f", table="t", pooling="mean")], seed=0))
lengths = torch.tensor([2**62, 2**62, 2**62, 2**62 + 4])
try:
    view(KeyedJaggedTensor(["f"], torch.arange(4), lengths=lengths))
except DataError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-500:]
    assert "argument lengths" in found.stdout


def test_thousands_of_tables_train_at_once() -> None:
    code = """
import torch
from embtables import CollisionlessTable, Feature, Sgd, Tables
from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import PooledView
names = [f"t{i}" for i in range(2000)]
made = [CollisionlessTable(name=n, dim=4, optimizer=Sgd(learning_rate=1.0)) for n in names]
tables = Tables(made, [Feature(name=n, table=n) for n in names], seed=0)
ids = JaggedIds(tuple(names), torch.arange(4000), torch.ones(4000, dtype=torch.int64), 2)
PooledView(tables)(ids).sum().backward()
tables.step()
print(sum(stats.rows for stats in tables.stats().values()), len(open("/proc/self/maps").readlines()))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-500:]
    rows, mappings = map(int, found.stdout.split())
    assert rows == 4000
    assert mappings < 20_000  # of 65,530 that a process may have


def test_tables_that_memory_does_not_hold_say_what_they_need() -> None:
    code = """
import resource
from embtables import CollisionlessTable, Feature, FixedTable, Sgd, Tables
from embtables.errors import ConfigError, StateError
import torch
sgd = Sgd(learning_rate=1.0)
small = Tables([CollisionlessTable(name="c", dim=256, optimizer=sgd)], [Feature(name="c", table="c")], seed=0)
small.set("c", torch.arange(10), torch.zeros(10, 256))
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), -1))
try:
    Tables([FixedTable(name="big", dim=256, num_rows=10**8, optimizer=sgd)], [Feature(name="f", table="big")], seed=0)
except ConfigError as error:
    print(error)
rows = torch.zeros(300_000, 256)
try:
    for start in range(0, 10**7, len(rows)):
        small.set("c", torch.arange(start, start + len(rows)), rows)
except StateError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-500:]
    first, second = found.stdout.splitlines()
    assert "1 tables do not fit into memory: the rows of the fixed ones need 95.37 GiB; the largest is 'big'" in first
    assert "memory ran out in set" in second
    assert "bytes" in second
