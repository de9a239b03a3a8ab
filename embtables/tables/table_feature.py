"""A feature with the table that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embtables.errors import ConfigError
from embtables.given import as_name
from embtables.ids import Artifacts, Combine, Encoder, encoder_of
from embtables.schema import Feature, Table
from embtables.schema.schema import LINEAR_PREFIX


@dataclass(frozen=True, slots=True)
class TableFeature:
    """A feature that reads a table: what a lookup is made of.

    Attributes:
        number: the number of the row store's feature that serves it; of the first, if it has several.
        encoder: makes keys of its ids.
        combine: how the rows of an id become one vector. First-order weights of an id's keys are always summed.
    """

    number: int
    feature: Feature
    table: Table
    encoder: Encoder[Any]
    combine: Combine

    @property
    def keys_per_id(self) -> int:
        """T: how many rows one id reads."""
        return self.encoder.num_keys

    @property
    def blocks(self) -> int:
        """How many of the row store's features serve it: pooled and concatenated, each of the T keys has its own."""
        return self.keys_per_id if self.combine == "concat" and self.feature.pooling != "none" else 1

    @property
    def dim(self) -> int:
        """How many values an id's vector has: D, or T * D if its rows are concatenated."""
        return self.table.dim * (self.keys_per_id if self.combine == "concat" else 1)


def table_features(
    features: Sequence[Feature], tables: Sequence[Table], artifacts: Mapping[str, Artifacts]
) -> tuple[TableFeature, ...]:
    """Each feature with the table it reads; `tables` and `features` go in pairs, `artifacts` are by feature."""
    found: list[TableFeature] = []
    number = 0
    for feature, table in zip(features, tables, strict=True):
        encoder = encoder_of(feature, table, artifacts.get(feature.name))
        combine = "sum" if table.name.startswith(LINEAR_PREFIX) else encoder.combine
        found.append(TableFeature(number, feature, table, encoder, combine))
        number += found[-1].blocks
    return tuple(found)


def reader_of(features: Sequence[TableFeature], table: Table, name: str | None) -> TableFeature:
    """Whose encoder makes keys of a table's ids: the feature of this name, or any if all of them make the same keys.

    Raises:
        ConfigError: there is none, or they make keys that differ.
    """
    if name is not None:
        as_name(name, "feature")
    readers = [r for r in features if r.table.name == table.name and name in (None, r.feature.name)]
    if not readers:
        raise ConfigError(f"feature '{name}' does not read it", table=table.name)
    if any(not r.encoder.makes_keys_as(readers[0].encoder) for r in readers):
        names = ", ".join(r.feature.name for r in readers)
        raise ConfigError(f"its features encode ids differently; name one of: {names}", table=table.name)
    return readers[0]
