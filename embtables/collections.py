"""The two TorchRec-shaped views over one set of tables, and their edge to autograd.

`EmbeddingBagCollection`: KeyedJaggedTensor -> KeyedTensor (pooled). `EmbeddingCollection`: KeyedJaggedTensor -> dict of
JaggedTensor (sequences). Both take raw ids where they stand over a `Tables` of a schema (the features' encoders make
keys of them), and row indices where they are built from TorchRec configurations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from embtables.errors import ConfigError
from embtables.lookups import Request, pooled_request, sequence_keys
from embtables.schema import Feature, FixedTable, Identity, Optimizer, RowwiseAdagrad, Uniform
from embtables.tables import RowStoreName, TableFeature, Tables

UpdateMode = Literal["step", "backward"]


class _Pooled(torch.autograd.Function):
    """The one autograd edge of a pooled lookup. `anchor` makes the output require a gradient.

    `keep`: a backward may come. Within forward neither grad mode nor needs_input_grad tells: the anchor always asks.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, id_weights: Tensor | None, view: _View, request: Request, keep: bool
    ) -> Tensor:
        if not keep:
            return view.tables.lookups.pooled(request.lookup)
        of_weights = bool(ctx.needs_input_grad[1])
        output, lookup = view.tables.lookups.train_pooled(request.lookup, of_weights=of_weights)
        ctx.view, ctx.request, ctx.lookup = view, request, lookup
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, None, None, None]:
        wanted = bool(ctx.needs_input_grad[1])
        of_keys = ctx.lookup.add_gradient(gradient, of_weights=wanted)
        of_ids = ctx.request.weight_gradient(of_keys) if wanted else None
        ctx.view.after_backward()
        return None, of_ids, None, None, None


class _Gathered(torch.autograd.Function):
    """The one autograd edge of a sequence lookup: an output for each slot."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, view: _View, slots: Sequence[TableFeature], keys: Sequence[Tensor], keep: bool
    ) -> tuple[Tensor, ...]:
        ctx.view, ctx.slots = view, slots
        ctx.set_materialize_grads(False)  # rows of an output that nothing used are not touched
        numbers = [slot.number for slot in slots]
        if keep:
            found, ctx.lookup = view.tables.lookups.train_rows(numbers, keys)
        else:
            found = view.tables.lookups.gather(numbers, keys)
        return tuple(
            rows if slot.keys_per_id == 1 else rows.view(-1, slot.keys_per_id, rows.shape[1]).sum(dim=1)
            for slot, rows in zip(slots, found, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, None, None, None, None]:
        each = [
            None if gradient is None else gradient.repeat_interleave(slot.keys_per_id, dim=0)
            for slot, gradient in zip(ctx.slots, gradients, strict=True)
        ]
        ctx.lookup.add_gradients(each)
        ctx.view.after_backward()
        return None, None, None, None, None


class _View(nn.Module):
    """What the two views share: slots of a `Tables`, output names, state_dict keys."""

    _state_prefix: str

    def __init__(self, tables: Tables, slots: Sequence[TableFeature], update: UpdateMode) -> None:
        super().__init__()
        self.tables = tables
        self.slots = tuple(slots)
        self._update = update
        self._anchor = torch.zeros(0, requires_grad=True)
        tables_of = Counter(slot.feature.name for slot in slots)
        self.embedding_names = [
            s.feature.name if tables_of[s.feature.name] == 1 else f"{s.feature.name}@{s.table.name}" for s in slots
        ]
        self.embedding_dims = [s.table.dim for s in slots]

    def learns(self) -> bool:
        """Whether a lookup is part of training: it may count keys, make rows and receive gradients."""
        return self.training and torch.is_grad_enabled()

    def after_backward(self) -> None:
        """Applies the update at once in `backward` mode."""
        if self._update == "backward":
            self.tables.step()

    def _table_names(self) -> list[str]:
        return list(dict.fromkeys(slot.table.name for slot in self.slots))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name in self._table_names():
            destination[f"{prefix}{self._state_prefix}.{name}.weight"] = self.tables.weight(name)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        ours = {f"{prefix}{self._state_prefix}.{name}.weight": name for name in self._table_names()}
        for key, name in ours.items():
            if key in state_dict:
                self.tables.set_weight(name, state_dict[key])
            else:
                missing_keys.append(key)
        unexpected_keys.extend(key for key in state_dict if key.startswith(prefix) and key not in ours)


class EmbeddingBagCollection(_View):
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
        _View.__init__(view, tables, _chosen(tables, names, pooled=True), "step")
        view._weighted = any(slot.feature.weights_column is not None for slot in view.slots)
        view._configs = _bag_configs(view.slots)
        return view

    def is_weighted(self) -> bool:
        """Whether KJT weights are per-id weights."""
        return self._weighted

    def embedding_bag_configs(self) -> list[EmbeddingBagConfig]:
        """The tables as TorchRec's models ask for them. A collisionless table has no number of rows: it says 1."""
        return self._configs

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """Looks the ids up. Raises ConfigError where a feature is missing, DataError for a row index out of range."""
        request = pooled_request(self.slots, features, weighted=self._weighted)
        keep = self.learns()
        anchor = self._anchor if keep else self._anchor.detach()
        values = _Pooled.apply(anchor, request.id_weights, self, request, keep)  # type: ignore[no-untyped-call]
        return KeyedTensor(keys=self.embedding_names, length_per_key=self.embedding_dims, values=values)


class EmbeddingCollection(_View):
    """Sequence embeddings: ids of B rows -> {name: JaggedTensor of (ids of the feature, D)}.

    Arguments as of EmbeddingBagCollection, with TorchRec's EmbeddingConfig.
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
        _View.__init__(view, tables, _chosen(tables, names, pooled=False), "step")
        return view

    def forward(self, features: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        """Looks the ids up. Raises as EmbeddingBagCollection does."""
        parts = [sequence_keys(slot, features) for slot in self.slots]
        keep = self.learns()
        anchor = self._anchor if keep else self._anchor.detach()
        found = _Gathered.apply(anchor, self, self.slots, [keys for keys, _ in parts], keep)  # type: ignore[no-untyped-call]
        return {
            name: JaggedTensor(values=rows, lengths=jagged.lengths(), weights=jagged.weights_or_none())
            for name, rows, (_, jagged) in zip(self.embedding_names, found, parts, strict=True)
        }


def _bag_configs(slots: Sequence[TableFeature]) -> list[EmbeddingBagConfig]:
    readers: dict[str, list[TableFeature]] = {}
    for slot in slots:
        readers.setdefault(slot.table.name, []).append(slot)
    return [
        EmbeddingBagConfig(
            name=name,
            embedding_dim=of[0].table.dim,
            num_embeddings=of[0].table.key_range or 1,
            feature_names=[slot.feature.name for slot in of],
            pooling=PoolingType.MEAN if of[0].feature.pooling == "mean" else PoolingType.SUM,
        )
        for name, of in readers.items()
    ]


def _chosen(tables: Tables, names: Sequence[str] | None, *, pooled: bool) -> list[TableFeature]:
    slots = [s for s in tables.features if (s.feature.pooling != "none") is pooled]
    slots = [s for s in slots if names is None or s.table.name in names]
    if not slots:
        kind = "pooled" if pooled else "unpooled"
        raise ConfigError(f"no {kind} feature reads these tables; look at the features' pooling")
    return slots


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
