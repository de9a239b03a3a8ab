"""Types of columns against what they are read for, by a table without rows: the code that converts rows decides."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from embtables.errors import ConfigError, DataError
from embtables.inputs.features import FeatureTransform, FittedTransforms, Needs
from embtables.inputs.where import condition_mask
from embtables.models.baseline import baseline_numbers
from embtables.models.figures import group_ids
from embtables.pipelines.config import Evaluate, RunConfig
from embtables.pipelines.prepare.log_splits import has_part
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.rows.split import part_mask
from embtables.schema import Schema


def check_types(config: RunConfig, log: Log, needs: Needs) -> pa.Table:
    """A table without rows that has every column which training and its evaluations read.

    Raises:
        DataError, ConfigError: a column is missing, or its type cannot be what it is read for.
    """
    transform = FeatureTransform.for_training(config, _unfitted(config), needs)
    is_evaluated = any(has_part(config, part) for part in ("validation", "test"))
    evaluate = config.evaluate if is_evaluated else Evaluate()
    columns = [*transform.columns, *log.filter_columns("train"), *_columns(evaluate)]
    file, table = log.without_rows(list(dict.fromkeys(columns)))
    try:
        transform.convert(table)
        condition_mask(table, config.data.where)
        part_mask(table, config.data.split, config.event_time, "train")
        _check_evaluate(evaluate, table)
    except DataError as error:
        if error.path.get("column") not in log.source.column_names:
            raise
        raise DataError(error.message, **{"file": file, **error.path}) from None
    return table


def other_ids(then: Mapping[str, str], here: Mapping[str, str], schema: Schema) -> list[str]:
    """Warnings of features whose ids were made of something else when the model was trained.

    Args:
        then, here: see embtables.inputs.id_kinds.
    """
    return [
        f"feature {feature.name}: column {column} holds {here[column]} here, but {then[column]} in training: none of "
        "its ids are those that were trained; write the column as it was"
        for feature in schema.features
        for column in feature.columns
        if column in then and column in here and then[column] != here[column]
    ]


def _columns(evaluate: Evaluate) -> list[str]:
    group = [] if evaluate.group_column is None else [evaluate.group_column]
    return [*(c.column for s in evaluate.slices for c in s.where), *evaluate.baseline_columns, *group]


def _check_evaluate(evaluate: Evaluate, table: pa.Table) -> None:
    for s in evaluate.slices:
        try:
            condition_mask(table, s.where)
        except ConfigError as error:
            raise ConfigError(error.message, **{"slice": s.name, **error.path}) from None
    for name in evaluate.baseline_columns:
        baseline_numbers(name, table.column(name))
    if evaluate.group_column is not None:
        group_ids(evaluate.group_column, table.column(evaluate.group_column))


def _unfitted(schema: Schema) -> FittedTransforms:
    """Transforms of the right names: without rows their values mean nothing."""
    names = {dense.column for dense in schema.dense}
    return FittedTransforms(
        dict.fromkeys(names, (0.0, 1.0)),
        dict.fromkeys(names, (0.0,)),
        {feature.name: (0.0,) for feature in schema.features if feature.num_buckets is not None},
    )
