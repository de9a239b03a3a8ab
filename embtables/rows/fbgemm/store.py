"""Row store on fbgemm's table-batched embeddings (TBE), CPU: lookup, backward and optimizer fused in native code.

TBE updates rows inside its backward, so the backward is what `update` runs: until then a lookup's output and its
gradient are kept. Two lookups of one step would update a row twice; they are joined along the batch and run as one.

What TBE on CPU lacks is refused: Adam, weight decay (ignored by TBE), dimensions that are no multiple of 4. Dimension 1
is laid out as 4 with columns that stay zero: exact for SGD and Adagrad, and rowwise Adagrad of one value is Adagrad.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embtables.errors import ConfigError, StateError
from embtables.keyspace import bucket_order
from embtables.rows.content import TableContent
from embtables.rows.duplicates import SparseGradient, bag_numbers, concatenate, sum_duplicates
from embtables.rows.fbgemm.tbe_calls import Call, call_of, join, lay_out, offsets_of
from embtables.rows.initial import initial_rows
from embtables.rows.optimizers import FBGEMM_RULES, optimizer_spec, specs
from embtables.rows.protocol import Ability, Capture, Changes, CopiedCapture, KeyState, Lookup, PooledLookup, RowsLookup
from embtables.rows.stored_table import StoredTable
from embtables.schema import FixedTable

_LANES = 4  # TBE's dimensions are multiples of this
_INIT_ROWS = 65_536


@dataclass
class _Group:
    """Tables that one TBE serves: one optimizer configuration, dimension 1 apart."""

    module: Any
    features: tuple[int, ...]
    dims: tuple[int, ...]  # of each feature, as laid out
    tables: tuple[int, ...]
    learning_rate: float
    steps: int = 0
    pending: list[Call] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _GroupCall:
    """What one group contributed to a lookup."""

    group: int
    call: Call
    positions: tuple[int, ...]  # of the group's features within the lookup; -1: not looked up


@dataclass(frozen=True, slots=True, eq=False)
class _PooledLookup:
    """See PooledLookup."""

    store: FbgemmRowStore
    lookup: Lookup
    calls: tuple[_GroupCall, ...]

    def add_gradient(self, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """See PooledLookup."""
        return self.store._add_gradient(self.lookup, self.calls, gradient, of_weights)


@dataclass(frozen=True, slots=True, eq=False)
class _RowsLookup:
    """See RowsLookup."""

    store: FbgemmRowStore
    features: Sequence[int]
    keys: Sequence[Tensor]

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """See RowsLookup. Every key is a bag of its own."""
        for feature, keys, gradient in zip(self.features, self.keys, gradients, strict=True):
            if gradient is not None:
                self.store._add_rows(feature, keys, gradient)


class FbgemmRowStore:
    """Row store on fbgemm TBE.

    Raises:
        ConfigError: a table asks for what TBE on CPU does not do; names the table and what to use instead.
    """

    abilities: frozenset[Ability] = frozenset()

    def __init__(self, tables: Sequence[StoredTable], feature_tables: Sequence[int]) -> None:
        self._fixed = [_refuse_unsupported(table) for table in tables]
        self._tables = tuple(tables)
        self._feature_tables = tuple(feature_tables)
        members: dict[str, list[int]] = {}
        for number, table in enumerate(tables):
            kind = f"{table.config.optimizer!r}/{table.config.dim == 1}/{table.config.trainable}"
            members.setdefault(kind, []).append(number)
        self._groups = [self._make_group(numbers) for numbers in members.values()]
        self._group_of = {t: g for g, group in enumerate(self._groups) for t in group.tables}

    def _make_group(self, numbers: list[int]) -> _Group:
        # TBE wants the features of one table side by side; elsewhere its update fails or goes to the wrong rows.
        features = tuple(f for n in numbers for f, table in enumerate(self._feature_tables) if table == n)
        configs = [self._fixed[n] for n in numbers]
        feature_tables = [numbers.index(self._feature_tables[f]) for f in features]
        module = _make_tbe(configs, feature_tables)
        for number, weight in zip(numbers, module.split_embedding_weights(), strict=True):
            _initialise(weight, self._fixed[number], self._tables[number].seed)
        dims = tuple(_laid_out(self._dim(f)) for f in features)
        return _Group(module, features, dims, tuple(numbers), configs[0].optimizer.learning_rate)

    def _dim(self, feature: int) -> int:
        return self._tables[self._feature_tables[feature]].config.dim

    def pooled(self, lookup: Lookup) -> Tensor:
        """See RowReader."""
        return self._pooled(lookup, train=False)[0]

    def train_pooled(self, lookup: Lookup) -> tuple[Tensor, PooledLookup]:
        """See RowTrainer."""
        output, calls = self._pooled(lookup, train=True)
        return output, _PooledLookup(self, lookup, calls)

    def _pooled(self, lookup: Lookup, *, train: bool) -> tuple[Tensor, tuple[_GroupCall, ...]]:
        """The sums, and what each group contributed; for training with TBE's own outputs, which its backward needs."""
        calls = []
        columns: dict[int, Tensor] = {}
        for number, group in enumerate(self._groups):
            positions = tuple(lookup.features.index(f) if f in lookup.features else -1 for f in group.features)
            if all(p < 0 for p in positions):
                continue
            call = call_of(lookup, positions)
            # TBE's operator does not run in inference mode; without gradients it does.
            with torch.inference_mode(False), torch.set_grad_enabled(train):
                output = group.module(call.keys, call.offsets, per_sample_weights=call.weights)
            if train:
                call = replace(call, output=output, learning_rate=group.learning_rate)
            calls.append(_GroupCall(number, call, positions))
            if positions == tuple(range(len(lookup.features))) and group.dims == tuple(map(self._dim, lookup.features)):
                return output.detach(), tuple(calls)
            columns.update(self._columns(group, positions, output.detach()))
        return torch.cat([columns[p] for p in range(len(lookup.features))], dim=1), tuple(calls)

    def _columns(self, group: _Group, positions: tuple[int, ...], output: Tensor) -> dict[int, Tensor]:
        """The output columns of each looked-up feature, by its position in the lookup, without padding."""
        found: dict[int, Tensor] = {}
        start = 0
        for feature, dim, position in zip(group.features, group.dims, positions, strict=True):
            if position >= 0:
                found[position] = output[:, start : start + self._dim(feature)]
            start += dim
        return found

    def _add_gradient(
        self, lookup: Lookup, calls: Sequence[_GroupCall], gradient: Tensor, of_weights: bool
    ) -> Tensor | None:
        dims = [self._dim(f) for f in lookup.features]
        by_feature = torch.split(gradient.float(), dims, dim=1)
        for one in calls:
            group = self._groups[one.group]
            whole = one.positions == tuple(range(len(lookup.features))) and group.dims == tuple(dims)
            laid_out = gradient.float() if whole else lay_out(group.dims, one.positions, by_feature)
            group.pending.append(replace(one.call, gradient=laid_out.contiguous()))
        return self._weight_gradient(lookup, by_feature) if of_weights else None

    def _weight_gradient(self, lookup: Lookup, by_feature: Sequence[Tensor]) -> Tensor:
        """d/d weight of key n = <gradient of its bag, its row>, (N,)."""
        b = lookup.num_rows
        found = []
        for position, feature in enumerate(lookup.features):
            offsets = lookup.offsets[position * b : (position + 1) * b + 1]
            keys = lookup.keys[int(offsets[0]) : int(offsets[-1])]
            (rows,) = self.gather([feature], [keys])
            found.append((rows * by_feature[position][bag_numbers(offsets)]).sum(dim=1))
        return torch.cat(found)

    def gather(self, features: Sequence[int], keys: Sequence[Tensor]) -> list[Tensor]:
        """See RowReader."""
        return [self.read(self._feature_tables[f], "weight", k) for f, k in zip(features, keys, strict=True)]

    def train_rows(self, features: Sequence[int], keys: Sequence[Tensor]) -> tuple[list[Tensor], RowsLookup]:
        """See RowTrainer."""
        return self.gather(features, keys), _RowsLookup(self, features, keys)

    def _add_rows(self, feature: int, keys: Tensor, gradient: Tensor) -> None:
        group = self._groups[self._group_of[self._feature_tables[feature]]]
        n = len(keys)
        counts = torch.zeros(len(group.features), n, dtype=torch.int64)
        counts[group.features.index(feature)] = 1
        positions = tuple(0 if f == feature else -1 for f in group.features)
        laid_out = lay_out(group.dims, positions, [gradient.float()])
        group.pending.append(Call(keys, offsets_of(counts), None, n, gradient=laid_out))

    def gradient_norm(self) -> float:
        """See RowStore."""
        squares = 0.0
        for group in self._groups:
            if not group.pending:
                continue
            for table in group.tables:
                parts = [p for call in group.pending for p in self._sparse(group, call, table)]
                squares += float(sum_duplicates(concatenate(parts))[1].double().square().sum())
        return math.sqrt(squares)

    def _sparse(self, group: _Group, call: Call, table: int) -> list[SparseGradient]:
        assert call.gradient is not None
        b, found, start = call.num_rows, [], 0
        for position, (feature, dim) in enumerate(zip(group.features, group.dims, strict=True)):
            if self._feature_tables[feature] == table:
                offsets = call.offsets[position * b : (position + 1) * b + 1]
                keys = slice(int(offsets[0]), int(offsets[-1]))
                weights = None if call.weights is None else call.weights[keys]
                columns = call.gradient[:, start : start + dim].contiguous()
                found.append(SparseGradient(call.keys[keys], bag_numbers(offsets), columns, weights))
            start += dim
        return found

    def set_learning_rate_factor(self, factor: float) -> None:
        """See RowStore."""
        for group in self._groups:
            rate = self._tables[group.tables[0]].config.optimizer.learning_rate * factor
            if rate != group.learning_rate:
                group.module.set_learning_rate(rate)
                group.learning_rate = rate

    def update(self, gradient_scale: float) -> None:
        """See RowStore."""
        for group in self._groups:
            if not group.pending:
                continue
            call = group.pending[0] if len(group.pending) == 1 else join(group.pending, len(group.features))
            group.pending.clear()
            output = call.output
            # TBE's forward fixes the learning rate that its backward uses: look up again where it has changed since.
            if output is None or call.learning_rate != group.learning_rate:
                output = group.module(call.keys, call.offsets, per_sample_weights=call.weights)
            assert call.gradient is not None
            output.backward(call.gradient if gradient_scale == 1.0 else call.gradient * gradient_scale)
            group.steps += 1

    def discard(self) -> None:
        """See RowStore."""
        for group in self._groups:
            group.pending.clear()

    def _views(self, table: int) -> dict[str, Tensor]:
        group = self._groups[self._group_of[table]]
        position, dim = group.tables.index(table), self._tables[table].config.dim
        views: dict[str, Tensor] = {"weight": group.module.split_embedding_weights()[position][:, :dim]}
        states = group.module.split_optimizer_states()
        if states:
            columns = self._tables[table].optimizer.state.items()
            for (name, column), state in zip(columns, states[position], strict=False):
                of_one = state[:, 0] if state.dim() == 2 else state
                views[name] = state.view(-1, _laid_out(dim))[:, :dim] if column.per_element else of_one
        return views

    def state_names(self, table: int) -> Sequence[str]:
        """See RowStore."""
        return tuple(self._views(table))

    def has_rows(self, table: int, keys: Tensor) -> Tensor:
        """See RowStore: its tables are fixed."""
        return torch.ones(len(keys), dtype=torch.bool)

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """See RowStore."""
        return self._views(table)[name].detach()[keys]

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """See RowStore."""
        self._views(table)[name].detach()[keys] = values

    def num_steps(self, table: int) -> int:
        """See RowStore."""
        return self._groups[self._group_of[table]].steps

    def advance(self, table: int, now: int) -> None:
        """See RowStore. Fixed tables have no clock."""

    def key_state(self, table: int) -> KeyState | None:
        """See RowStore."""
        return None

    def capture(self, table: int, after: int | None, *, weights_only: bool = False) -> Capture:
        """See RowStore. All rows alone; how many gradients each had is not known."""
        if after is not None:
            self.changes(table, after)
        keys = np.arange(self._fixed[table].num_rows)
        keys = keys[bucket_order(keys, self._tables[table].seed)]
        columns = {name: self.read(table, name, torch.from_numpy(keys)).numpy() for name in self.state_names(table)}
        nothing = np.zeros(len(keys), np.uint32)
        return CopiedCapture(TableContent(keys, columns, nothing, nothing, updates=self.num_steps(table)))

    def apply(self, table: int, content: TableContent) -> None:
        """See RowStore."""
        for name, values in content.unscaled().columns.items():
            self.write(table, name, torch.from_numpy(content.keys.copy()), torch.from_numpy(values.copy()))
        self._groups[self._group_of[table]].steps = content.updates

    def make(self, table: int, keys: Tensor) -> None:
        """See RowStore. A fixed table has all its rows."""

    def delete(self, table: int, keys: Tensor) -> None:
        """See RowStore."""
        if any(group.pending for group in self._groups):
            raise StateError("row gradients are waiting for their step: rows are deleted between two steps")
        config = self._fixed[table]
        fresh = initial_rows(config.initializer, self._tables[table].seed, keys.numpy(), config.dim)
        for name, values in self._views(table).items():
            values.detach()[keys] = torch.from_numpy(fresh) if name == "weight" else 0.0

    def clear(self, table: int) -> None:
        """See RowStore. A fixed table holds all its rows."""

    def draw_cut(self) -> int:
        """See RowStore. There is no place beside TBE's rows to note when they changed."""
        raise ConfigError("fbgemm does not know which rows changed; set train.row_store: host")

    def changes(self, table: int, after: int) -> Changes:
        """See RowStore."""
        raise ConfigError("fbgemm does not know which rows changed; set train.row_store: host")

    def forget_changes(self, through: int) -> None:
        """See RowStore."""

    def figures(self, table: int) -> Mapping[str, int]:
        """See RowStore."""
        return {}

    def num_alive(self, table: int) -> tuple[int, int]:
        """See RowStore."""
        return self._fixed[table].num_rows, 0

    def ages_and_counts(self, table: int) -> None:
        """See RowStore. Not kept."""
        return

    def num_bytes(self, table: int) -> dict[str, int]:
        """See RowStore."""
        lanes = _laid_out(self._tables[table].config.dim) / self._tables[table].config.dim
        return {
            name: int(v.numel() * v.element_size() * (lanes if v.dim() == 2 else 1))
            for name, v in self._views(table).items()
        }


