"""`Encoder`: how the ids of a feature become keys; `EncoderSpec`: the configuration that it is made of.

An encoder is one file: its configuration, its class, and the line that registers both. `register_encoder` has one.
A run imports that file before it reads a schema that names the encoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar, final

import numpy as np

from embtables.errors import ConfigError
from embtables.given import need
from embtables.ids.artifacts import Artifacts
from embtables.ids.mix import Ids, salted, unsalted
from embtables.ids.strings import hash_string
from embtables.schema import ENCODERS, EncoderConfig, Feature, Table
from embtables.schema.encoders import Combine

C = TypeVar("C", bound=EncoderConfig)


class Encoder(ABC, Generic[C]):
    """A pure function: each int64 id -> T keys of one table.

        >>> import numpy as np
        >>> from embtables import Encoder, Identity
        >>> class Halves(Encoder[Identity]):
        ...     num_keys, combine = 2, "concat"
        ...     def keys(self, ids):
        ...         return np.stack([ids // 2, ids % 2], axis=1)
        >>> Halves(Identity(), key_range=100, feature="item").encode(np.array([7, 8]))
        array([3, 1, 4, 0])

    The attributes depend only on the configuration; data is read when the first key is made.

    Args:
        config: its configuration.
        key_range: keys are 0..key_range-1; None: any 64-bit integer.
        feature: the feature's name, for errors.
        artifacts: its data, from the version to load; None in a new run, for which `read_artifacts` gets them.

    Attributes:
        num_keys: T, the number of rows that an id reads.
        combine: how the T rows of an id, (T, D), become one vector: (D,), or (T * D,) if they are concatenated.
        collisions: what is known of ids that have a key in common. `none`: there are none (of ids in range); `random`:
            the T keys of each id behave like independent draws from the key range; else `unknown`.
        uses_key_range: whether the keys of an id depend on the key range.
    """

    num_keys: int = 1
    combine: Combine = "sum"
    collisions: Literal["none", "random", "unknown"] = "unknown"
    uses_key_range: bool = True

    def __init__(self, config: C, key_range: int | None, feature: str = "", artifacts: Artifacts | None = None) -> None:
        self.config = config
        self.key_range = key_range
        self.feature = feature
        self._given = artifacts
        self._salt: int | None = None

    @cached_property
    def artifacts(self) -> Artifacts:
        """Its data, which travels with every version."""
        return self.read_artifacts() if self._given is None else self._given

    def read_artifacts(self) -> Artifacts:
        """The data of a new run, from the files that the configuration names; by default there is none.

        Raises:
            ConfigError: a file is missing, or not what it should be.
        """
        return Artifacts()

    @abstractmethod
    def keys(self, ids: Ids) -> Ids:
        """Ids (n,) int64, any value -> keys (n, T) int64, or the same flattened: the T keys of an id are adjacent.

        Raises:
            DataError: an id is refused; names the feature and the id.
        """

    def decode(self, keys: Ids) -> Ids | None:
        """The ids (n,) that have these keys (n,); None if several ids may have the same key."""
        return None

    def meaning(self) -> Any:
        """JSON. Two encoders of equal meaning, over tables of one key range, make the same keys from ids in range and
        combine their rows in the same way.

        A run that continues from a version refuses another meaning. By default it contains all options and artifacts.
        """
        found = self.config.model_dump(mode="json")
        return {**found, "artifacts": self.artifacts.digests} if self.artifacts else found

    @final
    def keep_apart(self) -> None:
        """Gives the feature keys of its own: of an id, other features of the table make other keys.

        Where a table takes any key, the keys are salted with a hash of the feature's name; where a key is a row's
        index, the ids are, before they are hashed.

        Raises:
            ConfigError: an index is made of ids that mean something, so that they cannot be salted.
        """
        if self.key_range is not None and self.collisions != "random":
            raise ConfigError(
                f"share_ids: false does not go with encoder '{self.config.kind}' on a table with num_rows: it makes "
                "row numbers of ids as they are; take the hash encoder, a table for each feature, or no num_rows",
                feature=self.feature,
            )
        self._salt = hash_string(self.feature)

    @final
    def encode(self, ids: Ids) -> Ids:
        """The keys (n * T,) of ids (n,), as `keys` makes them; apart from those of other features, if it keeps them so.

        Raises:
            ConfigError: they are not T int64 for each id, which is the encoder's mistake.
            DataError: these are no ids, or one is refused.
        """
        if type(ids) is not np.ndarray or ids.dtype != np.int64 or ids.ndim != 1:
            # Here, because it takes torch, which readers of versions do without.
            from embtables.arguments import as_ids

            ids = as_ids(ids, feature=self.feature or None).numpy()
        salts_ids = self._salt is not None and self.key_range is not None
        found = self.keys(salted(ids, self._salt) if self._salt is not None and salts_ids else ids)
        if found.dtype != np.int64 or found.shape not in ((len(ids) * self.num_keys,), (len(ids), self.num_keys)):
            raise ConfigError(
                f"encoder '{self.config.kind}' made keys {found.shape} {found.dtype} from {len(ids)} ids; "
                f"it must make ({len(ids)}, {self.num_keys}) int64",
                feature=self.feature,
            )
        keys = np.ascontiguousarray(found).reshape(-1)
        return keys if self._salt is None or salts_ids else salted(keys, self._salt)

    @final
    def ids_of(self, keys: Ids) -> Ids | None:
        """The ids (n,) that `encode` made these keys (n,) of; None if several ids may have the same key."""
        if self._salt is None:
            return self.decode(keys)
        return None if self.key_range is not None else self.decode(unsalted(keys, self._salt))

    @final
    def makes_keys_as(self, other: Encoder[Any]) -> bool:
        """Whether equal ids have equal keys by both, over one table, as far as the configurations tell."""
        return self.config == other.config and self._salt == other._salt

    @final
    def width(self, dim: int) -> int:
        """How many values an id's vector has, from rows of `dim` values."""
        return dim * self.num_keys if self.combine == "concat" else dim


@dataclass(frozen=True, slots=True)
class EncoderSpec(Generic[C]):
    """One kind of encoder.

        >>> from embtables.ids import EncoderSpec
        >>> from embtables.ids.hash import Hash, HashEncoder
        >>> EncoderSpec(Hash, HashEncoder).load(Hash(seed=3), key_range=100).num_keys
        1

    Attributes:
        config: the model of its section in the schema.
        encoder: its class.
    """

    config: type[C]
    encoder: type[Encoder[C]]

    def load(
        self, config: C, key_range: int | None, feature: str = "", artifacts: Artifacts | None = None
    ) -> Encoder[C]:
        """The encoder of a configuration; arguments as of Encoder. Raises ConfigError if they do not fit."""
        return self.encoder(config, key_range, feature, artifacts)


SPECS: dict[str, EncoderSpec[Any]] = {}


def register_encoder(spec: EncoderSpec[Any]) -> None:
    """Adds an encoder: schemas may name its `kind` from now on.

        >>> from typing import Literal
        >>> import numpy as np
        >>> from embtables import Encoder, EncoderConfig, EncoderSpec, Feature, register_encoder
        >>> class QuotientRemainderConfig(EncoderConfig):
        ...     kind: Literal["quotient_remainder"] = "quotient_remainder"
        ...     num_remainders: int
        >>> class QuotientRemainder(Encoder[QuotientRemainderConfig]):
        ...     num_keys, combine = 2, "product"
        ...     def keys(self, ids):
        ...         quotients, remainders = np.divmod(ids, self.config.num_remainders)
        ...         return np.stack([remainders, self.config.num_remainders + quotients], axis=1)
        >>> register_encoder(EncoderSpec(QuotientRemainderConfig, QuotientRemainder))
        >>> item = Feature(name="item", table="t", encoder={"kind": "quotient_remainder", "num_remainders": 100})

    Raises:
        ConfigError: it is no EncoderSpec, its configuration has no default `kind`, or another encoder has that kind.
    """
    need(spec, EncoderSpec, "spec", "an EncoderSpec")
    if spec.config not in [ENCODERS[kind] for kind in ENCODERS]:
        ENCODERS.add(spec.config)
    kind = str(spec.config.model_fields["kind"].default)
    if kind in SPECS:
        raise ConfigError(f"encoder '{kind}' is already {SPECS[kind].encoder.__name__}")
    SPECS[kind] = spec


def unregister_encoder(kind: str) -> None:
    """Takes back an encoder that `register_encoder` added."""
    del SPECS[kind]
    ENCODERS.remove(kind)


def make_encoder(
    config: EncoderConfig, key_range: int | None, feature: str = "", artifacts: Artifacts | None = None
) -> Encoder[Any]:
    """The encoder of a feature; arguments as of Encoder.

    >>> import numpy as np
    >>> from embtables.schema import MultiHash
    >>> encoder = make_encoder(MultiHash(num_hashes=2), key_range=1000)
    >>> encoder.encode(np.array([7, 8])).shape, encoder.width(16)
    ((4,), 16)

    Raises:
        ConfigError: the kind has a configuration and no encoder, or the encoder cannot be made.
    """
    if config.kind not in SPECS:
        raise ConfigError(f"encoder '{config.kind}' has only a configuration; give an EncoderSpec to register_encoder")
    return SPECS[config.kind].load(config, key_range, feature, artifacts)


def encoder_of(feature: Feature, table: Table, artifacts: Artifacts | None = None) -> Encoder[Any]:
    """The encoder of a feature over the table that it reads; `share_ids: false` of the table keeps its keys apart.

    Raises:
        ConfigError: as `make_encoder` and `Encoder.keep_apart`.
    """
    encoder = make_encoder(feature.encoder, table.key_range, feature.name, artifacts)
    if not table.shares_ids:
        encoder.keep_apart()
    return encoder


def width_of(feature: Feature, tables: Iterable[Table]) -> int:
    """How many values a model gets of each id or list of a feature, by its encoder and its table among `tables`."""
    table = next(table for table in tables if table.name == feature.table)
    return encoder_of(feature, table).width(table.dim)
