"""What each feature adds to the score of one candidate: its logit less the logit with the feature's rows read cold.

All variants are scored as one batch: row 0 as asked, and a row for each feature and dense column with that one changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.inputs.batch import Batch
from embtables.inputs.columns import Ids
from embtables.inputs.features import Block, make_batch
from embtables.rows.optimizers import WEIGHT
from embtables.schema import CollisionlessTable
from embtables.schema.schema import LINEAR_PREFIX
from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.trust.columns import block_of
from embtables.tables.served_tables import ServedTables
from embtables.tables.table_feature import TableFeature

_TRIES = 64  # draws of ids until one has no row
Int64s = npt.NDArray[np.int64]


def explain(scorer: RequestScorer, request: wire.ScoreRequest, versions: wire.Versions) -> wire.ExplainAnswer:
    """Why the one candidate (or row) of a request has its score.

    Args:
        versions: that answer now.

    Raises:
        Refusal: 422, there is not just one candidate, or it cannot be scored; 501, the model has other outputs than a
            logit for each label.
    """
    rows, field = (request.candidates, "candidates") if request.rows is None else (request.rows, "rows")
    if rows is None or len(rows) != 1:
        raise Refusal(422, f"one candidate is explained at a time, received {len(rows or ())}", field)
    block = block_of(scorer, request)
    readers = [_readers_of(scorer, feature.name) for feature in scorer.version.content.trained.features]
    changed = [_cold_ids(scorer, of, ids) for of, ids in zip(readers, block.ids, strict=True)]
    batch = _variants(scorer, block, [ids for ids, _ in changed])
    outputs = scorer.version.scorer.outputs(batch)
    if not isinstance(outputs, Tensor) or outputs.shape != (batch.num_rows, len(scorer.labels)):
        raise Refusal(501, "only models that give a logit for each label are explained")
    logits = outputs.double().numpy()
    scores = scorer.version.scorer.task.scores(outputs)[0].tolist()
    added = [dict(zip(scorer.labels, row, strict=True)) for row in (logits[0] - logits[1:]).tolist()]
    parts = [
        wire.FeaturePart(of[0].feature.name, without, contribution, of[0].table.name, _rows(scorer, of[0], ids.values))
        for of, ids, (_, without), contribution in zip(readers, block.ids, changed, added[: len(readers)], strict=True)
    ]
    for place, dense in enumerate(scorer.version.content.trained.dense):
        contribution, value = added[len(readers) + place], float(block.dense[0, place])
        parts.append(wire.FeaturePart(dense.column, "zero", contribution, value=value))
    return wire.ExplainAnswer(
        request.request_id or "",
        dict(zip(scorer.labels, scores, strict=True)),
        dict(zip(scorer.labels, logits[0].tolist(), strict=True)),
        versions,
        parts,
    )


def _readers_of(scorer: RequestScorer, feature: str) -> list[TableFeature]:
    """What reads a feature's ids: its embeddings first, then first-order weights."""
    found = [read for read in scorer.version.scorer.tables.features if read.feature.name == feature]
    return sorted(found, key=lambda read: read.table.name.startswith(LINEAR_PREFIX))


def _cold_ids(scorer: RequestScorer, readers: Sequence[TableFeature], ids: Ids) -> tuple[Ids, str]:
    """As many ids that read cold rows; of a fixed table, which has none, no ids."""
    if all(isinstance(read.table, CollisionlessTable) for read in readers):
        unknown = _id_without_row(scorer, readers)
        if unknown is not None:
            return replace(ids, values=np.full_like(ids.values, unknown)), "cold"
    return Ids(np.empty(0, np.int64), np.zeros(1, np.int64), None if ids.weights is None else ids.weights[:0]), "absent"


def _id_without_row(scorer: RequestScorer, readers: Sequence[TableFeature]) -> int | None:
    tables, rng = _tables(scorer), np.random.default_rng(0)
    for unknown in rng.integers(-(2**63), 2**63 - 1, _TRIES):
        keys = [(read.table.name, read.encoder.encode(np.array([unknown], np.int64))) for read in readers]
        if all(tables.is_cold(table, torch.tensor(of)).all() for table, of in keys):
            return int(unknown)
    return None


def _variants(scorer: RequestScorer, block: Block, cold: Sequence[Ids]) -> Batch:
    """The row as it is; then with each feature's ids replaced; then with each dense column at zero."""
    features, columns = len(cold), block.dense.shape[1]
    names = [feature.name for feature in scorer.version.content.trained.features]
    changed = [_with_ids(block, place, ids) for place, ids in enumerate(cold)]
    for place in range(columns):
        dense = block.dense.copy()
        dense[:, place] = 0.0
        changed.append(replace(block, dense=dense))
    assert len(changed) == features + columns
    return make_batch(names, [(each, 0, 1) for each in (block, *changed)])


def _with_ids(block: Block, place: int, ids: Ids) -> Block:
    """A block of one row with another feature's ids."""
    starts = None if ids.lengths is None else np.array([0, len(ids.values)], np.int64)
    return replace(
        block,
        ids=(*block.ids[:place], ids, *block.ids[place + 1 :]),
        starts=(*block.starts[:place], starts, *block.starts[place + 1 :]),
    )


def _rows(scorer: RequestScorer, read: TableFeature, ids: Int64s) -> list[wire.RowInfo]:
    tables, table = _tables(scorer), read.table.name
    keys = torch.tensor(read.encoder.encode(ids))
    is_cold, seen, now = tables.is_cold(table, keys), tables.seen(table, keys), tables.now(table)
    norms = np.linalg.norm(tables.rows.read(tables.number(table), WEIGHT, keys).double().numpy(), axis=1)
    grows = isinstance(read.table, CollisionlessTable)
    return [
        wire.RowInfo(key, bool(cold), float(norm), max(0, now - int(at)) if grows and at else None)
        for key, cold, norm, at in zip(keys.tolist(), is_cold, norms, seen, strict=True)
    ]


def _tables(scorer: RequestScorer) -> ServedTables:
    tables = scorer.version.scorer.tables
    assert isinstance(tables, ServedTables)
    return tables
