"""`Levels`: which features and dense columns of a model a request has once, and which for each candidate."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embtables.schema import DenseColumn, Feature, Schema

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Level:
    """Features and dense columns of one level.

    Attributes:
        names: of the features.
        places: of the dense columns, among those of the schema.
    """

    features: tuple[Feature, ...]
    dense: tuple[DenseColumn, ...]
    names: list[str]
    places: Int64s

    @classmethod
    def of(cls, schema: Schema, features: Collection[Feature], places: Collection[int]) -> Level:
        """The level of some features and of the dense columns at some places."""
        dense = tuple(schema.dense[place] for place in places)
        names = [feature.name for feature in features]
        return cls(tuple(features), dense, names, np.array(sorted(places), np.int64))

    def columns(self) -> set[str]:
        """All that it reads."""
        return {c for feature in self.features for c in feature.columns} | {dense.column for dense in self.dense}


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """The levels of requests that give the same columns.

    Attributes:
        shared: what one row has for all candidates.
        kept: what was made beforehand for each candidate that is known, by its id alone.
        own: the rest.
    """

    shared: Level
    kept: Level
    own: Level

    @classmethod
    def of(cls, schema: Schema, own: Collection[str], kept: Level | None = None) -> Levels:
        """The levels for requests whose candidates have the columns `own`."""
        kept = kept or Level.of(schema, (), ())
        features = [feature for feature in schema.features if feature not in kept.features]
        places = [place for place in range(len(schema.dense)) if place not in kept.places]
        of_rows = [feature for feature in features if not set(own).isdisjoint(feature.columns)]
        dense_of_rows = [place for place in places if schema.dense[place].column in own]
        return cls(
            Level.of(schema, [f for f in features if f not in of_rows], [p for p in places if p not in dense_of_rows]),
            kept,
            Level.of(schema, of_rows, dense_of_rows),
        )
