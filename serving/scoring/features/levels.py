"""`Level`: the features and dense columns of a model that a request has once, or for each candidate. `LevelRows`: what
the features stage makes of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

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

    def kinds(self) -> tuple[Any, ...]:
        """Equal for rows that can be put one after the other."""
        ids = tuple((name, are_keys, of.weights is None) for name, (of, are_keys) in self.ids.items())
        return ids, tuple(places for places, _ in self.dense)

    @classmethod
    def joined(cls, parts: Sequence[LevelRows]) -> LevelRows:
        """Rows of equal `kinds`, one after the other."""
        first = parts[0]
        if len(parts) == 1:
            return first
        ids = {
            name: (_joined([(part.ids[name][0], part.n) for part in parts]), first.ids[name][1]) for name in first.ids
        }
        dense = [
            (places, np.concatenate([part.dense[place][1] for part in parts]))
            for place, (places, _) in enumerate(first.dense)
        ]
        return cls(sum(part.n for part in parts), ids, dense)


def _joined(parts: Sequence[tuple[Ids, int]]) -> Ids:
    """The ids of some rows each."""
    values = np.concatenate([of.values for of, _ in parts])
    weights = [of.weights for of, _ in parts if of.weights is not None]
    lengths = None
    if any(of.lengths is not None for of, _ in parts):
        lengths = np.concatenate([of.lengths_of(n) for of, n in parts])
    return Ids(values, lengths, np.concatenate(weights) if weights else None)
