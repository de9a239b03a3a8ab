"""Constants of a machine that nobody has, and scenarios over drawn keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from embtables.keyspace import table_seed
from embtables.pipelines.plan.keys import Estimate, KeySample
from embtables.pipelines.plan.load import Job, JobLookup
from embtables.pipelines.plan.machine import Link, Machine, Point, Rates, Reading, Wire, Work
from embtables.pipelines.plan.scenario import Scenario
from embtables.schema import CollisionlessTable, Feature, FixedTable, Hash, RowwiseAdagrad, Table


def machine(measured_for: str = "", **changes: Any) -> Machine:
    work = Work(call=1e-4, feature=1e-5, occurrence=5e-8, key=1e-7, key_floats=1e-9)
    rates = Rates(
        threads=1,
        dense=(Point(rows=10, seconds=1e-3), Point(rows=100, seconds=4e-3)),
        tables=work,
        asking=work,
        owning=work,
        miss=Work(key=1e-7),
        made=1e-6,
        base_bytes=400_000_000,
    )
    found = Machine(
        measured_for=measured_for,
        cores=2,
        cache_bytes=1 << 25,
        alone=rates,
        rank=rates,
        wire=Wire(exchange=1e-4, wait=1e-4, message=1e-5, byte=1e-9, reduction=1e-4, reduced_byte=1e-9),
        reading=Reading(decode=1e-6, convert=1e-6, alone=2e-6, batch=1e-7, bytes_per_row=100, converted_bytes=100),
        dense_parameters=1000,
    )
    return found.model_copy(update=changes)


def keys(rng: np.random.Generator, rows: int, each: int, values: int, batch_rows: int) -> KeySample:
    drawn = (rng.zipf(1.2, rows * each) % values).astype(np.int64)
    return KeySample(drawn, np.repeat(np.arange(rows), each), rows, batch_rows)


def table(name: str, dim: int = 8, rows: int | None = None, **options: Any) -> Table:
    common: dict[str, Any] = {"name": name, "dim": dim, "optimizer": RowwiseAdagrad(learning_rate=0.1), **options}
    return CollisionlessTable(**common) if rows is None else FixedTable(num_rows=rows, **common)


def scenario(tables: list[Table], samples: dict[str, KeySample], batch_rows: int, **changes: Any) -> Scenario:
    job = Job(
        tables={t.name: t for t in tables},
        features=tuple(Feature(name=t.name, table=t.name, encoder=Hash(seed=1)) for t in tables),
        seeds={t.name: table_seed(0, t.name) for t in tables},
        lookups=(JobLookup(tuple(t.name for t in tables), {t.name: 1 for t in tables}, True, False),),
        batch_rows=batch_rows,
        dense_parameters=1000,
    )
    rows = {t.name: float(t.key_range or len(samples[t.name].distinct_keys)) for t in tables}
    given: dict[str, Any] = {
        "estimates": {name: Estimate(n, n, n, "given") for name, n in rows.items()},
        "train_rows": 1e6,
        "machine": machine(),
        "link": Link(),
        "block_rows": 1000,
        **changes,
    }
    return Scenario(job=job, samples=samples, **given)
