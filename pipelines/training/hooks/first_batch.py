"""A look at the first batch (dense columns that want a transform, columns that tell the label) and the first epoch."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from embtables.inputs.batch import Batch
from embtables.pipelines.config import RunConfig
from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.run_content import RunState
from embtables.pipelines.training.start.check_log import one_class
from embtables.pipelines.warn import Warnings
from embtables.shard.world import World

# Root mean square above which a dense column without a transform drowns the others.
_LARGE = 100.0
# With fewer rows a column of two values equals the label by chance.
_MIN_ROWS = 100


class FirstBatch(Hook):
    """Warns of what the first batch of a run shows, and of a first epoch with one class.

    The ranks warn of what rank 0 sees in its part of the batch. Labels are looked at until both classes were seen,
    because a log without parts to evaluate is not read before training.
    """

    def __init__(self, config: RunConfig, world: World, warnings: Warnings) -> None:
        self._config = config
        self._world = world
        self._warnings = warnings
        self._classes: set[int] = set()
        self._has_begun = False  # here: a run that was resumed within its first epoch has seen more than we

    def after_step(self, state: RunState, step: StepDone) -> None:
        """See Hook."""
        if len(self._classes) < 2 and step.batch.labels.numel():
            self._classes |= {int(label) for label in np.unique(step.batch.labels[:, 0].numpy())}
        if state.step != 1:
            return
        self._has_begun = True
        found: list[str] = []
        if self._world.rank == 0:
            found = [*without_transform(self._config, step.batch), *tells_the_label(self._config, step.batch)]
        if self._world.size > 1:
            found = json.loads(self._world.broadcast_bytes(json.dumps(found).encode()))
        self._warnings.add(found)

    def after_stretch(self, state: RunState, *, whole: bool) -> None:
        """See Hook: of the first epoch."""
        if not whole or state.stretch != 1 or not self._has_begun:
            return
        gathered = self._world.gather_bytes(bytes(sorted(self._classes)))
        classes = sorted(set(b"".join(gathered)))
        if len(classes) == 1:
            self._warnings.add([one_class("train", self._config.labels[0].column, classes[0])])


def without_transform(config: RunConfig, batch: Batch) -> list[str]:
    """Warnings of dense columns whose values are large as they enter the net."""
    found = []
    for position, dense in enumerate(config.dense):
        values = batch.dense[:, position].double().numpy()
        if len(values) and (size := float(np.sqrt(np.mean(values**2)))) > _LARGE:
            found.append(
                f"dense column {dense.column} enters the net with values of about {size:.3g}, which drown the others; "
                "give it transforms: [standardise], [log1p, standardise] or [quantile]"
            )
    return found


def tells_the_label(config: RunConfig, batch: Batch) -> list[str]:
    """Warnings of features and dense columns with two values, one for each value of the first label."""
    if batch.num_rows < _MIN_ROWS or batch.labels.shape[1] == 0:
        return []
    label = batch.labels[:, 0].numpy()
    labels = {each.column for each in config.labels}  # of these a user was warned before training
    found = []
    for position, dense in enumerate(config.dense):
        if dense.column not in labels and _is_one_to_one(batch.dense[:, position].numpy(), label):
            found.append(f"dense column {dense.column}")
    for feature in config.features:
        ids = batch.ids[feature.name]
        has_one_id = not labels & set(feature.columns) and bool((ids.lengths == 1).all())
        if has_one_id and _is_one_to_one(ids.values.numpy(), label):
            found.append(f"feature {feature.name}")
    return [
        f"{what} has one value where column {config.labels[0].column} is 0 and another where it is 1 (in the first "
        "batch): it tells the label; leave it out if it is known only afterwards"
        for what in found
    ]


def _is_one_to_one(values: npt.NDArray[np.generic], label: npt.NDArray[np.float32]) -> bool:
    """Whether values (n,) are two, and part the rows as labels (n,) of both classes do."""
    positive, negative = values[label > 0.5], values[label <= 0.5]
    if not len(positive) or not len(negative) or positive[0] == negative[0]:
        return False
    return bool((positive == positive[0]).all() and (negative == negative[0]).all())
