"""Columns that are made piece by piece while their file is written: the same bytes as from arrays, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embtables.errors import StateError
from embtables.keyspace import bucket_offsets, bucket_order
from embtables.rows.content import Streamed
from embtables.rows.optimizers import specs
from embtables.rows.row_format import RowFormat
from embtables.state.format.arrow_writer import Column
from embtables.state.format.table_files import rows_file

SEED = 5
COLUMNS = {spec.kind: spec.columns for spec in specs()}


def columns(n: int, dim: int, row_columns: dict[str, bool]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    keys = rng.integers(-(2**63), 2**63, n)
    found = {"key": keys[bucket_order(keys, SEED)]}
    found |= {name: rng.random((n, dim) if wide else n).astype(np.float32) for name, wide in row_columns.items()}
    return found | {name: rng.integers(0, 2**32, n).astype(np.uint32) for name in ("seen", "count")}


def streamed(values: np.ndarray, step: int) -> Streamed:
    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, len(values), step):
            yield values[start : start + step]

    return Streamed(values.shape, values.dtype, pieces)


def written(made: dict[str, Any], dim: int, row_columns: dict[str, bool], begins: np.ndarray) -> bytes:
    return b"".join(bytes(piece) for piece in rows_file(made, RowFormat(dim), row_columns, begins, "full"))


@pytest.mark.parametrize("row_columns", [spec.columns for spec in specs()], ids=[spec.kind for spec in specs()])
@pytest.mark.parametrize("dim", [1, 3, 16])
def test_the_bytes_are_those_of_arrays(row_columns: dict[str, bool], dim: int) -> None:
    for n in (0, 1, 2, 7, 16, 17, 63, 64, 65, 1001):
        arrays = columns(n, dim, row_columns)
        begins = bucket_offsets(arrays["key"], SEED)
        whole = written(arrays, dim, row_columns, begins)
        for step in (1, 5, 5000):
            assert written({k: streamed(v, step) for k, v in arrays.items()}, dim, row_columns, begins) == whole
        mixed: dict[str, Column] = {**arrays, "weight": streamed(arrays["weight"], 4)}
        assert written(mixed, dim, row_columns, begins) == whole


@pytest.mark.parametrize("n", [0, 9])
@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([(12, 3)], "column weight: expected float32 of shape .* gave float32 of shape .* up to row 12"),
        ([(1, 4)], "column weight: expected float32 of shape .*, but the producer gave float32 of"),
        ([(1,)], "column weight: expected float32 of shape .*, but the producer gave float32 of"),
        ([(8, 3)], "column weight: expected .*, but the producer gave"),
    ],
)
def test_a_stream_that_breaks_its_promise_is_refused(n: int, pieces: list[tuple[int, ...]], text: str) -> None:
    row_columns = {"weight": True}
    made: dict[str, Any] = {**columns(n, 3, row_columns)}
    begins = bucket_offsets(made["key"], SEED)
    made["weight"] = Streamed((n, 3), np.dtype(np.float32), lambda: (np.zeros(s, np.float32) for s in pieces))
    with pytest.raises(StateError, match=text):
        written(made, 3, row_columns, begins)
    made["weight"] = Streamed((n, 3), np.dtype(np.float32), lambda: iter([np.zeros((n or 1, 3))]))
    with pytest.raises(StateError, match="the producer gave float64"):
        written(made, 3, row_columns, begins)


PEAK = r"""
import re
from pathlib import Path
import numpy as np
from embtables.rows.content import Streamed
from embtables.rows.row_format import RowFormat
from embtables.state.format.table_files import rows_file
n, part, row_columns = 8_000_000, 1 << 16, {"weight": True, "exp_avg": True, "exp_avg_sq": True}
def column(shape, dtype):
    def pieces():
        for start in range(0, n, part):
            yield np.ones((min(part, n - start), *shape[1:]), dtype)
    return Streamed(shape, np.dtype(dtype), pieces)
made = {"key": column((n,), np.int64), "seen": column((n,), np.uint32), "count": column((n,), np.uint32)}
made |= {name: column((n, 8), np.float32) for name in row_columns}
def peak():  # not ru_maxrss, which begins with what the parent of the process had
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
before = peak()
size = sum(len(piece) for piece in rows_file(made, RowFormat(8), row_columns, np.full(1025, 0, np.uint64), "full"))
print(size, peak() - before)
"""


def test_a_file_takes_the_memory_of_a_piece() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    size, grown = map(int, done.stdout.split())
    assert size > 800_000_000
    assert grown < 50_000_000
