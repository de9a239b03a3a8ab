"""How long training stands still for a version for servers, and how long a step takes meanwhile.

A table of 1M rows x 16 (rowwise Adagrad), of which 100,000 change between two versions. The pause is what
`VersionWriter.cut` takes on the training's thread: drawing the cut and copying what changed. Rounding, checksums and
writing are the background's; a step that is taken meanwhile is compared with one that is not. CPU time is that of all
threads: on a machine that does nothing else, the pause is at most that.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchrec import KeyedJaggedTensor

from benchmarks import _harness
from embtables import (
    CollisionlessTable,
    EmbeddingBagCollection,
    Feature,
    LeaseHolder,
    RowwiseAdagrad,
    StateFolder,
    Tables,
    VersionWriter,
)
from embtables.state.format.weight_dtype import WEIGHT_DTYPES, WeightDtype

ROWS, DIM, CHANGED = 1_000_000, 16, 100_000
GOAL_MS = 20.0


class Training:
    """A table with all its rows, and steps that change some of them."""

    def __init__(self, rows: int) -> None:
        table = CollisionlessTable(name="t", dim=DIM, optimizer=RowwiseAdagrad(learning_rate=0.1))
        self.tables = Tables([table], [Feature(name="f", table="t")], seed=0)
        self._view = EmbeddingBagCollection.over(self.tables)
        self._rng = np.random.default_rng(0)
        self._rows = rows
        for start in range(0, rows, CHANGED):
            self._take(np.arange(start, min(start + CHANGED, rows)))

    def step(self) -> float:
        """A step on CHANGED rows; its milliseconds."""
        ids = self._rng.choice(self._rows, CHANGED, replace=False)
        started = time.perf_counter()
        self._take(ids)
        return (time.perf_counter() - started) * 1e3

    def _take(self, ids: npt.NDArray[np.int64]) -> None:
        lengths = torch.ones(len(ids), dtype=torch.int64)
        out = self._view(KeyedJaggedTensor(["f"], torch.from_numpy(ids), lengths=lengths)).values()
        out.sum().backward()
        self.tables.step()


def measure(training: Training, dtype: WeightDtype, versions: int) -> dict[str, list[float]]:
    """Milliseconds by version: the pause and its CPU time, a step with nothing to write, one while it is written."""
    found: dict[str, list[float]] = {"pause": [], "cpu": [], "quiet step": [], "step": []}
    with tempfile.TemporaryDirectory() as folder, LeaseHolder(StateFolder(Path(folder))) as holder:
        writer = VersionWriter(holder, "serving", training.tables, projection="weights", dtype=dtype, longest=10**6)
        writer.cut({}, {})
        for _ in range(versions):
            writer.wait()
            found["quiet step"].append(training.step())
            begun, cpu = time.perf_counter(), time.process_time()
            writer.cut({}, {})
            found["pause"].append((time.perf_counter() - begun) * 1e3)
            found["cpu"].append((time.process_time() - cpu) * 1e3)
            found["step"].append(training.step())
            writer.wait()
            writer.cut({}, {})  # what that step changed, so that each measured delta has as many rows
        writer.close()
        if writer.failures:
            raise writer.failures[0]
    return found


def report(measured: dict[str, dict[str, list[float]]], versions: int) -> str:
    """The table, and what it says of the goal."""

    def quantile(values: Sequence[float], q: float) -> str:
        return f"{np.quantile(values, q):.1f}"

    lines = [
        [dtype, *(quantile(of["pause"], q) for q in (0.5, 0.99)), quantile(of["cpu"], 0.5)]
        + [quantile(of[name], 0.5) for name in ("quiet step", "step")]
        for dtype, of in measured.items()
    ]
    header = ["weights", "pause p50 ms", "p99 ms", "its CPU ms", "step ms", "step while written ms"]
    worst = max(float(np.quantile(of["pause"], 0.5)) for of in measured.values())
    return (
        f"{_harness.table(header, lines)}\n\n{CHANGED:,} rows x {DIM} change between two versions of {ROWS:,} rows; "
        f"{versions} versions each. Goal: a pause of at most {GOAL_MS:.0f} ms, measured {worst:.1f} ms (median)."
    )


def main() -> None:
    args = _harness.parser(__doc__).parse_args()
    versions = 8 if args.quick else 100
    training = Training(ROWS)
    measured: dict[str, dict[str, list[float]]] = {}
    for dtype in WEIGHT_DTYPES:
        measured[dtype] = measure(training, dtype, versions)
    plain: dict[str, Any] = {
        dtype: {name: float(np.median(values)) for name, values in of.items()} for dtype, of in measured.items()
    }
    _harness.finish("publish", "Publishing", plain, report(measured, versions), args)


if __name__ == "__main__":
    main()
