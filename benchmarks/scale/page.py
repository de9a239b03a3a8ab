"""Figures of docs/scale.md: 10^11 rows on 1,024 ranks.

Keys are drawn: 26 features with one id each, Zipf 1.05, tables of unequal size. A test compares page and module.
"""

from __future__ import annotations

import functools
import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import _harness
from benchmarks.scale.curve import curve as curve_of
from benchmarks.tables.data import zipf_ranks
from embtables.pipelines.config import RunConfig
from embtables.pipelines.plan.calibrate import calibrate, measured_for
from embtables.pipelines.plan.keys import Estimate, KeySample
from embtables.pipelines.plan.load import job_of
from embtables.pipelines.plan.machine import Link, Machine
from embtables.pipelines.plan.sample import read_sample
from embtables.pipelines.plan.scenario import Point, Scenario, table_memory
from embtables.schema import Adagrad, Adam, CollisionlessTable, RowwiseAdagrad, Sgd, validate

PAGE = _harness.ROOT / "docs" / "scale.md"
CONSTANTS = _harness.ROOT / "docs" / "scale-machine.json"
ROWS, RANKS, FEATURES, DIM, PART, GBPS = 10**11, 1024, 26, 32, 4096, 25.0
SAMPLE_ROWS = 1 << 18
WRITE_BYTES = 360e6  # a second and rank, of a snapshot: benchmarks/RESULTS.md, State
VERSION_SECONDS = 600.0
LOG_ROWS = 10**12
OPTIMIZERS = {
    "sgd": Sgd(learning_rate=0.01),
    "rowwise_adagrad": RowwiseAdagrad(learning_rate=0.01),
    "adagrad": Adagrad(learning_rate=0.01),
    "adam": Adam(learning_rate=0.01),
}


def shares() -> list[float]:
    """Of all rows, each table's: a fifth less than that of the one before."""
    found = [0.8**n for n in range(FEATURES)]
    return [share / sum(found) for share in found]


