"""The whole publication tried in small before the first step, so that what will fail fails in the first second.

a version of a few rows a table -> written in memory -> read as a server does -> a few rows of the log scored
the same files -> written to the run's folder and removed again
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embtables.errors import DataError, EmbtablesError, StateError
from embtables.inputs.values import BadRowsError
from embtables.keyspace import ALL_BUCKETS, bucket_order
from embtables.models.scorer import Scorer
from embtables.models.served import served_tables
from embtables.models.side_tables import read_side_table
from embtables.models.version_content import SideTableContent, scoring_content
from embtables.pipelines.prepare.side_tables import columns_needed
from embtables.pipelines.sources.log import Log
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.rows.content import TableContent
from embtables.rows.optimizers import WEIGHT
from embtables.rows.stored_table import StoredTable
from embtables.schema import FixedTable
from embtables.state.folder.memory_folder import MemoryFolder
from embtables.state.folder.version_folder import (
    LeaseHolder,
    NewFile,
    StateFolder,
    VersionKind,
    unwritten,
    write_files,
)
from embtables.state.format.manifest import Manifest
from embtables.state.format.side_file import SideFile
from embtables.state.format.weight_dtype import WeightDtype, stored_dtype, stored_width
from embtables.state.read.serve import load_served
from embtables.state.write.commit_across_ranks import commit
from embtables.state.write.rank_files import RankFiles, artifact_files, rank_files
from embtables.state.write.ranks import RankPart

_ROWS = 1_000  # of a table
_SCORED = 16
_LARGE = 1_000_000  # rows of fixed tables, which a server's tables would hold all
_KIND = VersionKind("serving", projection="weights")
SideTables = Sequence[tuple[SideTableContent, pa.Table]]


def try_publication(
    learner: Learner,
    holder: LeaseHolder,
    dtype: WeightDtype,
    content: Mapping[str, Any],
    side_tables: SideTables,
    log: Log,
) -> None:
    """Tries to publish a small version, and to score with it; nothing of it is left. Rank 0 alone does it.

    Where fixed tables are large the version is read, but not scored with: a server's tables would hold all their rows.

    Args:
        holder: of the lease of the folder to publish to.
        content: of a serving version, with `side_tables`.

    Raises:
        EmbtablesError: what would have failed, later: one sentence.
    """
    small = [(of, table.slice(0, _ROWS)) for of, table in side_tables]
    listed = [of.model_copy(update={"rows": len(table)}).model_dump(mode="json") for of, table in small]
    content = {**content, "side_tables": listed}

    def files() -> RankFiles:
        stored = learner.tables.stored
        part = RankPart(ALL_BUCKETS, {table.config.name: _few_rows(table) for table in stored})
        made = rank_files(stored, 0, part, checkpoint.served_arrays(learner), "weights", dtype)
        made.files |= artifact_files(learner.tables.artifacts)
        made.files |= {of.file: NewFile(SideFile(table).chunks()) for of, table in small}
        return made

    try:
        state = StateFolder(MemoryFolder())
        with LeaseHolder(state) as memory:
            version = commit(memory, _KIND, files, content)
        _read_as_a_server(state, version, log)
        _write_and_remove(holder, files())
    except EmbtablesError as error:
        reason = f"publish: a version for servers was tried before the first step, and failed: {error.message}"
        raise type(error)(reason, **error.path) from error


def _few_rows(table: StoredTable) -> TableContent:
    """A content of a table with a few made-up rows."""
    config = table.config
    most = config.num_rows if isinstance(config, FixedTable) else _ROWS
    keys = np.arange(min(most, _ROWS))
    keys = keys[bucket_order(keys, table.seed)]
    drawn = np.random.default_rng(0).standard_normal((len(keys) + 1, config.dim)).astype(np.float32)
    cold = {} if isinstance(config, FixedTable) else {WEIGHT: drawn[-1:]}
    return TableContent(keys, {WEIGHT: drawn[:-1]}, np.zeros(len(keys), np.uint32), np.empty(0, np.uint32), cold=cold)


def _read_as_a_server(state: StateFolder, version: Manifest, log: Log) -> None:
    """Reads it, and scores rows of the log with it."""
    content, chain = scoring_content(version), [version]
    for side_table in content.side_tables:
        read_side_table(state, version, side_table)
    if sum(t.num_rows for t in content.trained.tables if isinstance(t, FixedTable)) > _LARGE:
        state.verify(version)
        return
    tables = served_tables(state, chain)
    loaded = load_served(state, chain, tables)
    scorer = Scorer.of_content(content, tables, loaded.tensors, version.name)
    blocks = log.blocks(0, None)
    if not blocks:
        return
    rows = log.rows(blocks[0][:1], None, sorted(columns_needed(content.trained))).table.slice(0, _SCORED)
    while len(rows):
        try:
            scores = scorer.score(rows)
        except BadRowsError as error:  # the training's reader judges them, as data.on_bad_row says
            rows = rows.take(pa.array(np.setdiff1d(np.arange(len(rows)), error.rows)))
            continue
        if not bool(scores.isfinite().all()):
            raise DataError("a score of the first rows of the log is not finite")
        return


def _write_and_remove(holder: LeaseHolder, files: RankFiles) -> None:
    draft = holder.begin(_KIND)
    try:
        write_files(holder.state.folder, draft, files.files)
    except OSError as error:
        raise unwritten(draft, error, holder.state.folder.root) from error
    finally:
        holder.abandon(draft)


def space_warning(learner: Learner, folder: Path, dtype: WeightDtype, side_tables: SideTables) -> str | None:
    """What to warn of where the disk has no room for a first snapshot of the rows that there are now.

    Raises:
        StateError: the disk cannot be asked.
    """
    needed = sum(table.nbytes for _, table in side_tables)
    needed += sum(values.nbytes for values in checkpoint.served_arrays(learner).values())
    for config in (table.config for table in learner.tables.stored):
        # Of a collisionless table this rank holds its part.
        own = 0 if isinstance(config, FixedTable) else learner.tables.num_rows(config.name) * learner.world.size
        rows = config.num_rows if isinstance(config, FixedTable) else own
        weights = stored_width(dtype, config.dim) * stored_dtype(dtype).itemsize
        needed += rows * (weights + 12)  # key and last sight
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StateError(f"cannot be asked for its free space: {error.strerror}", folder=folder) from error
    if needed <= free:
        return None
    return f"publish: a first version for servers takes about {needed:,} bytes, but {folder} has {free:,} free"
