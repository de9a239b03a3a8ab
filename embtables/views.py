"""Views over a set of tables, and their edge to autograd: what a model looks its embeddings up through.

`PooledView`: ids of B rows -> (B, sum of D). `SequenceView`: ids of B rows -> the row of each id, by feature. Both take
raw ids: the features' encoders make keys of them. collections.py gives the same views TorchRec's types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from embtables.batch import Jagged, JaggedIds
from embtables.combine import combined, pooled, row_gradients
from embtables.errors import ConfigError
from embtables.lookups import Request, given_weights, pooled_request, sequence_keys
from embtables.tables import Slot, Tables

UpdateMode = Literal["step", "backward"]


class _Pooled(torch.autograd.Function):
    """The one autograd edge of a pooled lookup. `anchor` makes the output require a gradient.

    `keep`: a backward may come. Within forward neither grad mode nor needs_input_grad tells: the anchor always asks.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, id_weights: Tensor | None, view: View, request: Request, keep: bool
    ) -> Tensor:
        of_weights = keep and bool(ctx.needs_input_grad[1])
        output, context = view.tables.lookups.pooled(request.lookup, keep=keep, of_weights=of_weights)
        ctx.view, ctx.request, ctx.context = view, request, context
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, None, None, None]:
        wanted = bool(ctx.needs_input_grad[1])
        of_keys = ctx.view.tables.lookups.add_gradient(ctx.context, gradient, of_weights=wanted)
        of_ids = ctx.request.weight_gradient(of_keys) if wanted else None
        ctx.view.after_backward()
        return None, of_ids, None, None, None


class _Gathered(torch.autograd.Function):
    """The one autograd edge of a lookup of single rows: for each slot the vectors of its ids."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, view: View, slots: Sequence[Slot], keys: Sequence[Tensor], keep: bool
    ) -> tuple[Tensor, ...]:
        ctx.view, ctx.slots = view, slots
        ctx.set_materialize_grads(False)  # rows of an output that nothing used are not touched
        found, ctx.context = view.tables.lookups.gather([slot.number for slot in slots], keys, keep=keep)
        ctx.rows = [rows if slot.combine == "product" else None for slot, rows in zip(slots, found, strict=True)]
        return tuple(combined(rows, s.keys_per_id, s.combine) for s, rows in zip(slots, found, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, None, None, None, None]:
        each = [
            None if gradient is None else row_gradients(gradient, rows, slot.keys_per_id, slot.combine)
            for slot, rows, gradient in zip(ctx.slots, ctx.rows, gradients, strict=True)
        ]
        ctx.view.tables.lookups.add_row_gradients(ctx.context, each)
        ctx.view.after_backward()
        return None, None, None, None, None


class View(nn.Module):
    """What views share: slots of a `Tables`, output names, state_dict keys.

    Attributes:
        embedding_names: an output for each slot: the feature's name, `feature@table` where it reads several tables.
        embedding_dims: D of each output.
    """

    _state_prefix: str

    def __init__(self, tables: Tables, slots: Sequence[Slot], update: UpdateMode) -> None:
        super().__init__()
        self.tables = tables
        self.slots = tuple(slots)
        self._update = update
        self._anchor = torch.zeros(0, requires_grad=True)
        tables_of = Counter(slot.feature.name for slot in slots)
        self.embedding_names = [
            s.feature.name if tables_of[s.feature.name] == 1 else f"{s.feature.name}@{s.table.name}" for s in slots
        ]
        self.embedding_dims = [s.dim for s in slots]

    def learns(self) -> bool:
        """Whether a lookup is part of training: it may count keys, make rows and receive gradients."""
        return self.training and torch.is_grad_enabled()

    def after_backward(self) -> None:
        """Applies the update at once in `backward` mode."""
        if self._update == "backward":
            self.tables.step()

    def _learning(self) -> tuple[bool, Tensor]:
        """`learns`, and the tensor that makes a lookup's output require a gradient where it does."""
        keep = self.learns()
        return keep, self._anchor if keep else self._anchor.detach()

    def _pooled(self, ids: JaggedIds, *, weighted: bool) -> Tensor:
        """All columns, (B, sum of D)."""
        products = [slot for slot in self.slots if slot.combine == "product"]
        if products:
            return self._with_products(ids, products, weighted=weighted)
        return self._sums(ids, self.slots, weighted=weighted)

    def _sums(self, ids: JaggedIds, slots: Sequence[Slot], *, weighted: bool) -> Tensor:
        """The columns of slots whose vectors are sums of rows, which the row store pools."""
        request = pooled_request(slots, ids, weighted=weighted)
        keep, anchor = self._learning()
        values: Tensor = _Pooled.apply(anchor, request.id_weights, self, request, keep)  # type: ignore[no-untyped-call]
        return values

    def _with_products(self, ids: JaggedIds, products: Sequence[Slot], *, weighted: bool) -> Tensor:
        """All columns; the rows of `products` are gathered, multiplied for each id, and pooled here."""
        columns: dict[int, Tensor] = {}
        sums = [slot for slot in self.slots if slot.combine != "product"]
        if sums:
            parts = torch.split(self._sums(ids, sums, weighted=weighted), [slot.dim for slot in sums], dim=1)
            columns |= {slot.number: part for slot, part in zip(sums, parts, strict=True)}
        found = self._rows_of(ids, products)
        for slot, (vectors, of_feature) in zip(products, found, strict=True):
            weights = given_weights(of_feature.weights) if weighted else None
            columns[slot.number] = pooled(vectors, of_feature.lengths, weights, mean=slot.feature.pooling == "mean")
        return torch.cat([columns[slot.number] for slot in self.slots], dim=1)

    def _rows_of(self, ids: JaggedIds, slots: Sequence[Slot]) -> list[tuple[Tensor, Jagged]]:
        """Of each slot a vector for each id, and the ids."""
        parts = [sequence_keys(slot, ids) for slot in slots]
        keep, anchor = self._learning()
        found = _Gathered.apply(anchor, self, slots, [keys for keys, _ in parts], keep)  # type: ignore[no-untyped-call]
        return [(vectors, of_feature) for vectors, (_, of_feature) in zip(found, parts, strict=True)]

    def _sequences(self, ids: JaggedIds) -> dict[str, Jagged]:
        return {
            name: Jagged(vectors, of_feature.lengths, of_feature.weights)
            for name, (vectors, of_feature) in zip(self.embedding_names, self._rows_of(ids, self.slots), strict=True)
        }

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


