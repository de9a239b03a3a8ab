"""The part of a configuration that trained state depends on, as a checkpoint remembers it."""

from __future__ import annotations

from typing import Any

from embtables.errors import StateError
from embtables.models.saved_config import SavedConfig
from embtables.pipelines.config import RunConfig, differences
from embtables.state.format.manifest import Manifest


def saved_fields(config: RunConfig) -> dict[str, Any]:
    """The part of a configuration that trained state depends on, as JSON."""
    return config.model_dump(mode="json", include=set(SavedConfig.model_fields))


def refuse_other_schema(config: RunConfig, saved: Manifest) -> None:
    """Raises StateError, with the fields that differ, unless the checkpoint is of this schema, model and seed."""
    found = differences(saved_fields(config), SavedConfig.of(saved).model_dump(mode="json"))
    seed = saved.content.get("seed", config.train.seed)  # versions from before it was recorded have none
    if seed != config.train.seed:
        found = [*found, f"train.seed: {config.train.seed} here, {seed} there"]
    if found:
        raise StateError(
            "the checkpoint belongs to another schema (here: this configuration, there: the checkpoint): "
            + "; ".join(found[:8])
        )
