"""Figures of a version's tables, from its files alone: no torch, no tables made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embtables.rows.content import Words
from embtables.rows.optimizers import WEIGHT
from embtables.schema import CollisionlessTable, FixedTable
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest, TableEntry
from embtables.state.format.recorded_schema import RecordedTable, recorded_tables
from embtables.state.format.version import TABLES_FILE, Tensors
from embtables.state.format.weight_dtype import WeightDtype
from embtables.state.read.version_reader import read_artifacts, read_tensors
from embtables.state.tools.collisions import Collisions, estimated_collisions, no_collisions
from embtables.state.tools.histograms import Distribution, of_counts, of_integers, of_reals
from embtables.state.tools.live_rows import LiveRows, live_rows, waiting_counts


@dataclass(frozen=True, slots=True)
class TopRow:
    """A row that learned often.

    `id`: what the encoder made its key of, None if that is not known; `norm`: None if it is not finite.
    """

    key: int
    id: int | None
    count: int
    age: int | None
    norm: float | None


@dataclass(frozen=True, slots=True)
class Admission:
    """Who has a row in a collisionless table, and who lost it.

    Attributes:
        policy: the options of the table that decide it, as configured; None if the version does not record them.
        waiting: keys that are counted one by one and have no row yet (those counted in a sketch have no number).
        waiting_counts: how often these were seen so far.
        past_ttl: rows that read cold already and that the sweep has not reached.
        full: rows / max_rows, if there is such a limit.
        lost: keys that lost their row since the parent; None of a snapshot, which does not say.
        lost_in_chain: the same, summed over all deltas since the snapshot.
    """

    policy: dict[str, object] | None
    waiting: int
    waiting_counts: Distribution
    past_ttl: int | None
    full: float | None
    lost: int | None
    lost_in_chain: int


@dataclass(frozen=True, slots=True)
class TableFigures:
    """Figures of one table, as a version has it.

    Attributes:
        kind: fixed or collisionless.
        optimizer: its kind; None if the version does not record it.
        state: the columns of optimizer state; True: D values for each row, False: one.
        features: names of those that read it; empty if the version does not record them.
        now, steps, updates: the table's clock, its steps, Adam's t.
        bytes_by_part: what keys, weights, each optimizer state, bookkeeping (last sight and count), waiting keys, the
            sketch and the cold row of this version take in files, without Arrow's padding. Reports in JSON have this
            name, so it stays; `TableStats.bytes_by_column` is the same in memory.
        bytes_in_files: of the table's own files of the chain: rows that later deltas replaced are in it.
        age: clock minus last sight, of a collisionless table.
        optimizer: its kind; None if the version holds weights alone and records no configuration.
        count: gradients per row; None if the version holds weights alone, or the row store that trained it keeps
            none.
        norm: L2 norm of the weights, of rows where it is finite.
        not_finite: rows with a weight that is NaN or infinite.
        never_updated: share of rows without a gradient, 0..1; None if that is not known.
        top: rows by count, the greatest first; then by key.
        dtype: how files have the weights.
        error: of rounded weights `max_abs` and `rms`, as this version states them; None of float32.
    """

    table: str
    kind: Literal["fixed", "collisionless"]
    dim: int
    optimizer: str | None
    state: dict[str, bool]
    features: tuple[str, ...]
    rows: int
    now: int
    steps: int
    updates: int
    bytes_by_part: dict[str, int]
    bytes_in_files: int
    age: Distribution | None
    count: Distribution | None
    norm: Distribution
    not_finite: int
    never_updated: float | None
    top: tuple[TopRow, ...]
    admission: Admission | None
    collisions: Collisions | None
    dtype: WeightDtype
    error: dict[str, float] | None


def figures_of(state: StateFolder, chain: Sequence[Manifest], tables: Sequence[str], top: int) -> list[TableFigures]:
    """Figures of the named tables (by default of all) as the last version of a chain has them.

    Args:
        top: how many rows by count.

    Raises:
        StateError: there is no such table, a file is missing or damaged, or what the version records of its
            configuration is nothing that this build knows.
    """
    recorded = recorded_tables(chain[-1], read_artifacts(state, chain[0]))
    beside = read_tensors(state, chain[-1], TABLES_FILE)
    return [
        _figures(state, chain, name, recorded.get(name), beside, top)
        for name in dict.fromkeys(tables or sorted(chain[-1].tables))
    ]


def _figures(
    state: StateFolder, chain: Sequence[Manifest], name: str, recorded: RecordedTable | None, beside: Tensors, top: int
) -> TableFigures:
    rows = live_rows(state, chain, name)
    entry = chain[-1].tables[name]
    cold = sum(values.nbytes for tensor, values in beside.items() if tensor.startswith(f"{name}/cold/"))
    fixed = cold == 0
    # Row stores other than the host's have no counts: a table that learned is then one whose rows never did.
    counts = rows.counts
    if counts is not None and entry.updates and not counts.any():
        counts = None
    ages = None if fixed else entry.now - rows.seen.astype(np.int64)
    admission = None if ages is None else _admission(state, chain, name, recorded, rows, ages)
    sketch = sum(chain[-1].files[file].bytes for file in chain[-1].files_of(name, "sketch"))
    sizes = {
        "keys": rows.keys.nbytes,
        **{name: of_row * len(rows.keys) for name, of_row in rows.row_bytes.items()},
        "bookkeeping": rows.seen.nbytes + (0 if rows.counts is None else rows.counts.nbytes),
        "waiting": 0 if admission is None else 16 * admission.waiting,
        "sketch": sketch,
        "cold": cold,
    }
    finite = np.isfinite(rows.norms)
    return TableFigures(
        table=name,
        kind="fixed" if fixed else "collisionless",
        dim=rows.format.dim,
        optimizer=None if recorded is None else recorded.config.optimizer.kind,
        state={name: is_wide for name, is_wide in rows.row_columns.items() if name != WEIGHT},
        features=() if recorded is None else tuple(f.name for f in recorded.features),
        rows=len(rows.keys),
        now=entry.now,
        steps=entry.steps,
        updates=entry.updates,
        bytes_by_part={use: size for use, size in sizes.items() if size},
        bytes_in_files=sum(m.files[file].bytes for m in chain for file in m.tables[name].files),
        age=None if ages is None else of_integers(ages, _clock_unit(recorded, entry)),
        count=None if counts is None else of_counts(counts, "gradients"),
        norm=of_reals(rows.norms[finite], "L2 norm"),
        not_finite=int(len(finite) - finite.sum()),
        never_updated=None if counts is None or not len(counts) else float((counts == 0).mean()),
        top=_top(rows, ages, recorded, top),
        admission=admission,
        collisions=None if counts is None or not fixed else _collisions(counts, recorded),
        dtype=entry.dtype,
        error=None if entry.error is None else entry.error.model_dump(),
    )


def _clock_unit(recorded: RecordedTable | None, entry: TableEntry) -> str:
    """What the clock of a table counts: seconds of event time only if it has a ttl."""
    if recorded is not None and isinstance(recorded.config, CollisionlessTable):
        return "steps" if recorded.config.ttl_seconds is None else "seconds"
    return "steps" if entry.now == entry.steps else "ticks of its clock"


def _admission(
    state: StateFolder,
    chain: Sequence[Manifest],
    name: str,
    recorded: RecordedTable | None,
    rows: LiveRows,
    ages: npt.NDArray[np.int64],
) -> Admission:
    counts = waiting_counts(state, chain[-1], name)
    config = None if recorded is None else recorded.config
    known = config if isinstance(config, CollisionlessTable) else None
    ttl, limit = (None, None) if known is None else (known.ttl_seconds, known.max_rows)
    options = {"admission", "ttl_seconds", "max_rows", "cold_row"}
    return Admission(
        policy=None if known is None else known.model_dump(mode="json", include=options),
        waiting=len(counts),
        waiting_counts=of_counts(counts, "occurrences"),
        past_ttl=None if ttl is None else int((ages > ttl).sum()),
        full=None if limit is None else len(rows.keys) / limit,
        lost=None if chain[-1].parent is None else rows.lost[-1],
        lost_in_chain=sum(rows.lost),
    )


def _top(
    rows: LiveRows, ages: npt.NDArray[np.int64] | None, recorded: RecordedTable | None, limit: int
) -> tuple[TopRow, ...]:
    counts = rows.counts
    limit = 0 if counts is None else min(limit, int((counts > 0).sum()))
    if counts is None or limit == 0:
        return ()
    # A partition instead of a sort of all rows; of rows with the least count that gets in, those with the least keys.
    least = np.partition(counts, len(counts) - limit)[len(counts) - limit]
    above = np.flatnonzero(counts > least)
    chosen = np.concatenate([above, np.flatnonzero(counts == least)[: limit - len(above)]])
    chosen = chosen[np.argsort(-counts[chosen].astype(np.int64), kind="stable")]
    ids = None if recorded is None else recorded.ids(rows.keys[chosen])
    return tuple(
        TopRow(
            key=int(rows.keys[at]),
            id=None if ids is None else int(ids[place]),
            count=int(counts[at]),
            age=None if ages is None else int(ages[at]),
            norm=float(rows.norms[at]) if np.isfinite(rows.norms[at]) else None,
        )
        for place, at in enumerate(chosen)
    )


def _collisions(counts: Words, recorded: RecordedTable | None) -> Collisions | None:
    """None if features encode ids in ways of which each would need an estimate of its own, or wrap them."""
    if recorded is None or not isinstance(recorded.config, FixedTable):
        return None
    occupied, encoders = int((counts > 0).sum()), recorded.encoders
    if all(encoder.collisions == "none" for encoder in encoders):
        return no_collisions(occupied)
    draws = {encoder.num_keys for encoder in encoders}
    if len(draws) != 1 or any(encoder.collisions != "random" for encoder in encoders):
        return None
    return estimated_collisions(len(counts), occupied, draws.pop())
