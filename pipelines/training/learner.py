"""`Learner`: tables, model and dense optimizer of one run, and one training step over them.

`tables.advance(event_time)` -> forward (lookup, dense net) -> loss -> backward (row gradients are kept) -> clip ->
dense step -> `tables.step()`. Learning rates are the configured ones times a factor: a pure function of the step.

With several ranks, each takes the step with its part of the batch: losses are parts of the whole batch's mean, dense
gradients are summed over ranks, and dense weights stay the same at all of them (docs/sharding.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embtables.errors import ConfigError, StateError, TrainingError
from embtables.ids import Artifacts
from embtables.inputs.batch import Batch
from embtables.inputs.features import FittedTransforms
from embtables.models.build import build_model, features_of, refuse_features_without_view, tables_of
from embtables.models.dense import dense_tensors, load_dense, need_like
from embtables.models.scorer import Scorer
from embtables.models.task import task_of
from embtables.pipelines.config import CosineSchedule, EpochDecaySchedule, RunConfig, Schedule
from embtables.pipelines.training.dense_adam import DenseAdam
from embtables.pipelines.training.figures.not_finite import not_finite
from embtables.shard.placement import replicated
from embtables.shard.world import SingleRank, World
from embtables.tables.table_set import Tables


def learning_rate_factor(schedule: Schedule, step: int, epoch: int, total_steps: int | None) -> float:
    """What every learning rate is multiplied by at `step` (from 0).

    Args:
        epoch: the step's epoch, from 0.
        total_steps: steps of the whole run, needed by the cosine schedule; may be an estimate.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if isinstance(schedule, EpochDecaySchedule):
        return float(schedule.factor**epoch)
    if isinstance(schedule, CosineSchedule):
        if total_steps is None:
            raise ConfigError("train.schedule: the cosine schedule needs train.max_steps or a log with known rows")
        span = max(1, total_steps - schedule.warmup_steps)
        done = min(1.0, (step - schedule.warmup_steps) / span)
        return schedule.final_factor + (1.0 - schedule.final_factor) * 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


class Learner:
    """The trained parts of a run. `config.train.seed` decides initial rows, dense weights and dropout.

    Args:
        world: the ranks that train together.
        artifacts: by feature the data of encoders, of the version that is loaded.
        shares_keys: see Tables.
    """

    def __init__(
        self,
        config: RunConfig,
        world: World | None = None,
        artifacts: Mapping[str, Artifacts] | None = None,
        *,
        shares_keys: bool = True,
    ) -> None:
        train = config.train
        self.world = SingleRank() if world is None else world
        torch.manual_seed(train.seed)
        refuse_features_without_view(config, config.model)
        self.config = config
        self.task = task_of(config, config.evaluate.negative_sampling_rate, config.late)
        self.needs = self.task.needs(config)
        tables, features = tables_of(config, config.model), features_of(config, config.model)
        self.tables = Tables(
            tables,
            features,
            seed=train.seed,
            row_store=train.row_store,
            world=self.world,
            replicated=replicated(tables, features, batch_rows=train.batch_size, world_size=self.world.size),
            artifacts=artifacts,
            shares_keys=shares_keys,
        )
        self.model: nn.Module = build_model(config, config.model, self.tables)
        self.optimizer = DenseAdam(self.parameters(), train.dense_optimizer)
        self._autocast = train.precision == "bf16"

    def parameters(self) -> list[nn.Parameter]:
        """Dense parameters: everything but the tables' rows."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def _outputs(self, batch: Batch) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._autocast):
            return self.task.forward(self.model, batch)

    def train_step(self, batch: Batch, factor: float, whole_weight: float | None = None) -> Tensor:
        """One update. Returns the loss (a scalar) of the whole batch.

        Args:
            whole_weight: of several ranks, the sum of the weights of all their rows.

        Raises:
            TrainingError: the loss, or the norm of the gradients where it is clipped, is not finite; at all ranks.
                Rows and dense weights are as before the step.
        """
        self.model.train()
        self.tables.set_learning_rate_factor(factor)
        if batch.event_time_us is not None:
            self.tables.advance(batch.event_time_us)
        with self._own_masks():
            outputs = self._outputs(batch)
        loss = self.task.loss(outputs, batch)
        if whole_weight is not None:
            own = batch.total_weight
            loss = loss * (own / max(whole_weight, 1e-12))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        if self.world.size > 1:
            loss = self._sum_over_ranks(loss)
        # After the sum over ranks, so that all of them end here, and before anything is written.
        if not math.isfinite(value := float(loss)):
            raise not_finite(value, batch, self.config, self.model, self.world)
        scale = self._clip_scale()
        if scale < 1.0:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        self.optimizer.step(self.config.train.dense_optimizer.learning_rate * factor)
        self.tables.step(gradient_scale=scale)
        return loss

    def _sum_over_ranks(self, loss: Tensor) -> Tensor:
        """Replaces all dense gradients by their sums over ranks; returns the sum of the losses."""
        parameters = self.parameters()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([part.reshape(-1) for part in (*parts, loss)])
        self.world.all_reduce(flat)
        *summed, loss = torch.split(flat, [part.numel() for part in (*parts, loss)])
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return loss[0]

    @contextmanager
    def _own_masks(self) -> Iterator[None]:
        """Each rank draws other dropout masks; the random state goes on alike at all of them."""
        if self.world.size == 1:
            yield
            return
        drawn = int(torch.randint(2**62, ()))
        state = torch.get_rng_state()
        torch.manual_seed(drawn + self.world.rank)
        yield
        torch.set_rng_state(state)

    def _clip_scale(self) -> float:
        """min(1, clip_norm / norm) for the L2 norm over dense gradients and summed row gradients together."""
        limit = self.config.train.clip_norm
        if limit is None:
            return 1.0
        squares = self.tables.gradient_norm() ** 2
        for parameter in self.parameters():
            if parameter.grad is not None:
                squares += float(torch.linalg.vector_norm(parameter.grad)) ** 2
        norm = math.sqrt(squares)
        if not math.isfinite(norm):
            raise TrainingError(
                f"the norm of the gradients is {norm:g}; nothing of this step is kept. Lower the learning rates, and "
                "give dense columns with large values transforms"
            )
        return min(1.0, limit / norm) if norm > 0.0 else 1.0

    def scorer(self, fitted: FittedTransforms) -> Scorer:
        """What the learner holds, for inference; it sees later changes by training."""
        return Scorer(self.config, self.tables, self.model, fitted, self.task, autocast=self._autocast)

    def dense(self) -> dict[str, Tensor]:
        """Every tensor that training changes besides the tables, by name; live views where possible."""
        state = dense_tensors(self.model)
        state |= {f"optimizer/{name}": value for name, value in self.optimizer.tensors().items()}
        state["random/torch"] = torch.get_rng_state()
        return state

    def load_dense(self, state: dict[str, Tensor]) -> None:
        """Puts saved dense tensors back. Raises StateError naming what does not fit."""
        load_dense(self.model, state)
        of_optimizer = {n.removeprefix("optimizer/"): v for n, v in state.items() if n.startswith("optimizer/")}
        self.optimizer.load(of_optimizer)
        if (random := state.get("random/torch")) is not None:
            need_like("the random state", random, torch.get_rng_state())
            try:
                torch.set_rng_state(random)
            except RuntimeError as error:
                raise StateError(f"torch does not take the saved random state: {error}") from None
