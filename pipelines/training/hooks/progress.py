"""What a user sees of a stretch while its rows go by."""

from __future__ import annotations

from embtables.pipelines.progress import RowProgress
from embtables.pipelines.sources.protocol import Stretch
from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.hooks.metrics import Metrics
from embtables.pipelines.training.run_content import RunState


class Progress(Hook):
    """Shows rows and rate of the stretch, beside the figures that `metrics`, an earlier hook, has written."""

    def __init__(self, metrics: Metrics, *, shown: bool) -> None:
        self._metrics = metrics
        self._shown = shown
        self._of_stretch: RowProgress | None = None

    def before_stretch(self, state: RunState, stretch: Stretch) -> None:
        """See Hook."""
        self._of_stretch = RowProgress(stretch.title, stretch.total_rows_hint, shown=self._shown)
        self._of_stretch.__enter__()

    def after_step(self, state: RunState, step: StepDone) -> None:
        """See Hook."""
        if self._of_stretch is not None:
            self._of_stretch.advance(step.totals.rows, self._metrics.written)

    def after_stretch(self, state: RunState, *, whole: bool) -> None:
        """See Hook."""
        self.close()

    def close(self) -> None:
        """Removes the bar, also if an error ends the stretch."""
        if self._of_stretch is not None:
            self._of_stretch.__exit__(None, None, None)
            self._of_stretch = None
