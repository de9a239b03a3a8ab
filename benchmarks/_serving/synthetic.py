"""Versions for servers with as many rows as asked, made by the writer that training uses; kept below build/."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import embtables
from benchmarks._serving.online_retail import RUNS
from embtables.models.dense import dense_tensors
from embtables.state.folder.version_folder import MANIFESTS, VERSIONS

DIM = 16
SEED = 7
MODEL = {"kind": "dcnv2", "num_cross_layers": 2, "hidden_sizes": [64, 32]}
_AT_ONCE = 1_000_000


class Publisher:
    """Writes a chain of versions of a table `item` of random rows, keys 0 to rows - 1, with a small model over it.

    Args:
        folder: where versions go; emptied.
        keep, longest: see VersionWriter; by default every version stays.
    """

    def __init__(self, folder: Path, rows: int, *, keep: int = 1000, longest: int = 1000) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.rows, self._random = rows, np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as place:
            run = embtables.train(_config(Path(place)), runs_dir=Path(place) / "runs", shown=False)
            assert run.path is not None
            (manifest,) = embtables.StateFolder(run.path / "checkpoints").chain("resume", 1)
            scorer = embtables.Scorer.from_version(run.path, "last")
        assert isinstance(scorer.tables, embtables.Tables)
        self.tables = scorer.tables
        self._content = {name: value for name, value in manifest.content.items() if name != "state"}
        self._tensors = {name: value.detach().numpy() for name, value in dense_tensors(scorer.model).items()}
        self._holder = embtables.LeaseHolder(embtables.StateFolder(folder))
        self._holder.__enter__()
        self._writer = embtables.VersionWriter(
            self._holder, "serving", self.tables, projection="weights", keep=keep, longest=longest
        )
        for first in range(0, rows, _AT_ONCE):
            self.set(np.arange(first, min(rows, first + _AT_ONCE)))
        self.cut()

    def set(self, keys: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Gives keys new rows."""
        rows = self._random.standard_normal((len(keys), DIM), np.float32) * 0.1
        self.tables.set("item", torch.from_numpy(keys), torch.from_numpy(rows))

    def delete(self, keys: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Takes their rows from keys."""
        self.tables.delete("item", torch.from_numpy(keys))

    def delta(self, rows: int) -> None:
        """The next version: so many rows have changed."""
        self.set(self._random.choice(self.rows, rows, replace=False))
        self.cut()

    def cut(self) -> None:
        """Writes what changed since the version before."""
        self._writer.cut(self._tensors, self._content)
        self._writer.wait()
        if self._writer.failures:
            raise self._writer.failures[0]

    def last_sequence(self) -> int:
        """The number of the newest version."""
        return self._holder.state.sequences("serving")[-1]

    def close(self) -> None:
        """Gives the folder back."""
        self._writer.close()
        self._holder.close()


def _config(place: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = np.arange(2000) % 100
    log = {"user": keys, "item": -1 - keys, "price": keys * 0.5, "click": keys % 2}
    pq.write_table(pa.table(log), place / "log.parquet")
    learns = {"dim": DIM, "optimizer": {"kind": "sgd", "learning_rate": 0.01}}
    return {
        "name": "synthetic",
        "tables": [{"name": "item", **learns}, {"name": "user", **learns}],
        "features": [
            {"name": "user", "table": "user", "encoder": {"kind": "identity"}},
            {"name": "item", "table": "item", "encoder": {"kind": "identity"}},
        ],
        "labels": [{"column": "click"}],
        "dense": [{"column": "price", "transforms": ["log1p"]}],
        "data": {"path": str(place), "files": "log.parquet"},
        "model": MODEL,
        "train": {"max_steps": 1, "batch_size": 1000, "threads": 1},
    }


def snapshot(rows: int) -> Path:
    """A folder with one version of so many rows."""
    folder = RUNS / f"rows-{rows}"
    if not (folder / "whole").exists():
        Publisher(folder, rows).close()
        (folder / "whole").touch()
    return folder


def chain(rows: int, deltas: int, delta_rows: int) -> Path:
    """A folder with a snapshot of so many rows and deltas to it."""
    folder = RUNS / f"rows-{rows}-deltas-{deltas}x{delta_rows}"
    if not (folder / "whole").exists():
        publisher = Publisher(folder, rows)
        for _ in range(deltas):
            publisher.delta(delta_rows)
        publisher.close()
        (folder / "whole").touch()
    return folder


class Replayed:
    """A folder to which the versions of another one are published one by one, at no cost: files are linked.

    Args:
        source: a folder with a chain.
        to: the folder to make.
    """

    def __init__(self, source: Path, to: Path) -> None:
        self._source, self._to = source, to
        shutil.rmtree(to, ignore_errors=True)
        for place in (MANIFESTS, VERSIONS, "pins"):
            (to / place).mkdir(parents=True)
        self._left = sorted(path.name for path in (source / MANIFESTS).iterdir() if path.suffix == ".json")

    def __len__(self) -> int:
        """How many versions are left."""
        return len(self._left)

    def publish(self) -> str:
        """Adds the next version: its files, then its manifest. Returns its name: `serving-3`."""
        name = self._left.pop(0)
        sequence = name.removesuffix(".json")
        (version,) = (self._source / VERSIONS).glob(f"{sequence}-*")
        (self._to / VERSIONS / version.name).mkdir()
        for file in version.iterdir():
            os.link(file, self._to / VERSIONS / version.name / file.name)
        os.link(self._source / MANIFESTS / name, self._to / MANIFESTS / name)
        purpose, _, number = sequence.rpartition("-")
        return f"{purpose}-{int(number)}"
