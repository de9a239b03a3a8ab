"""Views over a set of tables, and their edge to autograd: what a model looks its embeddings up through.

`PooledView`: ids of B rows -> (B, sum of D). `PooledFirstOrderView`: the same, and first-order weights.
`SequenceView`: ids of B rows -> the row of each id, by feature. All take raw ids: the features' encoders make keys of
them. collections.py gives the same views TorchRec's types.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from embtables.errors import ConfigError, StateError
from embtables.given import as_names
from embtables.inputs.batch import Jagged, JaggedIds
from embtables.lookup.request import Request, checked, given_weights, pooled_request, sequence_keys
from embtables.schema import CollisionlessTable
from embtables.schema.schema import LINEAR_PREFIX
from embtables.tables.combine import combined, pooled, row_gradients
from embtables.tables.lookup_tables import LookupTables
from embtables.tables.table_feature import TableFeature
from embtables.tables.table_set import Tables

UpdateMode = Literal["step", "backward"]
Span = tuple[str, int]
Sums = tuple[tuple[TableFeature, ...], tuple[TableFeature, ...]]


class _Pooled(torch.autograd.Function):
    """The one autograd edge of a pooled lookup of training. `anchor` makes the output require a gradient."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, id_weights: Tensor | None, view: View, request: Request) -> Tensor:
        of_weights = bool(ctx.needs_input_grad[1])
        output, lookup = _trained(view.tables).lookups.train_pooled(request.lookup, of_weights=of_weights)
        ctx.view, ctx.request, ctx.lookup = view, request, lookup
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, None, None]:
        wanted = bool(ctx.needs_input_grad[1])
        of_keys = ctx.lookup.add_gradient(gradient, of_weights=wanted)
        of_ids = ctx.request.weight_gradient(of_keys) if wanted else None
        ctx.view.after_backward()
        return None, of_ids, None, None


class _Evaluated(torch.autograd.Function):
    """The edge of a lookup in `eval` mode, which kept nothing for a backward."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, vectors: Tensor) -> Tensor:
        return vectors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        raise StateError(
            "backward reached embeddings that were looked up in eval mode, so their rows would learn nothing: call "
            "train() on the view of embeddings (after the model was put in eval mode, where other layers need it), or "
            "look up under torch.no_grad()"
        )


class _Gathered(torch.autograd.Function):
    """The one autograd edge of a lookup of single rows in training: for each feature the vectors of its ids."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, view: View, features: Sequence[TableFeature], keys: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        ctx.view, ctx.features = view, features
        ctx.set_materialize_grads(False)  # rows of an output that nothing used are not touched
        found, ctx.lookup = _trained(view.tables).lookups.train_rows([read.number for read in features], keys)
        ctx.rows = [rows if read.combine == "product" else None for read, rows in zip(features, found, strict=True)]
        return _vectors(features, found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, None, None, None]:
        each = [
            None if gradient is None else row_gradients(gradient, rows, read.keys_per_id, read.combine)
            for read, rows, gradient in zip(ctx.features, ctx.rows, gradients, strict=True)
        ]
        ctx.lookup.add_gradients(each)
        ctx.view.after_backward()
        return None, None, None, None


