"""Prediction: parquet in, the same rows with a score column out, in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pyarrow import fs

from embtables.errors import ConfigError, DataError, StateError, TrainingError
from embtables.inputs.batch import Batch
from embtables.pipelines.config import RunConfig, absolute
from embtables.pipelines.progress import RowProgress
from embtables.pipelines.sources.files.source import Source
from embtables.pipelines.sources.parquet import Log, ParquetReader, ReaderItem
from embtables.pipelines.sources.quarantine import Quarantine
from embtables.pipelines.trained.carried import CarriedRows
from embtables.pipelines.trained.load_run import LoadedRun
from embtables.pipelines.training.figures.cold_ids import ColdIds
from embtables.pipelines.training.figures.not_finite import why_scores_are_not_finite
from embtables.pipelines.warn import Warnings
from embtables.pipelines.whole_parquet import WholeParquet
from embtables.schema import LogConfig

OnBadRow = Literal["error", "null"]


def predict(
    loaded: LoadedRun,
    source: str,
    output: Path,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    shown: bool = True,
) -> dict[str, Any]:
    """Scores every row of the parquet files at `source` and writes them to `output`.

    Args:
        columns: input columns to carry over, joined ones included; by default all that the input has.
        on_bad_row: a row whose value has no meaning is an error, or has null for its scores.
        output: a parquet file, written completely or not at all.

    The score column is `score` for a schema with one label, else `score_<label>`. The input needs the columns of
    features and dense columns alone; `data.where`, `data.split`, `data.on_bad_row` and `data.on_bad_file` are not
    applied: every row of the input has one row in the output.

    Raises:
        TrainingError: a score is not finite.
    """
    _check_output(output)
    config = loaded.config
    log = Log(config, unfiltered(config.data, source))
    _check_apart(output, source, log.source)
    warnings = Warnings([], shown=shown)
    warnings.add(loaded.warnings_of(log))
    score_names = score_names_of(config)
    stored = log.source.column_names
    wanted = tuple(columns) if columns is not None else tuple(stored)
    check_names(wanted, score_names)
    if log.num_rows == 0:
        raise DataError("holds no rows to score", path=source)
    carried = CarriedRows(log.source, [name for name in wanted if name in stored])
    joined = [name for name in wanted if name not in stored]
    done = unscored = 0
    try:
        with RowProgress("predict", log.num_rows, shown=shown) as progress, WholeParquet(output) as file:
            for rows in scored_rows(loaded, log, on_bad_row, warnings, joined):
                table = carried.take(len(rows))
                found = {name: table.column(name) for name in carried.schema.names} | rows.extra | rows.scores
                file.write(pa.table({name: found[name] for name in (*wanted, *score_names)}))
                done += len(rows)
                unscored += rows.unscored
                progress.advance(len(rows))
    except OSError as error:
        raise StateError(f"cannot write the scores: {error.strerror or error}", file=output) from error
    report = {"rows": done, "unscored_rows": unscored, "output": str(output)}
    return {**report, "columns": [*wanted, *score_names], "warnings": warnings.texts}


class BadRows(Quarantine):
    """Rows that the reader sets aside, by their number in the whole input; or the first of them as an error."""

    def __init__(self, source: Source, on_bad_row: OnBadRow) -> None:
        super().__init__(None)
        self._rows_of = {file.path: file.num_rows for file in source.files}
        rows = np.cumsum([0, *self._rows_of.values()]).tolist()
        self._first = dict(zip(self._rows_of, rows, strict=False))
        self._on_bad_row = on_bad_row
        self._rows: list[int] = []
        self._taken: tuple[int, list[int]] = (0, [])

    def add(self, column: str, reason: str, places: list[tuple[str, int]]) -> None:
        """See Quarantine."""
        if self._on_bad_row == "error":
            file, row = places[0]
            hint = "mend the row, or give such rows null for a score with --on-bad-row null"
            raise DataError(f"{reason}; {hint}", file=file, column=column, row=row)
        self._rows += [self._first[file] + row for file, row in places]

    def take(self, start: int) -> list[int]:
        """The rows set aside since the last call, counted from row `start` of the input, ascending."""
        taken, self._rows = sorted(row - start for row in self._rows), []
        self._taken = (start, taken)
        return taken

    def place_of(self, scored: int) -> tuple[str, int]:
        """File, and row within it, of one of the scored rows that go with what was taken last."""
        row, without = self._taken
        others = np.setdiff1d(np.arange(scored + len(without) + 1), without)
        row += int(others[scored])
        file = next(file for file, first in self._first.items() if row < first + self._rows_of[file])
        return file, row - self._first[file]


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Rows of the input as they lie there.

    Attributes:
        scores: (rows,) by column of scores; null of a row without any.
        extra: (rows,) by joined column; null of a row without scores.
        unscored: how many rows have no scores.
    """

    scores: dict[str, pa.Array]
    extra: dict[str, pa.Array]
    unscored: int

    def __len__(self) -> int:
        return len(next(iter(self.scores.values())))


