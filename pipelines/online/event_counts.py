"""What became of events, written down as a run goes: a run that never ends has no report."""

from __future__ import annotations

from embtables.pipelines.online.event_flow import EventFlow
from embtables.pipelines.training.hooks.hook import Hook
from embtables.pipelines.training.metrics_log import MetricsLog
from embtables.pipelines.training.run_content import RunState


class EventCounts(Hook):
    """Writes the joiner's counts to metrics.jsonl after each interval in which they have changed."""

    def __init__(self, flow: EventFlow, log: MetricsLog) -> None:
        self._flow = flow
        self._log = log
        self._written: dict[str, int] = {}

    def after_stretch(self, state: RunState, *, whole: bool) -> None:
        """See Hook."""
        counts = {name: number for name, number in self._flow.counts.items() if number}
        if counts != self._written:
            self._log.append([{"step": state.step, "epoch": state.stretch, "events": counts}])
            self._written = counts
