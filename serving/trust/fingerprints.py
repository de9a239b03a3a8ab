"""Digests of what a model read of a request: of each feature's ids and the rows found for them, of each dense column.

Equal digests mean equal bits. They are small enough for a log, and say later which feature was another one.
"""

from __future__ import annotations

import numpy as np
import torch
import xxhash

from embtables.inputs.features import Block
from embtables.rows.optimizers import WEIGHT
from embtables.serving.scoring.request_scorer import RequestScorer

DENSE = "dense/"  # before the name of a dense column


def fingerprints(scorer: RequestScorer, block: Block) -> dict[str, str]:
    """By feature, and then by `dense/<column>`, 16 hexadecimal digits."""
    found: dict[str, str] = {}
    tables, schema = scorer.version.scorer.tables, scorer.version.content.trained
    numbers = {config.name: number for number, config in enumerate(tables.configs)}

    for feature, ids in zip(schema.features, block.ids, strict=True):
        digest = xxhash.xxh3_64(np.ascontiguousarray(ids.lengths_of(block.num_rows)).data)
        if ids.weights is not None:
            digest.update(np.ascontiguousarray(ids.weights).data)
        for read in tables.features:
            if read.feature.name == feature.name and len(ids.values):
                keys = torch.from_numpy(read.encoder.encode(ids.values))
                rows = tables.rows.read(numbers[read.table.name], WEIGHT, keys)
                digest.update(np.ascontiguousarray(rows.numpy()).data)
        found[feature.name] = digest.hexdigest()
    for place, dense in enumerate(schema.dense):
        column = np.ascontiguousarray(block.dense[:, place])
        found[DENSE + dense.column] = xxhash.xxh3_64_hexdigest(column.data)
    return found
