"""What a version records of how its tables were configured: the `schema` of its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from embtables.errors import StateError
from embtables.ids import Artifacts, Encoder, encoder_of
from embtables.ids.mix import Ids
from embtables.schema import Feature, Table, config_error
from embtables.schema.schema import LINEAR_PREFIX
from embtables.state.format.manifest import Manifest


class _Schema(BaseModel):
    """The fields of it that are read here."""

    tables: tuple[Table, ...]
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True)
class RecordedTable:
    """A table's configuration, and the features that read it.

    Attributes:
        artifacts: by feature the data of its encoder.
    """

    config: Table
    features: tuple[Feature, ...]
    artifacts: Mapping[str, Artifacts]

    @property
    def encoders(self) -> list[Encoder[Any]]:
        """Its features' encoders, one for each way in which they make keys."""
        found: list[Encoder[Any]] = []
        for feature in self.features:
            encoder = encoder_of(feature, self.config, self.artifacts.get(feature.name))
            if not any(encoder.makes_keys_as(other) for other in found):
                found.append(encoder)
        return found

    def ids(self, keys: Ids) -> Ids | None:
        """The ids that have these keys (n,), as they went into the encoder; for a string, its 64-bit hash.

        None if they are not known: features encode ids differently, several ids may have the same key, or the ids
        are no values of a column (crosses, pieces of strings).
        """
        encoders = self.encoders
        if len(encoders) != 1 or any(f.cross is not None or f.split is not None for f in self.features):
            return None
        return encoders[0].ids_of(keys)


def recorded_tables(version: Manifest, artifacts: Mapping[str, Artifacts]) -> dict[str, RecordedTable]:
    """By table, first-order weights included; empty if the version's writer recorded no tables.

    Args:
        artifacts: by feature the data of its encoder, as `read_artifacts` finds it.

    Raises:
        StateError: it recorded something that this build does not know.
    """
    schema = version.content.get("schema")
    if schema is None or (isinstance(schema, dict) and "tables" not in schema):
        return {}
    try:
        known = _Schema.model_validate(schema)
    except ValidationError as error:
        raise StateError(f"this build cannot read its schema: {config_error(error)}", version=version.name) from None
    found = {
        t.name: RecordedTable(t, tuple(f for f in known.features if f.table == t.name), artifacts) for t in known.tables
    }
    return found | {LINEAR_PREFIX + name: recorded for name, recorded in found.items()}
