"""The part of a configuration that trained state depends on, as a version records it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embtables.errors import ConfigError, StateError
from embtables.models.registry import ModelConfig
from embtables.schema import Data, DenseColumn, Feature, Label, Model, Schema, Table, validate
from embtables.state.format.manifest import Manifest


class SavedConfig(Model):
    """Tables, features, labels, dense columns and model of a trained run."""

    tables: tuple[Table, ...]
    features: tuple[Feature, ...]
    labels: tuple[Label, ...]
    dense: tuple[DenseColumn, ...]
    model: ModelConfig

    @classmethod
    def of(cls, version: Manifest) -> SavedConfig:
        """What a version records; options that are younger than it have their defaults.

        Raises:
            StateError: it records none, or one that this build does not know.
        """
        try:
            return validate(cls, version.content.get("schema", {}))
        except ConfigError as error:
            raise StateError(
                f"remembers no configuration that this build knows: {error}", version=version.name
            ) from error

    def schema_of_inputs(self) -> Schema:
        """What scoring needs of a schema: no log, no weights, no event time."""
        return Schema(
            name="version",
            tables=self.tables,
            features=self.features,
            labels=self.labels,
            dense=self.dense,
            data=Data(path=""),
        )


def recorded_sampling_rate(content: Mapping[str, Any]) -> float | None:
    """The share of negatives that the log of a version's run kept, where the version records it."""
    section = content.get("evaluate")
    rate = section.get("negative_sampling_rate") if isinstance(section, Mapping) else None
    return float(rate) if isinstance(rate, int | float) and 0.0 < rate <= 1.0 else None
