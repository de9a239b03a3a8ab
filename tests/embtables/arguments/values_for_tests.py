"""Ids, rows and times of every type that users have: each as it is made, with the int64 ids that it means."""

from __future__ import annotations

import array
import datetime
import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

IDS = [7, 3, 5, 2]
ONES = [1, 0, 1, 1]
BIG = [2**64 - 1, 2**63, 5, 0]
Make = Callable[[], Any]


def read_only(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    values.flags.writeable = False
    return values


def _taken() -> dict[str, tuple[Make, list[int]]]:
    found: dict[str, tuple[Make, list[int]]] = {
        "list": (lambda: list(IDS), IDS),
        "tuple": (lambda: tuple(IDS), IDS),
        "range": (lambda: range(4), [0, 1, 2, 3]),
        "list of numpy integers": (lambda: [np.int16(7), np.uint8(3), 5, np.int64(2)], IDS),
        "list of tensors": (lambda: [torch.tensor(i) for i in IDS], IDS),
        "list of bool": (lambda: [True, False, True, True], ONES),
        "list beyond int64": (lambda: list(BIG), [-1, -(2**63), 5, 0]),
        "list of both ends": (lambda: [2**64 - 1, -(2**63), 5, -7], [-1, -(2**63), 5, -7]),
        "array.array": (lambda: array.array("i", IDS), IDS),
        "numpy big endian": (lambda: np.array(IDS, ">i4"), IDS),
        "numpy strided": (lambda: np.array([7, 0, 3, 0, 5, 0, 2, 0])[::2], IDS),
        "numpy reversed": (lambda: np.array(IDS[::-1])[::-1], IDS),
        "numpy read-only": (lambda: read_only(np.array(IDS)), IDS),
        "numpy objects": (lambda: np.array(IDS, object), IDS),
        "numpy masked, none": (lambda: np.ma.masked_array(IDS, [0, 0, 0, 0]), IDS),
        "tensor strided": (lambda: torch.tensor([7, 0, 3, 0, 5, 0, 2, 0])[::2], IDS),
        "parameter": (lambda: torch.nn.Parameter(torch.tensor(IDS), requires_grad=False), IDS),
        "arrow chunked": (lambda: pa.chunked_array([[7, 3], [], [5, 2]]), IDS),
        "arrow dictionary": (lambda: pa.array(IDS).dictionary_encode(), IDS),
        "arrow slice": (lambda: pa.array([9, *IDS, 9])[1:5], IDS),
        "arrow bool": (lambda: pa.array([True, False, True, True]), ONES),
        "pandas": (lambda: pd.Series(IDS, index=[5, 6, 7, 8]), IDS),
        "pandas Int64": (lambda: pd.Series(IDS, dtype="Int64"), IDS),
        "pandas category": (lambda: pd.Series(IDS, dtype="category"), IDS),
        "pandas index": (lambda: pd.Index(IDS), IDS),
    }
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        found[f"torch {name}"] = (lambda name=name: torch.tensor(IDS).to(getattr(torch, name)), IDS)
        found[f"numpy {name}"] = (lambda name=name: np.array(IDS, name), IDS)
        found[f"arrow {name}"] = (lambda name=name: pa.array(IDS, getattr(pa, name)()), IDS)
    found["torch bool"] = (lambda: torch.tensor(ONES).bool(), ONES)
    found["numpy bool"] = (lambda: np.array(ONES, bool), ONES)
    found["torch uint64, 64 bits"] = (lambda: torch.from_numpy(np.array(BIG, np.uint64)), [-1, -(2**63), 5, 0])
    found["numpy uint64, 64 bits"] = (lambda: np.array(BIG, np.uint64), [-1, -(2**63), 5, 0])
    found["arrow uint64, 64 bits"] = (lambda: pa.array(BIG, pa.uint64()), [-1, -(2**63), 5, 0])
    return found


MOMENT = datetime.datetime(2026, 1, 1)


def _refused_of_python() -> dict[str, Make]:
    return {
        "None": lambda: None,
        "an integer": lambda: 7,
        "a string": lambda: "7",
        "bytes": lambda: b"7777",
        "an object": object,
        "a set": lambda: {7, 3},
        "a dict": lambda: {7: 3},
        "a generator": lambda: (i for i in IDS),
        "list with None": lambda: [7, None, 5, 3],
        "list with a float": lambda: [7, 3.0, 5, 3],
        "list with nan": lambda: [7, float("nan"), 5, 3],
        "list of strings": lambda: ["7", "3", "5", "3"],
        "list with a string": lambda: [7, "3", 5, 3],
        "list beyond 64 bits": lambda: [7, 2**64, 5, 3],
        "list below 64 bits": lambda: [7, -(2**63) - 1, 5, 3],
        "list of times": lambda: [MOMENT] * 4,
        "list of decimals": lambda: [decimal.Decimal(7)] * 4,
        "ragged": lambda: [[7], [3, 5], [], [3]],
    }


def _refused_of_arrays() -> dict[str, Make]:
    found: dict[str, Make] = {
        "numpy text": lambda: np.array(["7", "3", "5", "3"]),
        "numpy bytes": lambda: np.array([b"7", b"3", b"5", b"3"]),
        "numpy datetime64": lambda: np.array(["2026-01-01"] * 4, "datetime64[s]"),
        "numpy timedelta64": lambda: np.array([7, 3, 5, 3], "timedelta64[s]"),
        "numpy structured": lambda: np.zeros(4, [("a", "i4")]),
        "numpy scalar": lambda: np.int64(7),
        "numpy 0-d": lambda: np.array(7),
        "numpy 2-d": lambda: np.array([IDS]),
        "numpy masked": lambda: np.ma.masked_array(IDS, [0, 1, 0, 0]),
        "tensor 0-d": lambda: torch.tensor(7),
        "tensor 2-d": lambda: torch.tensor([[7], [3], [5], [3]]),
        "tensor sparse": lambda: torch.tensor(IDS).to_sparse(),
        "tensor nested": lambda: torch.nested.nested_tensor([torch.tensor([7]), torch.tensor([3, 5])]),
        "tensor meta": lambda: torch.tensor(IDS, device="meta"),
        "tensor quantized": lambda: torch.quantize_per_tensor(torch.tensor([7.0, 3, 5, 3]), 1.0, 0, torch.qint8),
        "tensor with gradient": lambda: torch.tensor([7.0, 3, 5, 3], requires_grad=True),
    }
    for name in ("float16", "bfloat16", "float32", "float64", "float8_e5m2", "complex64"):
        found[f"torch {name}"] = lambda name=name: torch.tensor([7.0, 3, 5, 3]).to(getattr(torch, name))
    for name in ("float16", "float32", "float64", "longdouble", "complex64"):
        found[f"numpy {name}"] = lambda name=name: np.array(IDS, name)
    return found


def _refused_of_columns() -> dict[str, Make]:
    found: dict[str, Make] = {
        "arrow nulls": lambda: pa.array([7, None, 5, 3]),
        "arrow null": lambda: pa.nulls(4),
        "arrow strings": lambda: pa.array(["7", "3", "5", "3"]),
        "arrow views": lambda: pa.array(["7", "3", "5", "3"], pa.string_view()),
        "arrow categories": lambda: pa.array(["7", "3", "5", "3"]).dictionary_encode(),
        "arrow timestamps": lambda: pa.array([MOMENT] * 4),
        "arrow durations": lambda: pa.array([7, 3, 5, 3], pa.duration("s")),
        "arrow decimals": lambda: pa.array([decimal.Decimal(7)] * 4),
        "arrow lists": lambda: pa.array([[7], [3], [5], [3]]),
        "arrow structs": lambda: pa.array([{"a": 7}] * 4),
        "arrow scalar": lambda: pa.scalar(7),
        "arrow table": lambda: pa.table({"ids": IDS}),
        "pandas nulls": lambda: pd.Series([7, None, 5, 3]),
        "pandas Int64 nulls": lambda: pd.Series([7, None, 5, 3], dtype="Int64"),
        "pandas strings": lambda: pd.Series(["7", "3", "5", "3"]),
        "pandas mixed": lambda: pd.Series([7, "3", 5, 3]),
        "pandas times": lambda: pd.Series([MOMENT] * 4),
        "pandas frame": lambda: pd.DataFrame({"ids": IDS}),
    }
    for name in ("float16", "float32", "float64"):
        found[f"arrow {name}"] = lambda name=name: pa.array(np.array(IDS, name))
    return found


TAKEN = _taken()
REFUSED = {**_refused_of_python(), **_refused_of_arrays(), **_refused_of_columns()}
