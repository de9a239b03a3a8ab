"""What is said of losses and scores that are not finite: the likely cause, and the columns with the largest values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from embtables.errors import TrainingError
from embtables.inputs.batch import Batch
from embtables.pipelines.config import RunConfig
from embtables.shard.world import SingleRank, World

# What a net takes without harm, as a rule; standardised columns stay below 100.
LARGE = 1_000.0
_SHOWN = 3

Float64s = npt.NDArray[np.float64]


def not_finite(loss: float, batch: Batch, config: RunConfig, model: nn.Module, world: World) -> TrainingError:
    """The error for a loss that is not finite. All ranks call it together, and get the same one.

    Args:
        loss: of the whole batch.
        batch: this rank's part of it.
    """
    largest = _largest(batch, config, world)
    cause = _of_inputs(largest) or _of_rates(config, model)
    return TrainingError(f"the loss is {loss:g}; nothing of this step is kept. Likely cause: {cause}{_shown(largest)}")


def why_scores_are_not_finite(batch: Batch, config: RunConfig, model: nn.Module, world: World | None = None) -> str:
    """The likely cause of scores that are not finite, for an error. All ranks call it together.

    Args:
        batch: of this rank's rows; their largest values are named.
        world: the ranks that score together; by default this process.
    """
    largest = _largest(batch, config, world or SingleRank())
    wrong = [name for name, parameter in model.named_parameters() if not bool(parameter.isfinite().all())]
    of_model = f"the dense weights {wrong[0]} are not finite" if wrong else "rows of tables are not finite or too large"
    cause = _of_inputs(largest) or f"{of_model}; score with an earlier version, and train again with lower rates"
    return f"Likely cause: {cause}{_shown(largest)}"


def _shown(largest: dict[str, float]) -> str:
    found = sorted(largest.items(), key=lambda item: -item[1] if np.isfinite(item[1]) else -np.inf)[:_SHOWN]
    values = ", ".join(f"{name} {value:.3g}" for name, value in found)
    return f". Largest values of the batch: {values}" if values else ""


def _largest(batch: Batch, config: RunConfig, world: World) -> dict[str, float]:
    """What has numbers in the ranks' batches, and the largest absolute value of each; NaN if there is one, 0 without
    rows."""
    names, own = _own_largest(batch, config)
    gathered = world.gather_bytes(own.tobytes())
    return dict(zip(names, np.max([np.frombuffer(part) for part in gathered], axis=0).tolist(), strict=True))


def _own_largest(batch: Batch, config: RunConfig) -> tuple[list[str], Float64s]:
    found: dict[str, torch.Tensor] = {}
    for position, dense in enumerate(config.dense):
        found[f"dense column {dense.column}"] = batch.dense[:, position]
    if batch.weight is not None:
        found[f"sample weight {config.sample_weight}"] = batch.weight
    for feature in config.features:
        weights = batch.ids[feature.name].weights if feature.weights_column is not None else None
        if weights is not None:
            found[f"id weights {feature.weights_column}"] = weights
    values = [float(v.abs().max()) if v.numel() else 0.0 for v in found.values()]
    return list(found), np.array(values, np.float64)


def _of_inputs(largest: dict[str, float]) -> str | None:
    """The input that is the likely cause, and what to do; None if all are of usual size."""
    wrong = [name for name, value in largest.items() if not np.isfinite(value)]
    if wrong:
        return f"{wrong[0]} holds values that are not finite in float32; mend the log or set such rows aside"
    name, value = max(largest.items(), key=lambda item: item[1], default=("", 0.0))
    if value <= LARGE:
        return None
    remedy = "give it transforms: [standardise] or [log1p]" if name.startswith("dense") else "scale it down"
    return f"{name} with values up to {value:.3g}; {remedy}"


def _of_rates(config: RunConfig, model: nn.Module) -> str:
    optimizers = {f"table {table.name}": table.optimizer for table in config.tables if table.trainable}
    rates = {"train.dense_optimizer": config.train.dense_optimizer.learning_rate}
    rates |= {where: float(optimizer.learning_rate) for where, optimizer in optimizers.items()}
    shown = sorted(rates.items(), key=lambda item: -item[1])[:_SHOWN]
    since = "" if all(bool(p.isfinite().all()) for p in model.parameters()) else ", which made weights not finite"
    return (
        f"learning rates that are too high ({', '.join(f'{where} {rate:g}' for where, rate in shown)}){since}; "
        "lower them, or set train.clip_norm"
    )