def _vectors(features: Sequence[TableFeature], rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """For each feature the vectors of its ids, of the rows of their keys."""
    return tuple(combined(found, read.keys_per_id, read.combine) for read, found in zip(features, rows, strict=True))


def _trained(tables: LookupTables) -> Tables:
    """The tables of a view that learns. Raises ConfigError for those that only published versions change."""
    if not isinstance(tables, Tables):
        raise ConfigError(
            f"a {type(tables).__name__} only reads rows: put the model into eval mode, or make it over Tables to train"
        )
    return tables


class View(nn.Module):
    """What views share: features of a `Tables` or `ServedTables`, output names, state_dict keys.

    Attributes:
        embedding_names: an output for each feature: the feature's name, `feature@table` where it reads several tables.
        embedding_dims: D of each output.
    """

    _state_prefix: str

    def __init__(self, tables: LookupTables, features: Sequence[TableFeature], update: UpdateMode) -> None:
        super().__init__()
        if not isinstance(update, str) or update not in get_args(UpdateMode):
            raise ConfigError(
                f"must be one of {', '.join(get_args(UpdateMode))}, received {update!r}", argument="update"
            )
        self.tables = tables
        self.features = tuple(features)
        self._trainable = any(read.table.trainable for read in features)
        self._update = update
        self._anchor = torch.zeros(0, requires_grad=True)
        tables_of = Counter(read.feature.name for read in features)
        self.embedding_names = [
            s.feature.name if tables_of[s.feature.name] == 1 else f"{s.feature.name}@{s.table.name}" for s in features
        ]
        self.embedding_dims = [s.dim for s in features]

    def learns(self) -> bool:
        """Whether a lookup is part of training: it may count keys, make rows and receive gradients."""
        return self.training and torch.is_grad_enabled()

    def after_backward(self) -> None:
        """Applies the update at once in `backward` mode."""
        if self._update == "backward":
            _trained(self.tables).step()
        elif self._trainable:
            _trained(self.tables).waiting.note()

    def _evaluated(self, vectors: Tensor, weights: Tensor | None) -> Tensor:
        """What a lookup that does not learn gives: its backward raises, where it would have left rows as they are."""
        needs_weights = weights is not None and weights.requires_grad
        if not torch.is_grad_enabled() or not (self._trainable or needs_weights):
            return vectors
        found: Tensor = _Evaluated.apply(self._anchor, vectors)  # type: ignore[no-untyped-call]
        return found

    def _pooled(self, ids: JaggedIds, *, weighted: bool) -> Tensor:
        """All columns, (B, sum of D)."""
        products = [read for read in self.features if read.combine == "product"]
        if products:
            return self._with_products(ids, products, weighted=weighted)
        return self._sums(ids, self.features, weighted=weighted)

    def _sums(
        self, ids: JaggedIds, features: Sequence[TableFeature], *, weighted: bool, beside: Sequence[TableFeature] = ()
    ) -> Tensor:
        """The columns of features whose vectors are sums of rows, which the row store pools; then of those beside."""
        request = pooled_request(features, ids, weighted=weighted, beside=beside)
        if not self.learns():
            return self._evaluated(self.tables.lookups.pooled(request.lookup), request.id_weights)
        values: Tensor = _Pooled.apply(self._anchor, request.id_weights, self, request)  # type: ignore[no-untyped-call]
        return values

    def _with_products(self, ids: JaggedIds, products: Sequence[TableFeature], *, weighted: bool) -> Tensor:
        """All columns; the rows of `products` are gathered, multiplied for each id, and pooled here."""
        columns: dict[int, Tensor] = {}
        sums = [read for read in self.features if read.combine != "product"]
        if sums:
            parts = torch.split(self._sums(ids, sums, weighted=weighted), [read.dim for read in sums], dim=1)
            columns |= {read.number: part for read, part in zip(sums, parts, strict=True)}
        found = self._rows_of(ids, products)
        for read, (vectors, of_feature) in zip(products, found, strict=True):
            weights = given_weights(of_feature.weights) if weighted else None
            columns[read.number] = pooled(vectors, of_feature.lengths, weights, mean=read.feature.pooling == "mean")
        return torch.cat([columns[read.number] for read in self.features], dim=1)

    def _rows_of(self, ids: JaggedIds, features: Sequence[TableFeature]) -> list[tuple[Tensor, Jagged]]:
        """For each feature a vector for each id, and the ids."""
        read = [sequence_keys(feature, ids) for feature in features]
        keys = [of_feature for of_feature, _ in read]
        if self.learns():
            vectors: tuple[Tensor, ...] = _Gathered.apply(self._anchor, self, features, keys)  # type: ignore[no-untyped-call]
        else:
            rows = self.tables.lookups.gather([feature.number for feature in features], keys)
            vectors = tuple(self._evaluated(found, None) for found in _vectors(features, rows))
        return [(found, of_feature) for found, (_, of_feature) in zip(vectors, read, strict=True)]

    def _sequences(self, ids: JaggedIds) -> dict[str, Jagged]:
        return {
            name: Jagged(vectors, of_feature.lengths, of_feature.weights)
            for name, (vectors, of_feature) in zip(self.embedding_names, self._rows_of(ids, self.features), strict=True)
        }

    def _only(self, names: Collection[str]) -> Self:
        """The same view with those of its features alone that are named."""
        made = copy.copy(self)
        kept = [place for place, read in enumerate(self.features) if read.feature.name in names]
        made.features = tuple(self.features[place] for place in kept)
        made.embedding_names = [self.embedding_names[place] for place in kept]
        made.embedding_dims = [self.embedding_dims[place] for place in kept]
        return made

    def _table_names(self) -> list[str]:
        return list(dict.fromkeys(read.table.name for read in self.features))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # A row of a collisionless table lies where its key happened to come: the keys go with the rows.
        tables = _trained(self.tables)
        for name in self._table_names():
            with tables.lock:
                keys, weight = tables.keys(name), tables.weight(name)
            destination[f"{prefix}{self._state_prefix}.{name}.weight"] = weight
            if self._is_collisionless(name):
                destination[f"{prefix}{self._state_prefix}.{name}.keys"] = keys

    def _is_collisionless(self, table: str) -> bool:
        return any(isinstance(c, CollisionlessTable) for c in self.tables.configs if c.name == table)

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
        ours: list[str] = []
        tables = _trained(self.tables)
        for name in self._table_names():
            weight, keys = (f"{prefix}{self._state_prefix}.{name}.{part}" for part in ("weight", "keys"))
            ours += [weight, keys] if self._is_collisionless(name) else [weight]
            missing = [key for key in dict.fromkeys([weight, ours[-1]]) if key not in state_dict]
            if weight not in state_dict:
                missing_keys.extend(missing)
            elif not self._is_collisionless(name):
                if keys in state_dict:
                    raise StateError("is of a collisionless table, and the table here is fixed", tensor=weight)
                tables.set_weight(name, state_dict[weight])
            elif missing:
                raise StateError(
                    f"has no keys ({keys}), so that nothing says whose row each is; where row i is the row of the raw "
                    "id i, as in a TorchRec model, use embtables.warm_start.from_state_dict",
                    tensor=weight,
                )
            else:
                tables.set_weight(name, state_dict[weight], keys=state_dict[keys])
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

    def __init__(self, tables: LookupTables, names: Sequence[str] | None = None) -> None:
        super().__init__(tables, chosen_features(tables, names, pooled=True), "step")
        self._weighted = any(read.feature.weights_column is not None for read in self.features)

    def forward(self, ids: JaggedIds) -> Tensor:
        """Looks the ids up. Raises ConfigError where a feature is missing, DataError for a row index out of range or
        a batch whose parts do not go together."""
        return self._pooled(checked(ids), weighted=self._weighted)

    @property
    def spans(self) -> list[Span]:
        """The columns of the result: features and how many each has."""
        return [(read.feature.name, read.dim) for read in self.features]

    def part(self, names: Collection[str]) -> PooledView:
        """The view over those of its features that are named; its columns are those that they have here."""
        made = self._only(names)
        made._weighted = any(read.feature.weights_column is not None for read in made.features)
        return made

    @property
    def sums(self) -> list[Sums]:
        """The lookups that `forward` makes, if it sums all rows: features and those beside them. Their columns, one
        lookup after the other, are those of the result."""
        return [(self.features, ())]


class PooledFirstOrderView(View):
    """Pooled embeddings and first-order weights, each id encoded and mapped to its row once: ids of B rows ->
    (B, sum of D) in the order of `embedding_names`, and (B, n) weights whose sum over a row is its first-order term.

    Where a feature's rows are not summed (embtables/ids/encoder.py) the two are looked up one after the other.

    Args:
        tables: what the features read, first-order weights among them.
        names: of the tables looked up, without those of first-order weights.

    Raises:
        ConfigError: no pooled feature reads these tables.
    """

    _state_prefix = "embedding_bags"

    def __init__(self, tables: LookupTables, names: Sequence[str]) -> None:
        super().__init__(tables, chosen_features(tables, names, pooled=True), "step")
        linear = [LINEAR_PREFIX + name for name in names]
        self._linear = chosen_features(tables, [c.name for c in tables.configs if c.name in linear], pooled=True)
        sharing = {table.config.name for table in tables.stored if table.keys_of is not None}
        by_name = {read.feature.name: read for read in self._linear if read.table.name in sharing}
        self._beside = [by_name[read.feature.name] for read in self.features if read.feature.name in by_name]
        if len(self._beside) < len(self.features) or any(r.combine not in ("sum", "concat") for r in self.features):
            self._beside = []
        self._alone = [read for read in self._linear if read not in self._beside]
        self._weighted = any(read.feature.weights_column is not None for read in self._linear)

    def forward(self, ids: JaggedIds) -> tuple[Tensor, Tensor]:
        """Looks the ids up. Raises as PooledView does."""
        ids = checked(ids)
        if not self._beside:
            # Embeddings first: their lookup admits the keys that both share.
            pooled = self._pooled(ids, weighted=self._weighted)
            return pooled, self._sums(ids, self._linear, weighted=self._weighted)
        both = self._sums(ids, self.features, weighted=self._weighted, beside=self._beside)
        width = sum(self.embedding_dims)
        pooled, first_order = torch.split(both, [width, both.shape[1] - width], dim=1)
        if self._alone:
            first_order = torch.cat([first_order, self._sums(ids, self._alone, weighted=self._weighted)], dim=1)
        return pooled, first_order

    @property
    def spans(self) -> list[Span]:
        """The columns of the embeddings: features and how many each has."""
        return [(read.feature.name, read.dim) for read in self.features]

    @property
    def first_order_spans(self) -> list[Span]:
        """The same of the first-order weights."""
        if not self._beside:
            return [(read.feature.name, read.dim) for read in self._linear]
        return [
            *((read.feature.name, read.blocks) for read in self.features),
            *((read.feature.name, read.dim) for read in self._alone),
        ]

    def part(self, names: Collection[str]) -> PooledFirstOrderView:
        """The view over those of its features that are named; its columns are those that they have here."""
        made = self._only(names)
        made._linear = [read for read in self._linear if read.feature.name in names]
        made._beside = [read for read in self._beside if read.feature.name in names]
        made._alone = [read for read in self._alone if read.feature.name in names]
        made._weighted = any(read.feature.weights_column is not None for read in made._linear)
        return made

    @property
    def sums(self) -> list[Sums]:
        """As of PooledView: columns of embeddings, then of first-order weights."""
        others = self._alone if self._beside else self._linear
        return [part for part in ((self.features, tuple(self._beside)), (tuple(others), ())) if part[0]]

    def _table_names(self) -> list[str]:
        return list(dict.fromkeys(read.table.name for read in (*self.features, *self._linear)))


class SequenceView(View):
    """Rows of the ids of the features with `pooling: none`: ids of B rows -> {name: Jagged of (ids of the feature, D)}.

    Arguments and errors as of PooledView.
    """

    _state_prefix = "embeddings"

    def __init__(self, tables: LookupTables, names: Sequence[str] | None = None) -> None:
        super().__init__(tables, chosen_features(tables, names, pooled=False), "step")

    def forward(self, ids: JaggedIds) -> dict[str, Jagged]:
        """Looks the ids up. Raises as PooledView does."""
        return self._sequences(checked(ids))


class RowsById(View):
    """The row of each id of one feature, as inference reads it: ids of B rows with one id each -> (B, D).

    Args:
        tables: what the feature reads.
        table, feature: the lookup.

    Raises:
        ConfigError: the feature does not read this table.
    """

    _state_prefix = "embedding_bags"

    def __init__(self, tables: LookupTables, table: str, feature: str) -> None:
        features = [s for s in tables.features if s.table.name == table and s.feature.name == feature]
        if not features:
            raise ConfigError(f"feature '{feature}' does not read it", table=table)
        super().__init__(tables, features, "step")
        self.eval()

    @torch.no_grad()
    def forward(self, ids: JaggedIds) -> Tensor:
        """Looks the ids up. Raises as PooledView does."""
        return self._pooled(checked(ids), weighted=False)


def chosen_features(tables: LookupTables, names: Sequence[str] | None, *, pooled: bool) -> list[TableFeature]:
    """The features of pooled (or of unpooled) features of all tables, or of those named.

    Raises:
        ConfigError: there are none, or a table that is named does not exist.
    """
    if not isinstance(tables, LookupTables):
        raise ConfigError(f"a view needs Tables, received a {type(tables).__name__}")
    known = [config.name for config in tables.configs]
    names = None if names is None else as_names(names, "names")
    if any(name not in known for name in names or ()):
        raise ConfigError(f"must be a list of tables among {', '.join(known)}; received {names!r}", argument="names")
    features = [s for s in tables.features if (s.feature.pooling != "none") is pooled]
    features = [s for s in features if names is None or s.table.name in names]
    if not features:
        kind = "pooled" if pooled else "unpooled"
        raise ConfigError(f"no {kind} feature reads these tables; look at the features' pooling")
    return features
