"""The part of a configuration that trained state depends on, as a checkpoint remembers it."""

from __future__ import annotations

from typing import Any

from embtables.errors import ConfigError, StateError
from embtables.models.registry import ModelConfig
from embtables.pipelines.config import RunConfig, differences
from embtables.schema import DenseColumn, Feature, Label, Model, Table, validate
from embtables.state.format.manifest import Manifest


class SavedConfig(Model):
    """Tables, features, labels, dense columns and model of a trained run."""

    tables: tuple[Table, ...]
    features: tuple[Feature, ...]
    labels: tuple[Label, ...]
    dense: tuple[DenseColumn, ...]
    model: ModelConfig


def saved_fields(config: RunConfig) -> dict[str, Any]:
    """The part of a configuration that trained state depends on, as JSON."""
    return config.model_dump(mode="json", include=set(SavedConfig.model_fields))


def fields_of_version(saved: Manifest) -> dict[str, Any]:
    """What a checkpoint remembers of its configuration; options that are younger than it have their defaults.

    Raises:
        StateError: it remembers none, or one that this build does not know.
    """
    try:
        return validate(SavedConfig, saved.content.get("schema", {})).model_dump(mode="json")
    except ConfigError as error:
        raise StateError(f"remembers no configuration that this build knows: {error}", version=saved.name) from error


def refuse_other_schema(config: RunConfig, saved: Manifest) -> None:
    """Raises StateError, with the fields that differ, unless the checkpoint is of this schema, model and seed."""
    found = differences(saved_fields(config), fields_of_version(saved))
    seed = saved.content.get("seed", config.train.seed)  # versions from before it was recorded have none
    if seed != config.train.seed:
        found = [*found, f"train.seed: {config.train.seed} here, {seed} there"]
    if found:
        raise StateError(
            "the checkpoint belongs to another schema (here: this configuration, there: the checkpoint): "
            + "; ".join(found[:8])
        )
