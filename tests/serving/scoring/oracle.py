"""The simplest way to score a request: whole rows, all columns, one batch. Fast ways are compared with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from embtables.inputs.features import Block, FeatureTransform
from embtables.serving import wire
from embtables.serving.scoring.columns.column_rules import ColumnRules
from embtables.serving.scoring.columns.given import Given, given_in_json, given_in_table
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.scoring.whole_columns import whole_columns
from embtables.serving.versions.served_version import ServedVersion


def given_of(version: ServedVersion, request: wire.ScoreRequest | pa.Table) -> Given:
    rules = ColumnRules(version.content, SideTables(version.side_tables.values()))
    return given_in_json(request, rules) if isinstance(request, wire.ScoreRequest) else given_in_table(request, rules)


def full_rows(version: ServedVersion, request: wire.ScoreRequest | pa.Table) -> pa.Table:
    """A request's rows with all columns that the model reads."""
    side_tables = SideTables(version.side_tables.values())
    rules = ColumnRules(version.content, side_tables)
    return whole_columns(given_of(version, request), rules, side_tables).table()


def block_of(version: ServedVersion, rows: pa.Table) -> Block:
    return FeatureTransform.for_scoring(version.content.trained, version.content.fitted).convert(rows)


def scores_of(version: ServedVersion, rows: pa.Table) -> Any:
    return version.scorer.score(rows).numpy()


def cold_of(version: ServedVersion, rows: pa.Table) -> dict[str, list[int]]:
    """By feature the rows with at least one cold id."""
    block, found = block_of(version, rows), {}
    tables = version.scorer.tables
    looked_up = {config.name for config in tables.configs}
    for feature, ids in zip(version.content.trained.features, block.ids, strict=True):
        table = feature.table if feature.table in looked_up else f"linear.{feature.table}"
        known = tables.known(table, np.array(ids.values), feature=feature.name).numpy()
        cold = np.repeat(np.arange(block.num_rows), ids.lengths_of(block.num_rows))[~known]
        if len(cold):
            found[feature.name] = np.unique(cold).tolist()
    return found
