"""Rows from the `state_dict` of a TorchRec model: `...embedding_bags.<table>.weight`, `...embeddings.<table>.weight`.

Row i of a weight is the row with index i of a fixed table, and the row of the raw id i of a collisionless one; unless
the weight has keys beside it (`...<table>.keys`), as the state_dict of collisionless tables here has: then row i is the
row of the i-th key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from embtables.arguments import as_ids
from embtables.errors import ConfigError, DataError
from embtables.pickles import refuse_pickle
from embtables.schema import FixedTable, Table
from embtables.tables.table_set import Tables
from embtables.warm_start.report import OnRows, RowSetter, Warmed

_WEIGHT = re.compile(r"(?:.*\.)?(?:embedding_bags|embeddings)\.(?P<table>.+)\.weight")
_ROWS_PER_PART = 1 << 18


@dataclass(frozen=True, slots=True)
class StateDictReport:
    """Which weights of a state_dict became rows.

    Attributes:
        warmed: tables that were set.
        not_here: tables of the state_dict that do not exist here.
        not_there: tables here without a weight in the state_dict; they are unchanged.
    """

    warmed: tuple[Warmed, ...]
    not_here: tuple[str, ...]
    not_there: tuple[str, ...]


def from_state_dict(
    tables: Tables, state_dict: Mapping[str, Any], *, on_rows: OnRows | None = None, file: str | None = None
) -> StateDictReport:
    """Sets rows from the weights of TorchRec's EmbeddingBagCollection and EmbeddingCollection, by the tables' names.

    Other tensors (dense layers, optimizer state) are ignored. Rows that are set keep their optimizer state.

    Args:
        state_dict: names -> tensors, whatever modules precede `embedding_bags` and `embeddings`.
        on_rows: called with the number of rows of every part that was set.
        file: where it comes from, for errors.

    Raises:
        ConfigError: no table of the state_dict exists here, or one has two weights; or this is no state_dict.
        DataError: a weight is not a whole floating-point tensor, has another shape than its table, or is not
            finite; or its keys are not one integer for each row, each once, of a collisionless table here. All
            weights are checked before a row is set, except for values that are not finite.
    """
    if not isinstance(state_dict, Mapping) or not isinstance(tables, Tables):
        received = f"{type(tables).__name__} and {type(state_dict).__name__}"
        raise ConfigError(f"give Tables and a state_dict (names -> tensors), received {received}", file=file)
    names = _weights(state_dict, file)
    here = {config.name for config in tables.configs}
    found = [table for table in names if table in here]
    if not found:
        raise ConfigError(
            f"has weights of the tables: {', '.join(names) or 'none'}; the tables here are: {', '.join(sorted(here))}",
            file=file,
        )
    for table in found:
        _check(tables, table, names[table], state_dict, file)
    warmed = tuple(_set(tables, table, names[table], state_dict, on_rows, file) for table in found)
    return StateDictReport(warmed, tuple(sorted(set(names) - here)), tuple(sorted(here - set(names))))


def from_safetensors(tables: Tables, path: str, *, on_rows: OnRows | None = None) -> StateDictReport:
    """`from_state_dict` of a file that `safetensors.torch.save_file(state_dict, path)` wrote.

    Raises:
        ConfigError: as `from_state_dict`, or the file is a pickle by its name.
        DataError: as `from_state_dict`, or the file cannot be read; it is named.
    """
    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            return from_state_dict(tables, _Lazy(file), on_rows=on_rows, file=path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot be read as safetensors: {error}", file=path) from error


def num_rows(path: str) -> int:
    """Rows of all weights in a file that `from_safetensors` reads. Raises DataError."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in _Lazy(file) if _WEIGHT.fullmatch(name)]
            shapes = [file.get_slice(name).get_shape() for name in names]
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot be read as safetensors: {error}", file=path) from error
    return sum(shape[0] for shape in shapes if shape)


class _Lazy(Mapping[str, Any]):
    """The tensors of a safetensors file, each read when it is asked for."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._names = list(file.keys())

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _weights(state_dict: Mapping[str, Any], file: str | None) -> dict[str, str]:
    """Table -> the name of its weight."""
    names: dict[str, str] = {}
    for name in state_dict:
        match = _WEIGHT.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            continue
        table = match["table"]
        if table in names:
            raise ConfigError(f"has two weights: {names[table]} and {name}; leave one out", file=file, table=table)
        names[table] = name
    return names


def _config(tables: Tables, table: str) -> tuple[int, Table]:
    """The number and the configuration of a table."""
    return next((number, config) for number, config in enumerate(tables.configs) if config.name == table)


def _keys(state_dict: Mapping[str, Any], name: str, file: str | None) -> Tensor | None:
    """The keys beside a weight, (n,) int64."""
    beside = name.removesuffix("weight") + "keys"
    return as_ids(state_dict[beside], "keys", file=file, tensor=beside) if beside in state_dict else None


def _check(tables: Tables, table: str, name: str, state_dict: Mapping[str, Any], file: str | None) -> None:
    where, value = {"file": file, "tensor": name}, state_dict[name]
    kind = type(value).__name__
    if kind in ("DTensor", "ShardedTensor"):
        call = "full_tensor()" if kind == "DTensor" else "gather()"
        raise DataError(f"is a {kind}, of which this process may hold only a part; call {call} first", **where)
    if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or not value.is_floating_point():
        shown = f"a tensor of {value.dtype}, {value.layout}" if isinstance(value, Tensor) else f"a {kind}"
        raise DataError(f"is {shown}; a dense tensor of floating point numbers is needed", **where)
    (_, config), shape = _config(tables, table), tuple(value.shape)
    if isinstance(config, FixedTable) and shape != (config.num_rows, config.dim):
        raise DataError(f"has shape {shape}; table '{config.name}' has {(config.num_rows, config.dim)}", **where)
    if len(shape) != 2 or shape[1] != config.dim:
        raise DataError(f"has shape {shape}; table '{config.name}' needs (rows, {config.dim})", **where)
    if (keys := _keys(state_dict, name, file)) is not None:
        if isinstance(config, FixedTable):
            raise DataError(f"has keys, of a collisionless table; table '{table}' is fixed here", **where)
        distinct = len(np.unique(keys.numpy()))
        if distinct != shape[0] or len(keys) != shape[0]:
            shown = f"{len(keys):,} keys, {distinct:,} of them distinct"
            raise DataError(f"has {shape[0]:,} rows and {shown}", **where)
    elif not isinstance(config, FixedTable):
        tables.keys_of(table, torch.empty(0, dtype=torch.int64), None)


def _set(
    tables: Tables, table: str, name: str, state_dict: Mapping[str, Any], on_rows: OnRows | None, file: str | None
) -> Warmed:
    number, config = _config(tables, table)
    value: Tensor = state_dict[name]
    keys = _keys(state_dict, name, file)
    setter = RowSetter(tables, number)
    for start in range(0, len(value), _ROWS_PER_PART):
        rows = value[start : start + _ROWS_PER_PART].detach().cpu().float()
        finite = rows.isfinite().all(dim=1)
        if not bool(finite.all()):
            row = start + int((~finite).int().argmax())
            raise DataError("holds a number that is not finite as float32", file=file, tensor=name, row=row)
        indices = torch.arange(start, start + len(rows))
        if keys is not None:
            setter.set(keys[indices], rows)
        else:
            setter.set(indices if isinstance(config, FixedTable) else tables.keys_of(table, indices, None)[1], rows)
        if on_rows is not None:
            on_rows(len(rows))
    return setter.done()
