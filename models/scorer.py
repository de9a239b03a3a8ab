"""`Scorer`: a trained model for inference, from raw rows to scores. Evaluation, prediction and serving all use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from embtables.arguments import as_ids
from embtables.errors import ConfigError, StateError
from embtables.given import as_choice, as_flag, as_name, as_path, need
from embtables.ids.strings import hash_strings
from embtables.inputs.batch import Batch, JaggedIds
from embtables.inputs.features import FeatureTransform, FittedTransforms
from embtables.lookup.views import RowsById
from embtables.models.build import build_model, features_of, tables_of
from embtables.models.dense import load_dense
from embtables.models.registry import ModelConfig
from embtables.models.task import Task, task_of
from embtables.models.version_content import ScoringContent, scoring_content
from embtables.rows.stores import ROW_STORES
from embtables.schema import Schema
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.read.find import find
from embtables.state.read.load import load
from embtables.state.read.version_reader import read_artifacts, shares_keys
from embtables.tables.lookup_tables import LookupTables
from embtables.tables.row_store import RowStoreName
from embtables.tables.table_set import Tables

Ids: TypeAlias = "Tensor | npt.NDArray[Any] | Sequence[int] | Sequence[str] | pa.Array | pa.ChunkedArray"
RowsToScore: TypeAlias = "Batch | pa.Table | pa.RecordBatch | Mapping[str, Any]"


class Scorer:
    """A model over its tables, read and never changed. Shape letters: B rows, D dimension.

    Args:
        schema: what columns of raw rows mean.
        tables: what the model looks up.
        model: over views of the tables.
        fitted: transforms that were fitted on training data.
        task: how outputs become scores.
        autocast: the dense net computes in bf16.

    Example:
        >>> import embtables
        >>> run = embtables.train("my.yaml", runs_dir="runs", max_steps=20, shown=False)
        >>> scorer = embtables.Scorer.from_version(run.path, "last")
        >>> tuple(scorer.score({"user": [7, 8], "item": [0, 99]}).shape)  # (B, n_labels)
        (2, 1)
        >>> tuple(scorer.embed("item", [0, 3, 99]).shape)  # (n, D)
        (3, 8)
    """

    def __init__(
        self,
        schema: Schema,
        tables: LookupTables,
        model: nn.Module,
        fitted: FittedTransforms,
        task: Task[Any],
        *,
        autocast: bool = False,
    ) -> None:
        need(schema, Schema, "schema", "a Schema")
        need(tables, LookupTables, "tables", "the Tables or ServedTables that the model looks up")
        need(model, nn.Module, "model", "a torch module")
        need(fitted, FittedTransforms, "fitted", "FittedTransforms")
        as_flag(autocast, "autocast")
        self.schema = schema
        self.tables = tables
        self.model = model
        self.fitted = fitted
        self.task = task
        self._autocast = autocast
        self._transform = FeatureTransform.for_scoring(schema, fitted)
        self._rows_by_id: dict[str, RowsById] = {}

    @classmethod
    def from_version(
        cls,
        folder: Path | str,
        which: str = "best",
        *,
        row_store: RowStoreName = "host",
    ) -> Scorer:
        """A scorer of a version alone: its tables, model, transforms and seed are what the version records.

        Args:
            folder: of a run, or of its versions (`checkpoints` in the run's folder).
            which: `best`, `last`, or a version's name: `resume-12`.
            row_store: see Tables.

        Raises:
            ConfigError: these are no path and no name.
            StateError: there is no such version, it is damaged, or another build has written it.
        """
        as_choice(row_store, ROW_STORES, "row_store")
        path, which = as_path(folder, "folder"), as_name(which, "which")
        versions = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        chain = find(versions, which)
        content = scoring_content(chain[-1])
        return cls.of_chain(
            StateFolder(versions),
            chain,
            content.trained,
            task_of(content.trained, content.scoring.negative_sampling_rate, content.scoring.late),
            row_store=row_store,
            autocast=content.scoring.precision == "bf16",
        )

    @classmethod
    def of_chain(
        cls,
        state: StateFolder,
        chain: Sequence[Manifest],
        schema: Schema,
        task: Task[Any],
        *,
        seed: int | None = None,
        row_store: RowStoreName = "host",
        autocast: bool = False,
    ) -> Scorer:
        """A scorer of the version that a chain leads to, for a schema that has the version's tables and features.

        Args:
            seed: of the run, for an old version that does not record it.

        Raises:
            StateError: the version is damaged, or lacks what it should record.
        """
        content = scoring_content(chain[-1])
        seed = seed if content.seed is None else content.seed
        if seed is None:
            raise StateError("records no seed; score with the run that wrote it", version=chain[-1].name)
        config = content.trained.model
        tables = Tables(
            tables_of(schema, config),
            features_of(schema, config),
            seed=seed,
            row_store=row_store,
            artifacts=read_artifacts(state, chain[0]),
            shares_keys=shares_keys(chain[0]),
        )
        tensors = load(state, chain, tables).tensors
        model = _model_over(tables, schema, config, tensors, chain[-1].name)
        return cls(schema, tables, model, content.fitted, task, autocast=autocast)

    @classmethod
    def of_content(
        cls,
        content: ScoringContent,
        tables: LookupTables,
        tensors: Mapping[str, npt.NDArray[Any]],
        version_name: str,
    ) -> Scorer:
        """A scorer of what a version says, over tables that hold its rows already.

        Args:
            tables: `Tables` or `ServedTables` of `tables_of` and `features_of` the version's schema.
            tensors: of the version; dense weights are copied.
            version_name: for errors.

        Raises:
            StateError: a dense tensor is missing, or of another shape.
        """
        task = task_of(content.trained, content.scoring.negative_sampling_rate, content.scoring.late)
        model = _model_over(tables, content.trained, content.trained.model, tensors, version_name)
        autocast = content.scoring.precision == "bf16"
        return cls(content.trained, tables, model, content.fitted, task, autocast=autocast)

    @property
    def trained_tables(self) -> Tables:
        """The tables, with all that training knows of them. Raises ConfigError where they are only served."""
        need(self.tables, Tables, "tables", "the Tables of training, to ask for all their rows")
        assert isinstance(self.tables, Tables)
        return self.tables

    @property
    def autocast(self) -> bool:
        """Whether the dense net computes in bf16."""
        return self._autocast

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Any:
        """The model's outputs for a batch, as the task's figures take them."""
        self.model.eval()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._autocast):
            return self.task.forward(self.model, batch)

    def score(self, rows: RowsToScore) -> Tensor:
        """Scores (B, n_labels) float32; for the pointwise task probabilities.

        Args:
            rows: a batch; or raw rows, with the columns of the schema's features and dense columns: an Arrow table, a
                data frame, or a list or array for each column.

        Raises:
            DataError: a column is missing, has the wrong type, or holds values without meaning.
        """
        if not isinstance(rows, Batch):
            rows = self._transform.batch(rows)
        return self.task.scores(self.outputs(rows))

    def embed(self, feature: str, ids: Ids) -> Tensor:
        """The embeddings (n, D) float32 of n raw ids of a feature, as lookups of inference read them.

        Args:
            ids: integers of any type, or strings where the feature's column holds strings: a tensor, a numpy or Arrow
                array, a column of a data frame, or a list.

        Raises:
            ConfigError: there is no such feature, or the model has no embeddings of it.
            DataError: these are no ids, or the encoder refuses one.
        """
        as_name(feature, "feature")
        if feature not in self._rows_by_id:
            self._rows_by_id[feature] = RowsById(self.tables, self._table_of(feature), feature)
        values = as_ids(ids, hash_strings=hash_strings, feature=feature)
        ones = torch.ones(len(values), dtype=torch.int64)
        rows: Tensor = self._rows_by_id[feature](JaggedIds((feature,), values, ones, len(values)))
        return rows

    def _table_of(self, feature: str) -> str:
        names = {f.name: f.table for f in self.schema.features}
        if feature not in names:
            raise ConfigError(f"there is no such feature; there are: {', '.join(names)}", feature=feature)
        if names[feature] not in {config.name for config in self.tables.configs}:
            raise ConfigError("the model has no embeddings, only first-order weights", feature=feature)
        return names[feature]


def _model_over(
    tables: LookupTables,
    schema: Schema,
    config: ModelConfig,
    tensors: Mapping[str, npt.NDArray[Any]],
    version_name: str,
) -> nn.Module:
    """The configured model over tables, with a version's dense tensors. Raises StateError where they do not fit."""
    with torch.random.fork_rng(devices=[]):  # the caller's random state is its own
        model = build_model(schema, config, tables)
    try:
        load_dense(model, {name: torch.from_numpy(values.copy()) for name, values in tensors.items()})
    except StateError as error:
        raise StateError(error.message, version=version_name, **error.path) from error
    return model
