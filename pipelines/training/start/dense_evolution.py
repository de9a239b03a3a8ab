"""Dense weights and fitted transforms of a former run under another configuration: what is kept, what begins afresh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from embtables.ids import width_of
from embtables.inputs.features import FittedTransforms
from embtables.models.hidden_layers import HiddenLayers
from embtables.models.spec import ModelOptions
from embtables.pipelines.config import RunConfig
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.start.column_origins import OtherOrigin
from embtables.schema import DenseColumn, Feature
from embtables.state.evolve.evolution import Note

_NET, _TRANSFORMS = "dense net", "transforms"
# Options of a model under which a tensor of the same name and shape is the same part of the net.
_SHAPES_TELL = {"kind", "hidden_sizes", "num_cross_layers"}
# Options of a feature that say which rows it reads, and nothing of what the net reads of them.
_OF_ROWS = {
    *("column", "cross", "table", "encoder", "split", "timestamp_part", "num_buckets"),
    *("max_length", "null_id", "side"),
}


def take_dense(old: Learner, new: Learner, others: Mapping[str, OtherOrigin]) -> list[Note]:
    """Copies dense tensors of the same name and shape, with their optimizer state, from a former run's learner.

    Nothing is copied where a tensor may have the same shape although its columns mean other things.

    Args:
        others: the columns whose values are made of something else.
    """
    reason = _other_meaning(old.config, new.config) or _other_values(old.config, new.config, others)
    if reason is not None:
        return [Note(_NET, f"begins afresh: {reason}")]
    there, here = dict(_tensors(old)), dict(_tensors(new))
    kept = [name for name, value in here.items() if name in there and there[name].shape == value.shape]
    with torch.no_grad():
        for name in kept:
            here[name].copy_(there[name])
            if there[name] in old.optimizer.state:
                state: dict[str, torch.Tensor] = old.optimizer.state[there[name]]
                new.optimizer.state[here[name]] = {key: value.clone() for key, value in state.items()}
    notes = []
    if fresh := [f"{name} ({_shapes(there.get(name), here[name])})" for name in here if name not in kept]:
        notes.append(Note(_NET, f"{len(kept)} of {len(here)} tensors go on; afresh: {', '.join(fresh)}"))
    if gone := [name for name in there if name not in here]:
        notes.append(Note(_NET, f"not used any more: {', '.join(gone)}"))
    return notes


def _tensors(learner: Learner) -> list[tuple[str, torch.Tensor]]:
    return [*learner.model.named_parameters(), *learner.model.named_buffers()]


def _shapes(then: torch.Tensor | None, here: torch.Tensor) -> str:
    return "new" if then is None else f"{tuple(here.shape)} here, {tuple(then.shape)} there"


def _other_meaning(was: RunConfig, now: RunConfig) -> str | None:
    """Why equal shapes are no proof: what enters or leaves the net is something else of the same size."""
    if was.model.kind != now.model.kind:
        return f"model is {now.model.kind} here, {was.model.kind} there"
    for name in type(now.model).model_fields:
        ours, theirs = getattr(now.model, name), getattr(was.model, name)
        if ours != theirs and name not in _SHAPES_TELL and not _same_places(was.model, now.model, name):
            return f"model.{name} is {ours} here, {theirs} there"
    features = _features(was), _features(now)
    columns = [str(d.model_dump()) for d in was.dense], [str(d.model_dump()) for d in now.dense]
    labels = [str(label.model_dump()) for label in was.labels], [str(label.model_dump()) for label in now.labels]
    widths = sum(f[1] for f in features[0]), sum(f[1] for f in features[1])
    same_width = widths[0] + len(columns[0]) == widths[1] + len(columns[1])
    for what, (then, here), alike in (
        ("features", features, widths[0] == widths[1] or same_width),
        ("dense columns", columns, len(columns[0]) == len(columns[1]) or same_width),
        ("labels", labels, len(labels[0]) == len(labels[1])),
    ):
        if then != here and alike:
            return f"other {what} of the same number of values"
    return None


def _same_places(was: ModelOptions, now: ModelOptions, name: str) -> bool:
    """Whether layers have the names that they had, though dropout, which stands between them, is another."""
    if name != "dropout" or not (isinstance(was, HiddenLayers) and isinstance(now, HiddenLayers)):
        return False
    then, here = ([rate > 0.0 for rate in model.rates] for model in (was, now))
    return all(ours == theirs for ours, theirs in zip(then[:-1], here[:-1], strict=False))


def _other_values(was: RunConfig, now: RunConfig, others: Mapping[str, OtherOrigin]) -> str | None:
    """Which column that enters or leaves the net is there under the same name with other values."""
    for what, then, here in (
        ("dense column", {d.column for d in was.dense}, [d.column for d in now.dense]),
        ("label", {label.column for label in was.labels}, [label.column for label in now.labels]),
    ):
        for column in here:
            if column in then and column in others:
                return f"{what} {column} {others[column]}"
    return None


def _features(config: RunConfig) -> list[tuple[str, int, str]]:
    """What the net reads, in order: name, width, and the options by which its values have another scale."""
    return [(f.name, width_of(f, config.tables), str(f.model_dump(exclude=_OF_ROWS))) for f in config.features]


def take_transforms(
    was: RunConfig,
    now: RunConfig,
    old: FittedTransforms,
    fitted: FittedTransforms,
    others: Mapping[str, OtherOrigin],
) -> tuple[FittedTransforms, list[Note]]:
    """Fitted transforms of columns and features that are as they were stay: rows and weights were trained on them.

    Args:
        fitted: on the new run's log; what is new or differs takes these.
        others: the columns whose values are made of something else.
    """
    columns = {d.column for d in now.dense if d in was.dense and d.column not in others}
    buckets = {f.name for f in now.features if _buckets(f) is not None and _buckets(f) in map(_buckets, was.features)}
    merged = FittedTransforms(
        _merged(fitted.moments, old.moments, columns),
        _merged(fitted.quantiles, old.quantiles, columns),
        _merged(fitted.buckets, old.buckets, buckets),
    )
    anew = sorted({d.column for d in now.dense if _is_fitted(d)} - columns)
    anew += sorted({f.name for f in now.features if f.num_buckets is not None} - buckets)
    notes = [Note(_TRANSFORMS, f"fitted on the new log, as they are new or changed: {', '.join(anew)}")] if anew else []
    return merged, notes


def _buckets(feature: Feature) -> tuple[str, int] | None:
    return None if feature.num_buckets is None else (feature.name, feature.num_buckets)


def _is_fitted(dense: DenseColumn) -> bool:
    return bool({"standardise", "quantile"} & set(dense.transforms))


def _merged(fitted: Mapping[str, Any], old: Mapping[str, Any], stays: set[str]) -> dict[str, Any]:
    return {name: old[name] if name in stays and name in old else value for name, value in fitted.items()}