def scored_rows(
    loaded: LoadedRun, log: Log, on_bad_row: OnBadRow, warnings: Warnings, joined: Sequence[str] = ()
) -> Iterator[ScoredRows]:
    """All rows of a log that `unfiltered` describes, in its order.

    Args:
        warnings: where it is said, after the last row, that nearly no id of a feature is known.

    Raises:
        DataError: a row is bad, unless `on_bad_row` is `null`.
        TrainingError: a score is not finite.
    """
    batch_size, fitted = loaded.config.evaluate.batch_size, loaded.scorer.fitted
    reader = ParquetReader(log, None, batch_size=batch_size, fitted=fitted, extra_columns=joined, role="scoring")
    reader.quarantine = bad = BadRows(log.source, on_bad_row)
    cold = ColdIds(loaded.config, loaded.scorer.trained_tables, log, None)
    done = 0
    for item in reader:
        without = bad.take(done)
        cold.observe(item.batch)
        places = _places(item.batch.num_rows, without)
        extra = {} if item.extra is None else {n: item.extra.column(n).take(places) for n in item.extra.schema.names}
        yield ScoredRows(_scores(loaded, item, places, bad), extra, len(without))
        done += len(places)
    warnings.add(cold.warnings())


def _places(scored: int, without: Sequence[int]) -> pa.Array:
    """(scored + without,) for each row of the input its number among the scored ones; null of one without a score."""
    has_score = np.ones(scored + len(without), np.bool_)
    has_score[without] = False
    return pa.array(np.cumsum(has_score) - 1, mask=~has_score)


def _scores(loaded: LoadedRun, item: ReaderItem, places: pa.Array, bad: BadRows) -> dict[str, pa.Array]:
    names = score_names_of(loaded.config)
    if item.batch.num_rows == 0:
        return {name: pa.nulls(len(places), pa.float32()) for name in names}
    scores = _finite_scores(loaded, item.batch, bad)
    return {name: pa.array(scores[:, index]).take(places) for index, name in enumerate(names)}


def _finite_scores(loaded: LoadedRun, batch: Batch, bad: BadRows) -> npt.NDArray[np.float32]:
    """(B, n_labels) the scores of a batch.

    Raises:
        TrainingError: one is not finite; names its file and row, and the columns with the largest values.
    """
    scores: npt.NDArray[np.float32] = loaded.scorer.score(batch).numpy()
    wrong = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(wrong):
        file, row = bad.place_of(int(wrong[0]))
        those = replace(batch, dense=batch.dense[torch.from_numpy(wrong)])
        why = why_scores_are_not_finite(those, loaded.config, loaded.scorer.model)
        others = f", and those of {len(wrong) - 1:,} rows of the {len(scores) - 1:,} after it" if len(wrong) > 1 else ""
        raise TrainingError(f"the score of this row is not finite{others}. {why}", file=file, row=row)
    return scores


def _check_output(output: Path) -> None:
    if output.is_dir():
        raise ConfigError("is a folder; name the parquet file to write", output=output)
    if output.exists() and not output.is_file():  # the file that is renamed to it would replace a device
        raise ConfigError("is not a file; name the parquet file to write", output=output)
    if not output.parent.is_dir():
        raise ConfigError("lies in a folder that does not exist; make it first", output=output)


def _check_apart(output: Path, path: str, source: Source) -> None:
    """Raises ConfigError where the output would replace a file of the input."""
    if not isinstance(source.files[0].filesystem, fs.LocalFileSystem):
        return
    here = output.resolve()
    if here in {Path(file.path).resolve() for file in source.files}:
        raise ConfigError(f"is a part of the input {path}; write it elsewhere", output=output)


def check_names(wanted: Sequence[str], score_names: Sequence[str]) -> None:
    """Raises ConfigError for names of columns that the output cannot have."""
    clash = set(score_names) & set(wanted)
    if clash:
        raise ConfigError(
            f"the input has a column '{min(clash)}' already; choose the carried ones with columns (--columns)"
        )
    twice = [name for name in dict.fromkeys(wanted) if wanted.count(name) > 1]
    if twice:
        raise ConfigError(f"columns (--columns) names '{twice[0]}' twice")


def score_names_of(config: RunConfig) -> list[str]:
    """Names of the columns of scores: `score` of one label, else `score_<label>`."""
    names = [label.name or label.column for label in config.labels]
    return ["score"] if len(names) == 1 else [f"score_{name}" for name in names]


def unfiltered(data: LogConfig, source: str) -> LogConfig:
    """The data section for a log of which every row is scored."""
    update = {"path": absolute(source, Path.cwd()), "files": "**/*.parquet", "where": (), "split": None, "parts": None}
    # Rows without a score are set aside by the reader, and then written without one or reported as an error.
    return data.model_copy(update={**update, "prepare": None, "on_bad_row": "quarantine", "on_bad_file": "error"})
