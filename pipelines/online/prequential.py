"""Figures of an online run: every row is scored before anything is trained on it (prequential evaluation).

    replay: an interval's rows are scored at its beginning, as servers with the version of that moment answer them
    live:   a batch is scored as it comes, by the newest weights

Overall, by slices, and for each period of event time (a line of metrics.jsonl, with the rows and bytes that tables had
when its last rows were scored). AUC is exact, so the scores of the whole run are in memory, 8 to 20 bytes per row; they
are of the rows since this process began.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from embtables.inputs.features import FittedTransforms
from embtables.models.figures import Judged
from embtables.pipelines.config import RunConfig
from embtables.pipelines.online.drift import DriftWatch
from embtables.pipelines.online.intervals import Interval, IntervalItem
from embtables.pipelines.sources.protocol import SourceItem, Stretch
from embtables.pipelines.training.figures.evaluate import of_all_ranks, slices_of
from embtables.pipelines.training.hooks.hook import Hook
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.metrics_log import MetricsLog
from embtables.pipelines.training.run_content import RunState

PART = "online"


class Prequential(Hook):
    """Judges scores of rows before the step that trains on them.

    Args:
        watch: gets every judged row, too.
        ahead: score a whole interval before its first step; else each batch before its own.
        report_seconds: event time of a period.

    Attributes:
        newest: the figures of the last period that ended, for people; None before.
    """

    def __init__(
        self,
        learner: Learner,
        fitted: FittedTransforms,
        log: MetricsLog,
        watch: DriftWatch | None,
        *,
        ahead: bool,
        report_seconds: float,
    ) -> None:
        self._config: RunConfig = learner.config
        self._task = learner.task
        self._tables = learner.tables
        self._world = learner.world
        self._scorer = learner.scorer(fitted)
        self._log = log
        self._ahead = ahead
        self._seconds = report_seconds
        self._whole = self._figures()
        self._slices = {s.name: self._figures() for s in self._config.evaluate.slices}
        self._of_period = self._figures()
        self._period: int | None = None
        self._rows = self._rows_of_period = 0
        self._watch = watch
        self.newest: dict[str, Any] | None = None
        self.seconds = 0.0

    def _figures(self) -> Any:
        return self._task.figures(self._config.evaluate)

    def before_stretch(self, state: RunState, stretch: Stretch) -> None:
        """See Hook."""
        if self._ahead:
            assert isinstance(stretch, Interval), "an online run has intervals"
            for item in stretch.look_ahead():
                self._judge(state, item)

    def before_step(self, state: RunState, item: SourceItem) -> None:
        """See Hook."""
        if not self._ahead:
            assert isinstance(item, IntervalItem), "an online run has intervals"
            self._judge(state, item)

    def at_end(self, state: RunState) -> None:
        """See Hook."""
        self._end_period(state)

    def report(self) -> dict[str, Any]:
        """The figures of all rows that were judged, with those of slices."""
        found: dict[str, Any] = dict.fromkeys(self._task.headline)
        if self._rows:
            found |= self._whole.compute()
        if self._slices and self._rows:
            found["slices"] = {name: figures.compute() for name, figures in self._slices.items()}
        return {**found, "rows": self._rows}

    def _judge(self, state: RunState, item: IntervalItem) -> None:
        begun = time.perf_counter()
        judged = self._whole.judged(self._scorer.outputs(item.batch), item.batch, item.extra)
        rows, in_slices = of_all_ranks(self._world, judged, self._in_slices(item))
        if len(rows):
            self._add(state, item.clock, rows, in_slices)
        self.seconds += time.perf_counter() - begun

    def _in_slices(self, item: IntervalItem) -> npt.NDArray[np.bool_]:
        return slices_of(self._config, item.batch.num_rows, item.extra)

    def _add(self, state: RunState, clock: int, rows: Judged, in_slices: npt.NDArray[np.bool_]) -> None:
        period = int(clock // self._seconds)
        if self._period is not None and period != self._period:
            self._end_period(state)
        self._period = period
        self._whole.update(rows)
        self._of_period.update(rows)
        for number, figures in enumerate(self._slices.values()):
            figures.update(rows[in_slices[:, number]])
        self._rows += len(rows)
        self._rows_of_period += len(rows)
        if self._watch is not None:
            self._watch.add(rows)

    def _end_period(self, state: RunState) -> None:
        if self._period is None or not self._rows_of_period:
            return
        begun = np.datetime64(int(self._period * self._seconds), "s")
        tables = self._tables.stats().values()
        self.newest = {
            "from": f"{begun}Z",
            **self._of_period.compute(),
            "rows": self._rows_of_period,
            "table_rows": sum(of.rows for of in tables),
            "table_bytes": sum(sum(of.bytes_by_column.values()) for of in tables),
        }
        self._log.evaluated(state.step, state.stretch, PART, self.newest)
        self._of_period, self._rows_of_period = self._figures(), 0