def _refuse_unsupported(stored: StoredTable) -> FixedTable:
    table, instead = stored.config, "set train.row_store: host"
    if stored.is_part:
        raise ConfigError(f"fbgemm holds only whole tables; {instead}", table=table.name)
    if not isinstance(table, FixedTable):
        raise ConfigError(f"fbgemm has no collisionless tables; {instead}", table=table.name)
    if stored.optimizer.fbgemm is None:
        known = " or ".join(spec.kind for spec in specs() if spec.fbgemm is not None)
        instead = instead if stored.optimizer.native_rule is not None else "set train.row_store: reference"
        raise ConfigError(f"fbgemm has no {stored.optimizer.kind} on CPU; use {known}, or {instead}", table=table.name)
    if table.non_finite_gradients == "raise":
        raise ConfigError(f"fbgemm does not look for non-finite gradients; {instead}", table=table.name)
    if table.optimizer.weight_decay != 0.0:
        raise ConfigError(f"fbgemm ignores weight_decay on CPU; remove it, or {instead}", table=table.name)
    if table.dim != 1 and table.dim % _LANES:
        raise ConfigError(
            f"fbgemm needs dimensions that are multiples of {_LANES}, received {table.dim}; change dim, or {instead}",
            table=table.name,
        )
    return table


def _laid_out(dim: int) -> int:
    return _LANES if dim == 1 else dim


def _make_tbe(configs: Sequence[FixedTable], feature_tables: list[int]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )
    optimizer = configs[0].optimizer
    spec = optimizer_spec(optimizer)
    name = spec.fbgemm_of_one_value if configs[0].dim == 1 and spec.fbgemm_of_one_value is not None else spec.fbgemm
    assert name is not None
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(c.num_rows, _laid_out(c.dim), EmbeddingLocation.HOST, ComputeDevice.CPU) for c in configs],
        feature_table_map=feature_tables,
        optimizer=EmbOptimType[name],
        learning_rate=optimizer.learning_rate,
        **{parameter: spec.parameters[parameter](optimizer) for parameter in FBGEMM_RULES[name].parameters},
        pooling_mode=PoolingMode.SUM,
        device=torch.device("cpu"),
    )


def _initialise(weight: Tensor, table: FixedTable, seed: int) -> None:
    weight = weight.detach()
    weight.zero_()
    for start in range(0, table.num_rows, _INIT_ROWS):
        keys = torch.arange(start, min(start + _INIT_ROWS, table.num_rows))
        fresh = initial_rows(table.initializer, seed, keys.numpy(), table.dim)
        weight[start : start + len(keys), : table.dim] = torch.from_numpy(fresh)
