"""`Level`: the features and dense columns of a model that a request has once, or for each candidate. `LevelRows`: what
the features stage makes of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embtables.inputs.columns import Ids
from embtables.inputs.features import Block
from embtables.schema import DenseColumn, Feature, Schema

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Features and dense columns.

    Attributes:
        places: of the dense columns, among those of the schema.
        columns: all that they read.
    """

    features: tuple[Feature, ...]
    dense: tuple[DenseColumn, ...]
    places: tuple[int, ...]
    columns: frozenset[str]

    @classmethod
    def of(cls, schema: Schema, features: Sequence[Feature], places: Sequence[int]) -> Level:
        """Some features, and the dense columns at some places."""
        dense = tuple(schema.dense[place] for place in places)
        columns = {column for feature in features for column in feature.columns} | {each.column for each in dense}
        return cls(tuple(features), dense, tuple(places), frozenset(columns))

    @classmethod
    def made_of(cls, schema: Schema, columns: Collection[str]) -> Level:
        """What can be made of these columns alone."""
        features = [feature for feature in schema.features if set(feature.columns).issubset(columns)]
        return cls.of(schema, features, [n for n, each in enumerate(schema.dense) if each.column in columns])

    def without(self, schema: Schema, others: Sequence[Level]) -> Level:
        """What none of the others has."""
        features = [f for f in self.features if not any(f in other.features for other in others)]
        places = [p for p in self.places if not any(p in other.places for other in others)]
        return Level.of(schema, features, places)


@dataclass(frozen=True, slots=True, eq=False)
class LevelRows:
    """n converted rows of some features and dense columns.

    Attributes:
        ids: by feature its ids, and whether they are keys already.
        dense: for each part of the dense columns their places in the schema, and (n, m).
    """

    n: int
    ids: dict[str, tuple[Ids, bool]]
    dense: list[tuple[tuple[int, ...], Float32s]]

    @classmethod
    def of(cls, level: Level, block: Block) -> LevelRows:
        """What the features stage made of a level."""
        ids = {feature.name: (ids, False) for feature, ids in zip(level.features, block.ids, strict=True)}
        return cls(block.num_rows, ids, [(level.places, block.dense)] if level.places else [])

    def add(self, other: LevelRows) -> None:
        """Takes over what another level has for the same rows."""
        self.ids.update(other.ids)
        self.dense.extend(other.dense)
