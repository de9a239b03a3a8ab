"""Loss and rate of training, every so many steps."""

from __future__ import annotations

from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.metrics_log import MetricsLog
from embtables.pipelines.training.run_content import RunState


class Metrics(Hook):
    """Writes the mean loss and the rate to the log of figures.

    Attributes:
        written: what was written after the last step, as text; None if nothing was.
    """

    def __init__(self, log: MetricsLog, every_steps: int) -> None:
        self._log = log
        self._every_steps = every_steps
        self.written: str | None = None

    def after_step(self, state: RunState, step: StepDone) -> None:
        """See Hook."""
        self.written = None
        if step.totals.rows == 0:  # there was nothing to learn from
            return
        self._log.add(step.loss, step.totals.rows)
        self.written = self._log.flush(state.step, state.stretch) if state.step % self._every_steps == 0 else None
