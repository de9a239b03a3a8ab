"""A run that was asked to stop saves what it has learned, and stops."""

from __future__ import annotations

from embtables.pipelines.progress import say
from embtables.pipelines.run_place import RunPlace
from embtables.pipelines.training.hooks.checkpoints import Checkpoints
from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.run_content import RunState
from embtables.pipelines.training.signals import InterruptedRunError, StopRequest
from embtables.shard.world import World


class StopWhenAsked(Hook):
    """Raises InterruptedRunError after the step at which this rank, or another, was asked to stop."""

    def __init__(self, request: StopRequest, checkpoints: Checkpoints, run: RunPlace, world: World, *, shown: bool):
        self._request = request
        self._checkpoints = checkpoints
        self._run = run
        self._world = world
        self._shown = shown

    def after_step(self, state: RunState, step: StepDone) -> None:
        """See Hook. Of several ranks all stop at the step before which one was asked."""
        if not (step.totals.stop if self._world.size > 1 else self._request.is_asked()):
            return
        if self._shown and self._world.size == 1 and self._run.keeps_every_version:
            say(f"{self._request.name}: saving what was learned; a second Ctrl-C gives it up")
        self._checkpoints.save(state)
        self._checkpoints.wait()
        by = self._request.name or "another rank"
        raise InterruptedRunError(f"stopped by {by} at step {state.step}, {self._run.go_on_hint()}")
