"""A trainer without torch, over the real code of state: `python -m tests.faults.driver FOLDER STEPS`.

One table of a few rows; what it holds after a step is a function of the step alone, so that a run which was killed can
be held against one that was not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from embtables.keyspace import bucket_order
from embtables.rows.content import TableContent
from embtables.rows.stored_table import StoredTable
from embtables.schema.tables import CollisionlessTable, RowwiseAdagrad
from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
from embtables.state.format.version import Version
from embtables.state.read.version_reader import read_version
from embtables.state.write.commit_across_ranks import write_version

TABLE = CollisionlessTable(name="t", dim=3, optimizer=RowwiseAdagrad(learning_rate=0.1))
STORED = (StoredTable(TABLE, 5),)
SNAPSHOT_EVERY = 3
BEGIN = "/the-cuts-begin-here"  # looked for, so that a trace of system calls shows where they begin


class TrainedTable:
    """The table: key -> weights, and what a delta has to say."""

    def __init__(self) -> None:
        self.step = 0
        self.weights: dict[int, np.ndarray] = {}
        self.counts: dict[int, int] = {}
        self.changed: set[int] = set()
        self.gone: set[int] = set()

    def train(self) -> None:
        """One step: rows change, come and go."""
        self.step += 1
        rng = np.random.default_rng(self.step)
        for key in rng.integers(-50, 50, 12).tolist():
            self.weights[key] = self.weights.get(key, np.zeros(3, np.float32)) * 0.5 + rng.random(3, np.float32)
            self.counts[key] = self.counts.get(key, 0) + 1
            self.changed.add(key)
            self.gone.discard(key)
        for key in sorted(self.weights)[:: 7 + self.step % 3]:
            del self.weights[key], self.counts[key]
            self.changed.discard(key)
            self.gone.add(key)

    def content(self, *, whole: bool) -> TableContent:
        """All rows, or what a delta says."""
        keys = np.array(sorted(self.weights if whole else self.changed), np.int64)
        keys = keys[bucket_order(keys, 5)]
        weights = np.array([self.weights[key] for key in keys.tolist()], np.float32).reshape(-1, 3)
        counts = np.array([self.counts[key] for key in keys.tolist()], np.uint32)
        sums = weights.sum(axis=1, dtype=np.float32)
        gone = np.array([] if whole else sorted(self.gone), np.int64)
        cold = {"weight": np.zeros((1, 3), np.float32), "sum": np.zeros(1, np.float32)}
        return TableContent(
            keys, {"weight": weights, "sum": sums}, counts * 2, counts, gone, cold=cold, now=self.step, steps=self.step
        )

    def apply(self, content: TableContent) -> None:
        """Takes over a snapshot or a delta."""
        for key in content.tombstones.tolist():
            self.weights.pop(key, None)
            self.counts.pop(key, None)
        for key, weight, count in zip(content.keys.tolist(), content.columns["weight"], content.counts, strict=True):
            self.weights[key], self.counts[key] = weight.copy(), int(count)
        self.step = content.now


def load(folder: Path) -> TrainedTable:
    """The newest version; a new table where there is none."""
    state, rows = StateFolder(folder), TrainedTable()
    numbers = state.sequences("resume")
    for manifest in state.chain("resume", numbers[-1]) if numbers else []:
        state.verify(manifest)
        version = read_version(state, manifest, STORED)
        rows.apply(version.tables["t"])
        assert version.tensors["step"].tolist() == version.content["steps"] == [rows.step]
    return rows


def run(folder: Path, steps: int) -> TrainedTable:
    """Goes on from the newest version, with one after every step."""
    rows = load(folder)
    state = StateFolder(folder)
    with LeaseHolder(state) as writer:
        numbers = state.sequences("resume")
        parent = numbers[-1] if numbers else None
        while rows.step < steps:
            rows.train()
            whole = parent is None or rows.step % SNAPSHOT_EVERY == 0
            tensors = {"step": np.array([rows.step])}
            version = Version({"t": rows.content(whole=whole)}, tensors, {"steps": [rows.step]})
            kind = VersionKind("resume", None if whole else parent)
            manifest = write_version(writer, kind, STORED, version)
            parent = manifest.sequence
            rows.changed.clear()
            rows.gone.clear()
            if rows.step % 2 == 0:
                writer.pin("best", manifest)
            writer.collect({"resume": 2})
    return rows


def main() -> None:
    Path(BEGIN).exists()
    run(Path(sys.argv[1]), int(sys.argv[2]))
    os.write(1, b"done")


if __name__ == "__main__":
    main()
