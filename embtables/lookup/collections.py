"""The two TorchRec-shaped views over one set of tables; the only module that imports torchrec.

`EmbeddingBagCollection`: KeyedJaggedTensor -> KeyedTensor (pooled). `EmbeddingCollection`: KeyedJaggedTensor -> dict of
JaggedTensor (sequences). Both take raw ids where they stand over a `Tables` of a schema (the features' encoders make
keys of them), and row indices where they are built from TorchRec configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from embtables.errors import ConfigError
from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import UpdateMode, View, chosen_features
from embtables.schema import Feature, FixedTable, Identity, Optimizer, RowwiseAdagrad, Uniform
from embtables.tables.table_feature import TableFeature
from embtables.tables.table_set import RowStoreName, Tables


def jagged_ids(features: KeyedJaggedTensor) -> JaggedIds:
    """The ids of a KeyedJaggedTensor, which share its memory; weights keep their gradients."""
    return JaggedIds(
        tuple(features.keys()), features.values(), features.lengths(), features.stride(), features.weights_or_none()
    )


def keyed_jagged_tensor(ids: JaggedIds) -> KeyedJaggedTensor:
    """The same ids as TorchRec's type."""
    return KeyedJaggedTensor(list(ids.keys), ids.values, weights=ids.weights, lengths=ids.lengths, stride=ids.num_rows)


class EmbeddingBagCollection(View):
    """Pooled embeddings: ids of B rows -> KeyedTensor (B, sum of D).

    Built like TorchRec's: `EmbeddingBagCollection(tables=[EmbeddingBagConfig(...)], is_weighted=False)`; or over the
    pooled features of a schema's tables: `EmbeddingBagCollection.over(tables)`.

    Args:
        tables: TorchRec configurations; ids are row indices of them.
        is_weighted: the KJT's weights are per-id weights and receive gradients.
        device: only the CPU.
        optimizer: how rows learn; by default rowwise Adagrad at rate 0.01.
        seed: of the initial rows, uniform in +-1/sqrt(num_embeddings) as TorchRec's are.
        row_store: see Tables.
        update: `step`: `collection.tables.step()` applies the gradients; `backward`: they are applied inside backward,
            for training loops written for TorchRec's fused optimizers.

    Raises:
        ConfigError: an unsupported device or configuration.

    Example:
        >>> import embtables, torch
        >>> from torchrec import KeyedJaggedTensor
        >>> item = embtables.FixedTable(name="item", dim=4, num_rows=100, optimizer=embtables.Sgd(learning_rate=0.1))
        >>> tables = embtables.Tables([item], [embtables.Feature(name="seen", table="item")], seed=0)
        >>> bags = embtables.EmbeddingBagCollection.over(tables)
        >>> batch = KeyedJaggedTensor(["seen"], torch.tensor([7, 8, 9]), lengths=torch.tensor([2, 1]))
        >>> pooled = bags(batch)["seen"]
        >>> pooled.shape
        torch.Size([2, 4])
        >>> pooled.sum().backward()
        >>> tables.step()  # three rows are updated
    """

    _state_prefix = "embedding_bags"

    def __init__(
        self,
        tables: Sequence[EmbeddingBagConfig],
        is_weighted: bool = False,
        device: torch.device | str | None = None,
        *,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        row_store: RowStoreName = "host",
        update: UpdateMode = "step",
    ) -> None:
        made = _tables_of(tables, device, optimizer, seed, row_store)
        super().__init__(made, made.features, update)
        self._weighted = is_weighted
        self._configs = list(tables)

    @classmethod
    def over(cls, tables: Tables, names: Sequence[str] | None = None) -> EmbeddingBagCollection:
        """The view over the pooled features of `tables`, or of the tables named; KJT weights count where given."""
        view = cls.__new__(cls)
        View.__init__(view, tables, chosen_features(tables, names, pooled=True), "step")
        view._weighted = any(read.feature.weights_column is not None for read in view.features)
        view._configs = _bag_configs(view.features)
        return view

    def is_weighted(self) -> bool:
        """Whether KJT weights are per-id weights."""
        return self._weighted

    def embedding_bag_configs(self) -> list[EmbeddingBagConfig]:
        """The tables as TorchRec's models ask for them. A collisionless table has no number of rows: it says 1."""
        return self._configs

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """Looks the ids up. Raises ConfigError where a feature is missing, DataError for a row index out of range."""
        values = self._pooled(jagged_ids(features), weighted=self._weighted)
        return KeyedTensor(keys=self.embedding_names, length_per_key=self.embedding_dims, values=values)


