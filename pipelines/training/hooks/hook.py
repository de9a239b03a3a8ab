"""`Hook`: what a run does between two batches. The loop knows the step and the source, and nothing else.

    before_stretch -> (before_step -> step -> after_step) ... -> after_stretch -> ... -> at_end

The loop calls its hooks in their order. Several ranks call the same hooks at the same steps, so a hook may use what all
ranks do together (`embtables.shard.world`); a decision that others of its calls depend on has to be the same at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from embtables.inputs.batch import Batch
from embtables.pipelines.sources.protocol import SourceItem, Stretch
from embtables.pipelines.training.rank_agreement import StepTotals
from embtables.pipelines.training.run_content import RunState


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step that was taken.

    Attributes:
        loss: the loss of the whole batch, a scalar.
        totals: sums over all ranks.
        batch: this rank's part of the batch.
    """

    loss: Tensor
    totals: StepTotals
    batch: Batch


class Hook:
    """What is done between batches: by itself nothing. A hook overrides what it needs.

    Each call gets the run's state, as it stands after the last step.
    """

    def is_done(self, state: RunState) -> bool:
        """Whether training is to end here; asked before the first batch and after every step. Same at all ranks."""
        return False

    def before_stretch(self, state: RunState, stretch: Stretch) -> None:
        """The source's next stretch begins, or what is left of it."""

    def before_step(self, state: RunState, item: SourceItem) -> None:
        """A batch is about to be trained on."""

    def after_step(self, state: RunState, step: StepDone) -> None:
        """A batch boundary: here a version may be taken."""

    def after_stretch(self, state: RunState, *, whole: bool) -> None:
        """The stretch is over, and the state stands at the next one; or within it, if it is not `whole`."""

    def at_end(self, state: RunState) -> None:
        """Nothing more is trained on."""
