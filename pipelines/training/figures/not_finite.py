"""What is said of a loss that is not finite: the likely cause, and the columns with the largest values of the batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from embtables.errors import TrainingError
from embtables.inputs.batch import Batch
from embtables.pipelines.config import RunConfig
from embtables.shard.world import World

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
    names, own = _largest(batch, config)
    gathered = world.gather_bytes(own.tobytes())
    largest = dict(zip(names, np.max([np.frombuffer(part) for part in gathered], axis=0).tolist(), strict=True))
    found = sorted(largest.items(), key=lambda item: -item[1] if np.isfinite(item[1]) else -np.inf)[:_SHOWN]
    values = ", ".join(f"{name} {value:.3g}" for name, value in found)
    return TrainingError(
        f"the loss is {loss:g}; nothing of this step is kept. Likely cause: {_cause(largest, config, model)}"
        + (f". Largest values of the batch: {values}" if values else "")
    )


def _largest(batch: Batch, config: RunConfig) -> tuple[list[str], Float64s]:
    """What has numbers in a batch, and the largest absolute value of each; NaN if there is one, 0 without rows."""
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


def _cause(largest: dict[str, float], config: RunConfig, model: nn.Module) -> str:
    wrong = [name for name, value in largest.items() if not np.isfinite(value)]
    if wrong:
        return f"{wrong[0]} holds values that are not finite in float32; mend the log or set such rows aside"
    name, value = max(largest.items(), key=lambda item: item[1], default=("", 0.0))
    if value > LARGE:
        remedy = "give it transforms: [standardise] or [log1p]" if name.startswith("dense") else "scale it down"
        return f"{name} with values up to {value:.3g}; {remedy}"
    optimizers = {f"table {table.name}": table.optimizer for table in config.tables if table.trainable}
    rates = {"train.dense_optimizer": config.train.dense_optimizer.learning_rate}
    rates |= {where: float(optimizer.learning_rate) for where, optimizer in optimizers.items()}
    shown = sorted(rates.items(), key=lambda item: -item[1])[:_SHOWN]
    since = "" if all(bool(p.isfinite().all()) for p in model.parameters()) else ", which made weights not finite"
    return (
        f"learning rates that are too high ({', '.join(f'{where} {rate:g}' for where, rate in shown)}){since}; "
        "lower them, or set train.clip_norm"
    )
