"""What a user sees of an online run: one bar over all intervals, with the figures of the last period."""

from __future__ import annotations

from embtables.pipelines.online.prequential import Prequential
from embtables.pipelines.progress import RowProgress
from embtables.pipelines.sources.protocol import Stretch
from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.run_content import RunState

_SHOWN = ("auc", "log_loss", "calibration")


class OnlineProgress(Hook):
    """Shows rows, rate, versions and the figures of the last period that ended."""

    def __init__(self, prequential: Prequential, *, shown: bool) -> None:
        self._prequential = prequential
        self._shown = shown
        self._bar: RowProgress | None = None

    def before_stretch(self, state: RunState, stretch: Stretch) -> None:
        """See Hook."""
        if self._bar is None:
            self._bar = RowProgress(stretch.title, stretch.total_rows_hint, shown=self._shown)
            self._bar.__enter__()

    def after_step(self, state: RunState, step: StepDone) -> None:
        """See Hook."""
        if self._bar is not None:
            self._bar.advance(step.totals.rows, self._text(state))

    def _text(self, state: RunState) -> str:
        newest = self._prequential.newest
        if newest is None:
            return f"interval {state.stretch + 1:,}"
        figures = [f"{name.replace('_', ' ')} {newest[name]:.4f}" for name in _SHOWN if newest.get(name) is not None]
        return f"interval {state.stretch + 1:,}, from {newest['from']}: {', '.join(figures)}"

    def close(self) -> None:
        """Removes the bar, also if an error ends the run."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
