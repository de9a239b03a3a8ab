"""A trained run loaded for inference: its configuration, and a scorer of its best (or last) checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embtables.inputs.id_kinds import id_kinds
from embtables.models.scorer import Scorer
from embtables.models.task import task_of
from embtables.pipelines.config import RunConfig
from embtables.pipelines.prepare.log_splits import with_absolute_joins, with_prepared_data
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.sources.files.source import Source
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.open_log import open_log
from embtables.pipelines.sources.rows.split import LogPart
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.figures.evaluate import evaluate
from embtables.pipelines.training.figures.odd_figures import odd_figures
from embtables.pipelines.training.run_content import run_content
from embtables.pipelines.training.start.check_types import other_ids
from embtables.pipelines.training.start.saved_config import refuse_other_schema
from embtables.pipelines.warn import Warnings
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.find import find


@dataclass(frozen=True)
class LoadedRun:
    """What evaluation and prediction need of a run.

    Attributes:
        id_kinds: by column what the ids of features were made of in training; empty of an older version.
    """

    config: RunConfig
    scorer: Scorer
    step: int
    id_kinds: Mapping[str, str] = field(default_factory=dict)

    def warnings_of(self, log: Log) -> list[str]:
        """Warnings of features whose ids are made of something else in a log than in training.

        Raises:
            DataError: the log lacks a column of a feature.
        """
        columns = dict.fromkeys(column for feature in self.config.features for column in feature.columns)
        _, table = log.without_rows(list(columns))
        return other_ids(self.id_kinds, id_kinds(self.config, table), self.config)


def load_run(run: RunDir, which: checkpoint.Which | None = None, overrides: tuple[str, ...] = ()) -> LoadedRun:
    """The run at its best checkpoint if it has one, else at its last.

    Raises:
        StateError: there is no checkpoint, it is damaged, or the overrides make it another schema's.
    """
    config = with_absolute_joins(run.config(overrides))
    chain = find(run.checkpoints, which)
    content = run_content(chain[-1])
    refuse_other_schema(config, content)
    scorer = Scorer.of_chain(
        StateFolder(run.checkpoints),
        chain,
        config,
        task_of(config, config.evaluate.negative_sampling_rate, config.late),
        seed=config.train.seed,
        row_store=config.train.row_store,
        autocast=config.train.precision == "bf16",
    )
    return LoadedRun(config, scorer, content.state.step, content.state.id_kinds)


def figures_of(
    loaded: LoadedRun, part: LogPart | None, source: Source | None = None, *, shown: bool = True
) -> dict[str, Any]:
    """Figures of a loaded run on a part of the log that its configuration names; `source`: rows in memory."""
    config = with_prepared_data(loaded.config, shown=shown)
    log = open_log(config, config.data, source)
    warnings = Warnings([], shown=shown)
    warnings.add(loaded.warnings_of(log))
    figures = evaluate(loaded.scorer, config, log, part, warnings=warnings, shown=shown)
    warnings.add(odd_figures(figures, part))
    return {**figures, "part": part, "step": loaded.step, "warnings": warnings.texts}
