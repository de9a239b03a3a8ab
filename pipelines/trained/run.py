"""`Run`: a trained run, as `train` and `load` return it: its figures, its model and its rows.

A run without a folder has its model in memory and is gone with this object. A run with one is read from there when it
is first asked for something that needs the model: its best version if there is one, else its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from embtables.errors import ConfigError, DataError
from embtables.frames.table import Frame
from embtables.given import as_choice, as_flag, as_name, as_names, as_path
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.run_place import RunInMemory
from embtables.pipelines.sources.memory import MEMORY, MemorySource, source_of

if TYPE_CHECKING:
    import pyarrow as pa

    from embtables.models.scorer import Scorer
    from embtables.pipelines.trained.load_run import LoadedRun
    from embtables.pipelines.trained.predict import OnBadRow
    from embtables.pipelines.trained.table_rows import TableRows
    from embtables.schema import Feature, LogConfig

CheckpointName = Literal["best", "last"]
PartName = Literal["train", "validation", "test", "all"]


class Run:
    """A trained run. `train`, `resume` and `load` make one.

    Attributes:
        config: its whole configuration, defaults included.
        source: its rows, if they are in memory.

    Example:
        >>> import embtables
        >>> import pyarrow.parquet as pq
        >>> log = pq.read_table("log.parquet")
        >>> schema = embtables.Schema.infer(log, label="click")
        >>> run = embtables.train(schema, log, epochs=3, batch_size=256, shown=False)
        >>> run.metrics["auc"] > 0.7, run.path
        (True, None)
        >>> run.predict(log.slice(0, 3), shown=False).column_names
        ['user', 'item', 'click', 'score']
        >>> run.table("item").to_arrow().column_names
        ['key', 'id', 'weight']
    """

    def __init__(
        self,
        place: RunDir | RunInMemory,
        config: RunConfig,
        source: MemorySource | None = None,
        loaded: LoadedRun | None = None,
    ) -> None:
        self.config = config
        self._place = place
        self.source = source
        if loaded is not None:
            self._loaded = loaded

    @property
    def path(self) -> Path | None:
        """The run's folder; None if it has none, because no `runs_dir` was given."""
        return self._place.path

    def report(self) -> dict[str, Any]:
        """What the end of training reported: figures, rows, steps, tables and more (docs/training.md).

        Raises:
            StateError: the folder's report cannot be read.
        """
        return dict(self._place.report())

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures of the test part (else of the validation part) at the end of training; those of `report`."""
        return dict(takewhile(lambda item: item[0] != "part", self._place.report().items()))

    @property
    def history(self) -> list[dict[str, Any]]:
        """Figures as training went on, each with `step`, `epoch` and `part`; `pandas.DataFrame` takes the list."""
        return self._place.history()

    @property
    def scorer(self) -> Scorer:
        """The model over its tables, for raw rows and embeddings of ids."""
        return self._loaded.scorer

    @property
    def step(self) -> int:
        """The step after which the model was as it is here."""
        return self._loaded.step

    @cached_property
    def _loaded(self) -> LoadedRun:
        from embtables.pipelines.trained.load_run import LoadedRun, load_run

        if isinstance(self._place, RunDir):
            return load_run(self._place)
        if self._place.scorer is None:
            raise ConfigError("the run has not ended; there is no model yet")
        report = self._place.report()
        best = report["best_step"]
        step = report["steps"] if best is None else best
        return LoadedRun(self.config, self._place.scorer, step, self._place.id_kinds)

    @overload
    def predict(
        self,
        data: Frame,
        output: None = None,
        *,
        columns: Sequence[str] | None = None,
        on_bad_row: OnBadRow = "error",
        shown: bool = True,
    ) -> Frame: ...

    @overload
    def predict(
        self,
        data: Frame,
        output: Path | str,
        *,
        columns: Sequence[str] | None = None,
        on_bad_row: OnBadRow = "error",
        shown: bool = True,
    ) -> dict[str, Any]: ...

    def predict(
        self,
        data: Frame | Path | str,
        output: Path | str | None = None,
        *,
        columns: Sequence[str] | None = None,
        on_bad_row: OnBadRow = "error",
        shown: bool = True,
    ) -> Any:
        """Scores every row: with the column `score`, or `score_<label>` for each of several labels, in the same order.

        Args:
            data: a DataFrame, an Arrow table or dataset, or the path of parquet files, which goes with `output`.
            output: of a path, the parquet file to write; it appears whole or not at all.
            columns: columns to carry over, of a log joined ones included; by default all that the input has.
            on_bad_row: what a row does whose value has no meaning (NaN in a dense column): it ends the call with an
                error that names it, or has null for its scores (in pandas NaN).
            shown: whether progress is shown.

        Returns:
            The rows with their scores, pandas or polars for such a frame, else an Arrow table. With `output`, what was
            written: `rows`, `unscored_rows`, `output`, `columns`.

        Raises:
            ConfigError: the input has a column with the name of the scores, or arguments do not go together.
            DataError: the input cannot be read, or lacks a column.
            StateError: there is no version, it is damaged, or the output cannot be written.
            TrainingError: a score is not finite; names its row, and the columns with the largest values.
        """
        as_choice(on_bad_row, ("error", "null"), "on_bad_row")
        columns = None if columns is None else as_names(columns, "columns")
        as_flag(shown, "shown")
        if isinstance(data, str | Path):
            if output is None:
                raise ConfigError("the path of a log needs 'output', the parquet file to write; or give a DataFrame")
            from embtables.pipelines.trained.predict import predict

            place = as_path(output, "output")
            return predict(
                self._loaded, str(as_path(data, "data")), place, columns=columns, on_bad_row=on_bad_row, shown=shown
            )
        if output is not None:
            raise ConfigError("'output' goes with the path of a log; the scores of a DataFrame are returned")
        from embtables.pipelines.trained.score_frames import score_frame

        return score_frame(self._loaded, data, columns=columns, on_bad_row=on_bad_row, shown=shown)

    def evaluate(
        self, part: PartName | None = None, *, data: Frame | Path | str | None = None, shown: bool = True
    ) -> dict[str, Any]:
        """Figures on a part of the run's log, or on other rows.

        Args:
            part: by default the test part; of `data` all of its rows, as if they were not divided.
            data: other rows: a DataFrame, an Arrow table or dataset, or the path of a log. `data.where` applies.
            shown: whether progress is shown.

        Raises:
            ConfigError: the run's rows were in memory and are gone, or there is no such part.
            DataError: the part has no rows, or holds bad ones.
            StateError: there is no version, or it is damaged.
            TrainingError: a score is not finite.
        """
        from embtables.pipelines.trained.load_run import figures_of

        given = part if part is not None else "test" if data is None else "all"
        as_choice(given, ("train", "validation", "test", "all"), "part")
        as_flag(shown, "shown")
        loaded, source = self._loaded, self.source
        if data is not None:
            source = source_of(data)
            config = loaded.config.model_copy(update={"data": _of(loaded.config.data, data, source)})
            loaded = replace(loaded, config=config)
        return figures_of(loaded, None if given == "all" else given, source, shown=shown)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of its tables."""
        return tuple(config.name for config in self.scorer.tables.configs)

    def table(self, name: str) -> TableRows:
        """The rows of one of its tables. Raises ConfigError if there is no such table."""
        from embtables.pipelines.trained.table_rows import TableRows

        as_name(name, "name")
        return TableRows(self.scorer.trained_tables, name, self._text_of)

    def _text_of(self, feature: Feature) -> pa.Array | None:
        """The distinct strings that a feature's ids are hashes of, if the run's rows are here."""
        if self.source is None or feature.column is None:
            return None
        return self.source.distinct_text(feature.column, feature.split)

    def _repr_html_(self) -> str:
        """Figures, tables and curves, for notebooks."""
        from embtables.pipelines.trained.run_html import run_html

        where = "in memory" if self.path is None else str(self.path)
        title = f"{self.config.name}, {self.config.model.kind}, {where}"
        return run_html(title, self.metrics, self.report(), self.history)

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        figures = [f"{name}={value:.4f}" for name, value in self.metrics.items() if isinstance(value, float)]
        return f"Run({', '.join([self.config.name, self.config.model.kind, where, *figures[:2]])})"


def _of(data: LogConfig, rows: Any, source: MemorySource | None) -> LogConfig:
    """The data section with other rows."""
    from embtables.pipelines.config import absolute

    if source is not None and source.parts:
        raise DataError("is several parts; give the rows to evaluate as one table", table="data")
    path = MEMORY if source is not None else absolute(str(rows), Path.cwd())
    return data.model_copy(update={"path": path, "parts": None, "files": "**/*.parquet", "prepare": None})
