"""A worker that writes and reads the state of one table: `python -m benchmarks.state.worker KIND ROWS FOLDER`.

KIND `embtables`: a collisionless table of dimension 16 with rowwise Adagrad, its versions in FOLDER. KIND `torch`: the
same tensors (keys, weights, sums, last seen, counts) through torch.save and torch.load. Answers {"what": ...} with
seconds.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._harness import turns
from benchmarks.tables.maps import distinct_keys
from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, Tables
from embtables.schema import Constant, Identity, RowwiseAdagrad
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.read.load import load as load_version
from embtables.state.write.version_writer import VersionWriter

DIM, BATCH, TOUCHED, PART = 16, 4096, 100_000, 1 << 16
ROW_BYTES = 8 + 4 * DIM + 4 + 4 + 4  # key, weight, sum, seen, count


def new_tables() -> Tables:
    """One empty table."""
    table = CollisionlessTable(
        name="t", dim=DIM, optimizer=RowwiseAdagrad(learning_rate=0.01), initializer=Constant(value=0.01)
    )
    return Tables([table], [Feature(name="f", table="t", encoder=Identity())], seed=1)


def filled(keys: Tensor) -> Tables:
    """A table with a row for every key."""
    tables = new_tables()
    for start in range(0, len(keys), PART):
        tables.rows.train_rows([0], [keys[start : start + PART]])
        tables.step()
    return tables


class Ours:
    """Versions in a folder."""

    def __init__(self, keys: Tensor, folder: Path) -> None:
        self._tables, self._keys = filled(keys), keys
        self._state = StateFolder(folder)
        self._writer = LeaseHolder(self._state).__enter__()
        self._chain = VersionWriter(self._writer, "resume", self._tables, keep=1, longest=1000)
        self._view = EmbeddingBagCollection.over(self._tables)
        self._rng = np.random.default_rng(0)

    def snapshot(self) -> dict[str, float]:
        """A snapshot, until it is on the disk; and how long training would have stood."""
        self._chain._parent = None  # as for a chain's first version
        return self._cut()

    def _cut(self) -> dict[str, float]:
        start = time.perf_counter()
        self._chain.cut({}, {})
        paused = time.perf_counter() - start
        self._chain.wait()
        newest = self._state.latest("resume")
        assert newest is not None
        rows = newest.files["t.rows.0.arrow"]
        assert rows.rows is not None
        return {
            "seconds": time.perf_counter() - start,
            "paused": paused,
            "rows": rows.rows,
            "bytes": sum(f.bytes for f in newest.files.values()),
        }

    def delta(self) -> dict[str, float]:
        """A delta of 100,000 touched rows."""
        touched = self._keys[torch.from_numpy(self._rng.choice(len(self._keys), TOUCHED, replace=False))]
        self._learn(touched)
        return self._cut()

    def _learn(self, ids: Tensor) -> None:
        out, kept = self._tables.rows.train_rows([0], [ids])
        kept.add_gradients([torch.full_like(out[0], 0.01)])
        self._tables.step()

    def step(self) -> dict[str, float]:
        """A training step of 4,096 random ids."""
        ids = self._keys[torch.from_numpy(self._rng.integers(0, len(self._keys), BATCH))]
        start = time.perf_counter()
        self._learn(ids)
        return {"seconds": time.perf_counter() - start}

    def steps(self) -> dict[str, float]:
        """A hundred training steps, a cut drawn before them."""
        self._tables.draw_cut()
        return {"seconds": sum(self.step()["seconds"] for _ in range(100))}

    def training_snapshot(self) -> dict[str, float]:
        """Training steps while a snapshot is written: how long the cut took, the longest step and the median one."""
        self._chain._parent = None
        start = time.perf_counter()
        self._chain.cut({}, {})
        paused, steps = time.perf_counter() - start, list[float]()
        assert self._chain._pending is not None
        while not self._chain._pending.done():
            steps.append(self.step()["seconds"])
        self._chain.wait()
        return {"paused": paused, "longest": max(steps), "median": sorted(steps)[len(steps) // 2], "steps": len(steps)}

    def load(self) -> dict[str, float]:
        """The newest version into a new table that answers lookups."""
        start = time.perf_counter()
        tables, newest = new_tables(), self._state.latest("resume")
        assert newest is not None
        load_version(self._state, self._state.chain("resume", newest.sequence), tables)
        tables.get("t", self._keys[:1])
        seconds = time.perf_counter() - start
        assert tables.stats()["t"].rows == len(self._keys)
        return {"seconds": seconds}


class Torch:
    """torch.save and torch.load of the same tensors; the map is built by looking every key up."""

    def __init__(self, keys: Tensor, folder: Path) -> None:
        n = len(keys)
        self._tensors = {
            "keys": keys,
            "weight": torch.full((n, DIM), 0.01),
            "sum": torch.zeros(n),
            "seen": torch.zeros(n, dtype=torch.int32),
            "count": torch.ones(n, dtype=torch.int32),
        }
        self._file = folder / "state.pt"

    def snapshot(self) -> dict[str, float]:
        """torch.save and fsync."""
        start = time.perf_counter()
        with self._file.open("wb") as file:
            torch.save(self._tensors, file)
            file.flush()
            os.fsync(file.fileno())
        return {"seconds": time.perf_counter() - start, "bytes": self._file.stat().st_size}

    def load(self) -> dict[str, float]:
        """torch.load, then a row for every key and its tensors written into it."""
        start = time.perf_counter()
        loaded = torch.load(self._file, weights_only=True)
        tables = filled(loaded["keys"])
        tables.rows.write(0, "weight", loaded["keys"], loaded["weight"])
        tables.rows.write(0, "sum", loaded["keys"], loaded["sum"])
        return {"seconds": time.perf_counter() - start}


def main() -> None:
    warnings.simplefilter("ignore")
    kind, rows, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(2)
    folder.mkdir(parents=True, exist_ok=True)
    keys = torch.from_numpy(distinct_keys(rows))
    made: Any = Ours(keys, folder) if kind == "embtables" else Torch(keys, folder)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = getattr(made, question["what"])()
        return found

    turns.serve({}, answer)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
