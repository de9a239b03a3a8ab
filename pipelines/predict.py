"""Prediction: parquet in, the same rows with a score column out, in the same order."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embtables.errors import ConfigError, DataError, StateError
from embtables.pipelines.config import absolute
from embtables.pipelines.load_run import LoadedRun
from embtables.pipelines.progress import RowProgress
from embtables.pipelines.sources.parquet import Log, ParquetReader
from embtables.schema import LogConfig


def predict(
    loaded: LoadedRun, source: str, output: Path, *, columns: Sequence[str] | None = None, shown: bool = True
) -> dict[str, Any]:
    """Scores every row of the parquet files at `source` and writes them to `output`.

    Args:
        columns: input columns to carry over; by default all of them.
        output: a parquet file, written completely or not at all.

    The score column is `score` for a schema with one label, else `score_<label>`. The input needs the columns of
    features and dense columns alone; `data.where` and `data.split` are not applied: every row of the input has one row
    in the output.
    """
    config = loaded.config
    names = [label.name or label.column for label in config.labels]
    score_names = ["score"] if len(names) == 1 else [f"score_{name}" for name in names]
    log = Log(config, _unfiltered(config.data, source))
    carried = tuple(columns) if columns is not None else tuple(log.stored_columns)
    clash = set(score_names) & set(carried)
    if clash:
        raise ConfigError(f"the input has a column '{min(clash)}' already; choose the carried ones with --columns")
    reader = ParquetReader(
        log,
        None,
        batch_size=config.evaluate.batch_size,
        fitted=loaded.scorer.fitted,
        extra_columns=carried,
        role="scoring",
    )
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}")
    rows = 0
    writer: pq.ParquetWriter | None = None
    try:
        with RowProgress("predict", reader.total_rows_hint, shown=shown) as progress:
            for item in reader:
                assert item.extra is not None
                table = item.extra
                scores = loaded.scorer.score(item.batch)
                for index, name in enumerate(score_names):
                    table = table.append_column(name, pa.array(scores[:, index].numpy()))
                if writer is None:
                    writer = pq.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
                rows += table.num_rows
                progress.advance(table.num_rows)
        if writer is None:
            raise DataError("holds no rows to score", path=source)
        writer.close()
        writer = None
        temporary.replace(output)
    except OSError as error:
        raise StateError(f"cannot write the scores: {error.strerror or error}", file=output) from error
    finally:
        if writer is not None:
            writer.close()
        temporary.unlink(missing_ok=True)
    return {"rows": rows, "output": str(output), "columns": [*carried, *score_names]}


def _unfiltered(data: LogConfig, source: str) -> LogConfig:
    update = {"path": absolute(source, Path.cwd()), "files": "**/*.parquet", "where": (), "split": None, "parts": None}
    return data.model_copy(update={**update, "prepare": None, "on_bad_row": "error"})
