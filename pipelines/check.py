"""`embtables schema check`: a configuration validated, and its columns looked for in the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embtables.inputs.features import FeatureTransform, FittedTransforms
from embtables.models.task import task_of
from embtables.pipelines.config import load_config
from embtables.pipelines.prepare.log_splits import with_absolute_joins
from embtables.pipelines.prepare.source_columns import check_source
from embtables.pipelines.sources.files.source import open_source
from embtables.pipelines.sources.log import column_check
from embtables.pipelines.sources.parquet import Log
from embtables.pipelines.training.start.shared_values import first_rows, shared_values
from embtables.rows.row_format import RowFormat
from embtables.schema import FixedTable


def check(path: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """A summary of the configuration. Raises ConfigError or DataError with the first thing that is wrong.

    With `data.prepare` the columns that it reads are looked for; those of the model are columns of the prepared
    examples, which do not exist yet.
    """
    config = with_absolute_joins(load_config(path, overrides))
    report: dict[str, Any] = {
        "name": config.name,
        "model": config.model.kind,
        "features": len(config.features),
        "dense": len(config.dense),
        "tables": {t.name: {"kind": t.kind, "rows": t.key_range, "dim": t.dim} for t in config.tables},
        "fixed_table_bytes": sum(
            t.num_rows * RowFormat(t.dim).bytes_per_row for t in config.tables if isinstance(t, FixedTable)
        ),
    }
    if config.data.prepare is not None and config.data.path is not None:
        source = open_source(config.data.path, config.data.files, quarantine=False)
        check_source(config.data.prepare, source, config.data.path)
    else:
        log, needs = Log(config, config.data), task_of(config).needs(config)
        column_check(log, FeatureTransform.for_training(config, FittedTransforms(), needs), "train")
        report["log_rows"] = log.num_rows
        if shared := shared_values(config, first_rows(config, log)):
            report["warnings"] = shared
    return report
