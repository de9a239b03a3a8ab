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
from embtables.errors import ConfigError
from embtables.lookups import Request, pooled_request, sequence_keys
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
    """The one autograd edge of a sequence lookup: an output for each slot."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, view: View, slots: Sequence[Slot], keys: Sequence[Tensor], keep: bool
    ) -> tuple[Tensor, ...]:
        ctx.view, ctx.slots = view, slots
        ctx.set_materialize_grads(False)  # rows of an output that nothing used are not touched
        found, ctx.context = view.tables.lookups.gather([slot.number for slot in slots], keys, keep=keep)
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
        self.embedding_dims = [s.table.dim for s in slots]

    def learns(self) -> bool:
        """Whether a lookup is part of training: it may count keys, make rows and receive gradients."""
        return self.training and torch.is_grad_enabled()

    def after_backward(self) -> None:
        """Applies the update at once in `backward` mode."""
        if self._update == "backward":
            self.tables.step()

    def _pooled(self, ids: JaggedIds, *, weighted: bool) -> Tensor:
        request = pooled_request(self.slots, ids, weighted=weighted)
        keep = self.learns()
        anchor = self._anchor if keep else self._anchor.detach()
        pooled: Tensor = _Pooled.apply(anchor, request.id_weights, self, request, keep)  # type: ignore[no-untyped-call]
        return pooled

    def _sequences(self, ids: JaggedIds) -> dict[str, Jagged]:
        parts = [sequence_keys(slot, ids) for slot in self.slots]
        keep = self.learns()
        anchor = self._anchor if keep else self._anchor.detach()
        found = _Gathered.apply(anchor, self, self.slots, [keys for keys, _ in parts], keep)  # type: ignore[no-untyped-call]
        return {
            name: Jagged(rows, of_feature.lengths, of_feature.weights)
            for name, rows, (_, of_feature) in zip(self.embedding_names, found, parts, strict=True)
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


class RowsById(View):
    """The row of each id of one feature, as inference reads it: ids of B rows with one id each -> (B, D).

    Args:
        tables: what the feature reads.
        table, feature: the lookup.

    Raises:
        ConfigError: the feature does not read this table.
    """

    _state_prefix = "embedding_bags"

    def __init__(self, tables: Tables, table: str, feature: str) -> None:
        slots = [s for s in tables.slots if s.table.name == table and s.feature.name == feature]
        if not slots:
            raise ConfigError(f"feature '{feature}' does not read it", table=table)
        super().__init__(tables, slots, "step")
        self.eval()

    @torch.no_grad()
    def forward(self, ids: JaggedIds) -> Tensor:
        """Looks the ids up. Raises as PooledView does."""
        return self._pooled(ids, weighted=False)


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
