"""Digests of what a model reads of a request: of each feature's rows, as they were found for its ids, and of each dense
column. Equal digests mean equal bits; they are small enough for a log, and say later which feature was another one.

    served:   what the server made of the request, on its fast way, at two levels
    expected: what the features stage of training makes of the whole rows

Both are digests of K rows, so that they are equal where the two ways agree.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from embtables.inputs.columns import Ids
from embtables.inputs.features import Block
from embtables.rows.optimizers import WEIGHT
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.service import Request

DENSE = "dense/"  # before the name of a dense column


def served_fingerprints(scorer: RequestScorer, request: Request) -> dict[str, str]:
    """Of what a server reads, by feature, and then by `dense/<column>`: 16 hexadecimal digits. Raises Refusal."""
    converted = scorer.stage.convert(scorer.given(request))
    k = converted.own.n
    dense = np.empty((k, len(scorer.version.content.trained.dense)), np.float32)
    ids: dict[str, tuple[Ids, bool, int]] = {}
    for level in (converted.shared, converted.own):
        ids |= {name: (of, is_keys, level.n) for name, (of, is_keys) in level.ids.items()}
        for places, values in level.dense:
            dense[:, list(places)] = values
    return _fingerprints(scorer, ids, dense)


def expected_fingerprints(scorer: RequestScorer, block: Block) -> dict[str, str]:
    """The same of K whole rows."""
    features = scorer.version.content.trained.features
    ids = {feature.name: (of, False, block.num_rows) for feature, of in zip(features, block.ids, strict=True)}
    return _fingerprints(scorer, ids, block.dense)


def _fingerprints(
    scorer: RequestScorer, ids: Mapping[str, tuple[Ids, bool, int]], dense: npt.NDArray[np.float32]
) -> dict[str, str]:
    """`ids`: by feature of n rows, 1 or K, and whether they are keys already."""
    schema, k = scorer.version.content.trained, len(dense)
    found = {}
    for feature in schema.features:
        of, is_keys, n = ids[feature.name]
        times = k if n == 1 else 1
        digest = xxhash.xxh3_64(np.tile(of.lengths_of(n), times).tobytes())
        if of.weights is not None:
            digest.update(np.tile(of.weights, times).tobytes())
        for rows in _rows(scorer, feature.name, of.values, is_keys=is_keys):
            digest.update(np.tile(rows, (times, 1)).tobytes())
        found[feature.name] = digest.hexdigest()
    for place, column in enumerate(schema.dense):
        found[DENSE + column.column] = xxhash.xxh3_64_hexdigest(dense[:, place].tobytes())
    return found


def _rows(
    scorer: RequestScorer, feature: str, ids: npt.NDArray[np.int64], *, is_keys: bool
) -> list[npt.NDArray[np.float32]]:
    """The rows of ids in each table that the feature reads."""
    tables = scorer.version.scorer.tables
    numbers = {config.name: number for number, config in enumerate(tables.configs)}
    found = []
    for read in tables.features:
        if read.feature.name == feature:
            keys = torch.tensor(ids if is_keys else read.encoder.encode(ids))
            found.append(tables.rows.read(numbers[read.table.name], WEIGHT, keys).numpy())
    return found