def config(path: str) -> RunConfig:
    """26 tables that grow, 13 dense columns, DCN-V2; of a log at `path`."""
    table: dict[str, Any] = {"dim": DIM, "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.01}}
    content = {
        "name": "scale",
        "tables": [{"name": f"t{n}", **table} for n in range(FEATURES)],
        "features": [{"name": f"f{n}", "table": f"t{n}"} for n in range(FEATURES)],
        "labels": [{"column": "click"}],
        "dense": [{"column": f"d{n}"} for n in range(13)],
        "data": {"path": path},
        "model": {"kind": "dcnv2", "num_cross_layers": 3, "hidden_sizes": [256, 256, 256]},
        "train": {"batch_size": PART},
    }
    return validate(RunConfig, content)


def drawn(table: int) -> KeySample:
    """Keys of a table in 262,144 rows."""
    keys = zipf_ranks(np.random.default_rng(table), SAMPLE_ROWS, int(shares()[table] * ROWS))
    return KeySample(keys, np.arange(SAMPLE_ROWS), SAMPLE_ROWS, PART)


def measure() -> None:
    """Measures this machine, with a log of such rows, and writes the constants."""
    with tempfile.TemporaryDirectory() as folder:
        columns: dict[str, Any] = {f"f{n}": drawn(n).keys for n in range(FEATURES)}
        rng = np.random.default_rng(0)
        columns |= {f"d{n}": rng.standard_normal(SAMPLE_ROWS).astype(np.float32) for n in range(13)}
        pq.write_table(pa.table({**columns, "click": rng.integers(0, 2, SAMPLE_ROWS)}), f"{folder}/log.parquet")
        made = config(folder)
        calibrate(made, read_sample(made, SAMPLE_ROWS, shown=False).reading).save(CONSTANTS)


@functools.cache
def scenario() -> Scenario:
    """The run, at dimension 32 with rowwise Adagrad."""
    made = config("log")
    machine = Machine.load(CONSTANTS, measured_for(made))
    rows = {f"t{n}": share * ROWS for n, share in enumerate(shares())}
    return Scenario(
        job=job_of(made, machine.dense_parameters),
        samples={f"t{n}": drawn(n) for n in range(FEATURES)},
        estimates={name: Estimate(n, n, n, "given") for name, n in rows.items()},
        train_rows=float(LOG_ROWS),
        machine=machine,
        link=Link(GBPS),
        block_rows=made.data.block_rows,
    )


def memory() -> str:
    """Bytes of rows by dimension and optimizer."""
    lines = []
    for dim in (16, 32, 64, 128):
        for name, optimizer in OPTIMIZERS.items():
            tables = [CollisionlessTable(name=f"t{n}", dim=dim, optimizer=optimizer) for n in range(FEATURES)]
            held = [table_memory(t, s * ROWS, 0.0, RANKS) for t, s in zip(tables, shares(), strict=True)]
            own = sum(m.rows + m.keys for m in held)
            least = held[0].rows // held[0].num_rows
            lines.append([dim, name, least, f"{own / (ROWS / RANKS):.0f}", _size(own), _size(own * RANKS)])
    header = ["dim", "optimizer", "bytes per row", "with the map of keys", "per rank", "all ranks"]
    return _harness.table(header, lines)


def _at(part: int) -> Point:
    return scenario().at(RANKS, part * RANKS)


def steps() -> str:
    """A step at 1,024 ranks, by rows per rank."""
    points = {part: _at(part) for part in (64, 512, PART)}
    names = {
        "dense": "dense net",
        "batch": "putting the batch together",
        "asking": "lookups: distinct keys, sums, gradients",
        "owning": "owner: rows looked up and updated",
        "skew": "hottest owner, more than the mean",
        "latency": "calls: 4 all_to_all, 2 all_reduce",
        "wire": f"bytes at {GBPS:g} Gbit/s",
        "reading": "reading: every rank decodes the whole batch",
    }
    lines = [
        ["rows of the batch", *(f"{p.load.batch_rows:,.0f}" for p in points.values())],
        ["distinct keys a rank asks for", *(f"{_asked(p):,.0f}" for p in points.values())],
        ["keys the busiest owner is asked for, of the mean", *(f"{p.load.skew:.2f}" for p in points.values())],
        ["sent by a rank", *(_size(p.traffic.sent) for p in points.values())],
        ["sent by all", *(_size(p.traffic.sent * RANKS) for p in points.values())],
    ]
    lines += [
        [f"ms: {text}", *(f"{p.time.parts()[n] * 1e3:,.0f}" for p in points.values())] for n, text in names.items()
    ]
    lines += [["**ms per step**", *(f"**{p.time.seconds * 1e3:,.0f}**" for p in points.values())]]
    lines += [["ms, if reading were shared", *(f"{_unread(p) * 1e3:,.0f}" for p in points.values())]]
    lines += [["rows/s, all ranks", *(f"{p.rows_per_second:,.0f}" for p in points.values())]]
    lines += [["rows/s, if reading were shared", *(f"{p.load.batch_rows / _unread(p):,.0f}" for p in points.values())]]
    return _harness.table(["rows per rank", *(f"{part:,}" for part in points)], lines)


def _asked(point: Point) -> float:
    return sum(t.asked for t in point.load.tables.values())


def _unread(point: Point) -> float:
    return point.time.seconds - point.time.reading


def curve() -> str:
    """4,096 rows per rank, 1 to 1,024 ranks: tables are as large as the ranks make possible, not 10^11 at fewer."""
    first = scenario().at(1, PART)
    lines = []
    for point in curve_of(scenario(), PART):
        n = point.load.ranks
        shared = point.load.batch_rows / _unread(point)
        lines.append(
            [
                f"{n:,}",
                f"{point.time.seconds * 1e3:,.0f}",
                f"{point.rows_per_second:,.0f}",
                f"{100 * point.rows_per_second / first.rows_per_second / n:.1f} %",
                point.time.bound_by,
                f"{100 * shared / (first.load.batch_rows / _unread(first)) / n:.1f} %",
                _size(point.memory.total),
            ]
        )
    header = ["ranks", "step ms", "rows/s", "efficiency", "mostly", "efficiency, reading shared", "memory per rank"]
    return _harness.table(header, lines)


def versions() -> str:
    """Bytes and seconds of snapshots and deltas."""
    lines = []
    for dim in (16, 32, 128):
        row = 8 + 4 * dim + 4 + 4 + 4  # key, weight, sum, seen, count
        own = ROWS / RANKS * row
        point = _at(PART)
        touched = sum(t.touched for t in point.load.tables.values()) / RANKS
        changed = min(ROWS / RANKS, touched * VERSION_SECONDS / _unread(point))
        lines.append(
            [
                dim,
                _size(own),
                _size(own * RANKS),
                f"{own / WRITE_BYTES:,.0f} s",
                _size(changed * row),
                f"{changed * row / WRITE_BYTES:,.0f} s",
            ]
        )
    header = ["dim", "snapshot per rank", "all ranks", "written in", "delta per rank, at most", "written in"]
    return _harness.table(header, lines)


def limits() -> str:
    """What there is one of for each pair of ranks, or once."""
    point = scenario().at(RANKS, PART * RANKS)
    blocks = FEATURES * RANKS
    rank = scenario().machine.rank
    reading = scenario().machine.reading
    lines = [
        ["connections of a rank: two process groups, each with all others", f"{2 * (RANKS - 1):,}"],
        ["connections of all ranks", f"{RANKS * (RANKS - 1):,}"],
        ["blocks of messages that a rank puts together and takes apart in a step", f"{2 * blocks:,}"],
        ["ms for that", f"{(rank.asking.block + rank.owning.block) * blocks * 1e3:,.0f}"],
        ["rows of a bucket of the largest table", f"{shares()[0] * ROWS / 1024:,.0f}"],
        ["s of one core to decode one step's batch, at every rank", f"{reading.decode * point.load.batch_rows:,.1f}"],
        ["hours of one core to decode 10^12 rows, at every rank", f"{reading.decode * LOG_ROWS / 3600:,.0f}"],
        ["MB of lists of touched rows per rank, at most", f"{_listed(point):,.0f}"],
    ]
    return _harness.table(["what", "at 1,024 ranks"], lines)


def _listed(point: Point) -> float:
    return sum(t.listed for t in point.memory.tables.values()) / 1e6


SECTIONS = {"memory": memory, "steps": steps, "curve": curve, "versions": versions, "limits": limits}


def _size(value: float) -> str:
    for size, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if value >= size:
            return f"{value / size:,.1f} {name}"
    return f"{value:,.0f} B"
