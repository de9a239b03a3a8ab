"""The two TorchRec-shaped views over one set of tables.

`EmbeddingBagCollection`: KeyedJaggedTensor -> KeyedTensor (pooled). `EmbeddingCollection`: KeyedJaggedTensor -> dict of
JaggedTensor (sequences). Both take raw ids where they stand over a `Tables` of a schema (the features' encoders make
keys of them), and row indices where they are built from TorchRec configurations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from embtables.lookup.keyed_batches import jagged_ids, keyed_jagged_tensor, whole_batch
from embtables.lookup.request import checked
from embtables.lookup.torchrec_tables import tables_of
from embtables.lookup.views import UpdateMode, View, chosen_features
from embtables.schema import Optimizer
from embtables.tables.row_store import RowStoreName
from embtables.tables.table_feature import TableFeature
from embtables.tables.table_set import Tables

__all__ = ["EmbeddingBagCollection", "EmbeddingCollection", "jagged_ids", "keyed_jagged_tensor"]


class EmbeddingBagCollection(View):
    """Pooled embeddings: ids of B rows -> KeyedTensor (B, sum of D).

    Built like TorchRec's: `EmbeddingBagCollection(tables=[EmbeddingBagConfig(...)], is_weighted=False)`; or over the
    pooled features of a schema's tables: `EmbeddingBagCollection.over(tables)`.

    Args:
        tables: TorchRec configurations; ids are row indices of them. Their `init_fn` and bounds make the rows.
        is_weighted: the KJT's weights are per-id weights and receive gradients.
        device: only the CPU.
        optimizer: how rows learn; by default rowwise Adagrad at rate 0.01.
        seed: of the initial rows, uniform in +-1/sqrt(num_embeddings) as TorchRec's are.
        row_store: see Tables.
        update: `step`: `collection.tables.step()` applies the gradients; `backward`: they are applied inside backward,
            for training loops written for TorchRec's fused optimizers.

    Raises:
        ConfigError: an unsupported device, or a configuration with a data type other than FP32, no pooling, a name that
            another has, pruning or a virtual table.

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
        made = tables_of(tables, EmbeddingBagConfig, device, optimizer, seed, row_store)
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
        """Looks the ids up. A batch with inverse indices is pooled for the rows that they name.

        Raises:
            ConfigError: a feature is missing, or weights that `is_weighted` promises.
            DataError: a row index is out of range, ids are no integers, lengths or weights do not match the ids, or
                features have different numbers of rows and no inverse indices.
        """
        values = self._pooled(checked(whole_batch(features)), weighted=self._weighted)
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
        made = tables_of(tables, EmbeddingConfig, device, optimizer, seed, row_store)
        super().__init__(made, made.features, update)

    @classmethod
    def over(cls, tables: Tables, names: Sequence[str] | None = None) -> EmbeddingCollection:
        """The view over the unpooled features (`pooling: none`) of `tables`, or of the tables named."""
        view = cls.__new__(cls)
        View.__init__(view, tables, chosen_features(tables, names, pooled=False), "step")
        return view

    def forward(self, features: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        """Looks the ids up. Raises as EmbeddingBagCollection does; inverse indices are refused (DataError)."""
        return {
            name: JaggedTensor(values=rows.values, lengths=rows.lengths, weights=rows.weights)
            for name, rows in self._sequences(checked(jagged_ids(features))).items()
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