class PooledView(View):
    """Pooled embeddings of the features that pool: ids of B rows -> (B, sum of D), in the order of `embedding_names`.

        >>> from embtables import Feature, FixedTable, Tables
        >>> from embtables.schema import Sgd
        >>> table = FixedTable(name="user", dim=4, num_rows=100, optimizer=Sgd(learning_rate=0.1))
        >>> view = PooledView(Tables([table], [Feature(name="user", table="user")], seed=0))
        >>> view(JaggedIds.of({"user": [[7], [8], []]})).shape
        torch.Size([3, 4])

    Args:
        tables: what the features read.
        names: of the tables looked up; by default all that a pooled feature reads.

    Raises:
        ConfigError: no pooled feature reads these tables.
    """

    _state_prefix = "embedding_bags"

    def __init__(self, tables: Tables, names: Sequence[str] | None = None) -> None:
        super().__init__(tables, chosen_slots(tables, names, pooled=True), "step")
        self._weighted = any(slot.feature.weights_column is not None for slot in self.slots)

    def forward(self, ids: JaggedIds) -> Tensor:
        """Looks the ids up. Raises ConfigError where a feature is missing, DataError for a row index out of range."""
        return self._pooled(ids, weighted=self._weighted)


class SequenceView(View):
    """Rows of the ids of the features with `pooling: none`: ids of B rows -> {name: Jagged of (ids of the feature, D)}.

    Arguments and errors as of PooledView.
    """

    _state_prefix = "embeddings"

    def __init__(self, tables: Tables, names: Sequence[str] | None = None) -> None:
        super().__init__(tables, chosen_slots(tables, names, pooled=False), "step")

    def forward(self, ids: JaggedIds) -> dict[str, Jagged]:
        """Looks the ids up. Raises as PooledView does."""
        return self._sequences(ids)


def chosen_slots(tables: Tables, names: Sequence[str] | None, *, pooled: bool) -> list[Slot]:
    """The slots of pooled (or of unpooled) features of all tables, or of those named.

    Raises:
        ConfigError: there are none.
    """
    slots = [s for s in tables.slots if (s.feature.pooling != "none") is pooled]
    slots = [s for s in slots if names is None or s.table.name in names]
    if not slots:
        kind = "pooled" if pooled else "unpooled"
        raise ConfigError(f"no {kind} feature reads these tables; look at the features' pooling")
    return slots