class EmbeddingCollection(View):
    """Sequence embeddings: ids of B rows -> {name: JaggedTensor of (ids of the feature, D)}.

    Arguments as of EmbeddingBagCollection, with TorchRec's EmbeddingConfig.

    Example:
        >>> import embtables, torch
        >>> from torchrec import KeyedJaggedTensor
        >>> item = embtables.FixedTable(name="item", dim=4, num_rows=100, optimizer=embtables.Sgd(learning_rate=0.1))
        >>> tables = embtables.Tables([item], [embtables.Feature(name="seen", table="item", pooling="none")], seed=0)
        >>> sequences = embtables.EmbeddingCollection.over(tables)
        >>> batch = KeyedJaggedTensor(["seen"], torch.tensor([7, 8, 9]), lengths=torch.tensor([2, 1]))
        >>> sequences(batch)["seen"].values().shape
        torch.Size([3, 4])
    """

    _state_prefix = "embeddings"

    def __init__(
        self,
        tables: Sequence[EmbeddingConfig],
        device: torch.device | str | None = None,
        *,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        row_store: RowStoreName = "host",
        update: UpdateMode = "step",
    ) -> None:
        made = _tables_of(tables, device, optimizer, seed, row_store)
        super().__init__(made, made.features, update)

    @classmethod
    def over(cls, tables: Tables, names: Sequence[str] | None = None) -> EmbeddingCollection:
        """The view over the unpooled features (`pooling: none`) of `tables`, or of the tables named."""
        view = cls.__new__(cls)
        View.__init__(view, tables, chosen_features(tables, names, pooled=False), "step")
        return view

    def forward(self, features: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        """Looks the ids up. Raises as EmbeddingBagCollection does."""
        return {
            name: JaggedTensor(values=rows.values, lengths=rows.lengths, weights=rows.weights)
            for name, rows in self._sequences(jagged_ids(features)).items()
        }


def _bag_configs(features: Sequence[TableFeature]) -> list[EmbeddingBagConfig]:
    readers: dict[str, list[TableFeature]] = {}
    for read in features:
        readers.setdefault(read.table.name, []).append(read)
    return [
        EmbeddingBagConfig(
            name=name,
            embedding_dim=of[0].table.dim,
            num_embeddings=of[0].table.key_range or 1,
            feature_names=[read.feature.name for read in of],
            pooling=PoolingType.MEAN if of[0].feature.pooling == "mean" else PoolingType.SUM,
        )
        for name, of in readers.items()
    ]


def _tables_of(
    configs: Sequence[Any], device: Any, optimizer: Optimizer | None, seed: int, row_store: RowStoreName
) -> Tables:
    """Tables of TorchRec configurations: ids are row indices."""
    if device is not None and torch.device(device).type != "cpu":
        raise ConfigError(f"rows lie on the CPU, received device {device}")
    learns = optimizer if optimizer is not None else RowwiseAdagrad(learning_rate=0.01)
    tables, features = [], []
    for config in configs:
        bound = config.num_embeddings**-0.5
        low = -bound if config.weight_init_min is None else config.weight_init_min
        high = bound if config.weight_init_max is None else config.weight_init_max
        tables.append(
            FixedTable(
                name=config.name,
                dim=config.embedding_dim,
                num_rows=config.num_embeddings,
                optimizer=learns,
                initializer=Uniform(low=low, high=high),
            )
        )
        pooling = getattr(config, "pooling", None)
        mode: Literal["sum", "mean", "none"] = (
            "none" if pooling is None else "mean" if pooling == PoolingType.MEAN else "sum"
        )
        features += [
            Feature(name=name, table=config.name, encoder=Identity(), pooling=mode) for name in config.feature_names
        ]
    return Tables(tables, features, seed=seed, row_store=row_store)
