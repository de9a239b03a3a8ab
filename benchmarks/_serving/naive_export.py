"""What the naive service needs of a trained model: weights as numpy has them, and a row for each raw id of the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import embtables
from benchmarks._serving import online_retail

Raw = int | str | tuple[int | str, ...]
UNKNOWN = -(2**60)  # an id that no log has: its row is the cold one


def export(run: Path, scorer: embtables.Scorer, folder: Path) -> None:
    """Writes net.npz, moments.json, tables.npz (row 0 is the cold row) and ids-<feature>.json: [raw id, row] pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    net = {name: value for name, value in scorer.model.state_dict().items() if not name.startswith("embeddings.")}
    np.savez(folder / "net.npz", allow_pickle=False, **{name: value.numpy() for name, value in net.items()})
    (folder / "moments.json").write_text(json.dumps(dict(scorer.fitted.moments)))
    ids = _raw_ids(run, scorer)
    weights: dict[str, list[Any]] = {}
    for feature in scorer.schema.features:
        raw = ids[feature.name]
        of_table = weights.setdefault(feature.table, [scorer.embed(feature.name, [UNKNOWN]).numpy()])
        first = sum(map(len, of_table))
        of_table.append(scorer.embed(feature.name, np.array(list(raw.values()), np.int64)).numpy())
        pairs = [[key, first + place] for place, key in enumerate(raw)]
        (folder / f"ids-{feature.name}.json").write_text(json.dumps(pairs))
    np.savez(
        folder / "tables.npz", allow_pickle=False, **{name: np.concatenate(parts) for name, parts in weights.items()}
    )


def _raw_ids(run: Path, scorer: embtables.Scorer) -> dict[str, dict[Raw, int]]:
    """By feature the int64 id of each raw value that the test days have."""
    transform = embtables.FeatureTransform.for_scoring(scorer.schema, scorer.fitted)
    found: dict[str, dict[Raw, int]] = {feature.name: {} for feature in scorer.schema.features}
    for rows in online_retail.tables(run):
        block = transform.convert(rows)
        for feature, ids in zip(scorer.schema.features, block.ids, strict=True):
            found[feature.name].update(zip(_raw_values(feature, rows), ids.values.tolist(), strict=True))
    return found


def _raw_values(feature: embtables.Feature, rows: pa.Table) -> list[Any]:
    """As the naive service sees them, in the order of the features stage."""
    if feature.cross is not None:
        return list(zip(*(rows[name].to_pylist() for name in feature.cross), strict=True))
    column = rows[feature.columns[0]]
    if feature.split is not None:
        return [word for text in column.to_pylist() for word in (text or "").split(feature.split) if word]
    if feature.timestamp_part == "hour":
        return [time.hour for time in column.to_pylist()]
    if feature.timestamp_part == "weekday":
        return [time.weekday() for time in column.to_pylist()]
    values = column.to_pylist()
    if feature.max_length is not None:
        return [each for row in values for each in (row or [])[-feature.max_length :]]
    return [each for each in values if each is not None]


def reference(scorer: embtables.Scorer, request: dict[str, Any]) -> torch.Tensor:
    """(K,) the scores of a request as prediction computes them."""
    return scorer.score(online_retail.as_rows(request))[:, 0]
