"""Which parts a log has, and the data section as the reader sees it once the declared preparation has been done."""

from __future__ import annotations

from pathlib import Path

from embtables.pipelines.config import RunConfig, absolute
from embtables.pipelines.prepare.examples import prepare
from embtables.pipelines.progress import RowProgress
from embtables.pipelines.run_dir import DEFAULT_RUNS_DIR
from embtables.pipelines.sources.memory import MEMORY
from embtables.pipelines.sources.rows.split import LogPart
from embtables.schema import ColumnSplit, HashSplit, TimeSplit


def has_part(config: RunConfig, part: LogPart) -> bool:
    """Whether there may be rows of `part`; a log that is not divided is all for training."""
    split, parts = config.data.split, config.data.parts
    if parts is not None:
        return part in parts.given()
    if split is None:
        return part == "train"
    if part == "train":
        return True
    if isinstance(split, TimeSplit):
        return (split.validation_from if part == "validation" else split.test_from) is not None
    if isinstance(split, HashSplit):
        return (split.validation if part == "validation" else split.test) > 0.0
    assert isinstance(split, ColumnSplit)
    return bool(split.validation if part == "validation" else split.test)


def with_absolute_joins(config: RunConfig) -> RunConfig:
    """`config` with the paths of its joins made absolute: they are relative to data.path, of rows in memory to the
    working folder.
    """
    data = config.data
    if data.path is None:
        return config
    base = Path.cwd() if data.path == MEMORY else Path(data.path)
    joins = tuple(j.model_copy(update={"path": absolute(j.path, base)}) for j in data.join)
    return config.model_copy(update={"data": data.model_copy(update={"join": joins})})


def with_prepared_data(config: RunConfig, *, shown: bool = True) -> RunConfig:
    """`config` as the reader takes it: absolute joins, the examples of `data.prepare` built (or found) and named."""
    config = with_absolute_joins(config)
    data = config.data
    if data.prepare is None or data.path is None:
        return config
    with RowProgress("prepare", None, shown=shown) as progress:
        prepared = Path(config.train.runs_dir or DEFAULT_RUNS_DIR) / "prepared"
        folder = prepare(data.prepare, data.path, data.files, prepared, progress.advance)
    update = {"path": str(folder), "files": "**/*.parquet", "prepare": None}
    # The definitions of its columns are data.prepare's, which the reader does not see any more.
    return config.model_copy(update={"data": data.model_copy(update=update), "running": config.running_columns()})
