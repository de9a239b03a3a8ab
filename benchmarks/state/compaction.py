"""Writes or compacts a chain of versions: `python -m benchmarks.state.compaction write|compact FOLDER ROWS DELTAS`.

`write`: a snapshot of one collisionless table of dimension 16 with rowwise Adagrad, and deltas of 100,000 keys each (or
of all, where there are fewer), a hundredth of them tombstones, and a twentieth as many new ones. `compact` compacts it
in a process without torch and prints seconds and the process's peak memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import _harness
from embtables.keyspace import Keys, bucket_offsets, bucket_order
from embtables.rows.content import TableContent
from embtables.rows.stored_table import StoredTable
from embtables.schema.tables import CollisionlessTable, RowwiseAdagrad
from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
from embtables.state.format.version import Version
from embtables.state.tools.compact import compact
from embtables.state.write.commit_across_ranks import write_version

DIM, TOUCHED, SEED = 16, 100_000, 1
STORED = (StoredTable(CollisionlessTable(name="t", dim=DIM, optimizer=RowwiseAdagrad(learning_rate=0.01)), SEED),)


def content(keys: Keys, gone: Keys, rng: np.random.Generator) -> TableContent:
    """Rows for these keys, which it sorts."""
    keys = keys[bucket_order(keys, SEED)]
    n, words = len(keys), np.full(len(keys), 7, np.uint32)
    columns = {"weight": rng.random((n, DIM), np.float32), "sum": rng.random(n, np.float32)}
    cold = {"weight": np.zeros((1, DIM), np.float32), "sum": np.zeros(1, np.float32)}
    return TableContent(keys, columns, words, words, gone, cold=cold, begins=bucket_offsets(keys, SEED))


def write(folder: Path, rows: int, deltas: int) -> None:
    """The chain."""
    rng = np.random.default_rng(0)
    touched = min(TOUCHED, rows)
    keys = np.unique(rng.integers(-(2**63), 2**63, rows + deltas * touched // 20))
    rng.shuffle(keys)
    with LeaseHolder(StateFolder(folder)) as writer:
        parent = None
        for number in range(deltas + 1):
            if number == 0:
                made = content(keys[:rows], keys[:0], rng)
            else:
                alive = keys[: rows + number * touched // 20]
                chosen = np.concatenate(
                    [alive[rows + (number - 1) * touched // 20 :], rng.choice(alive[:rows], touched)]
                )
                chosen = np.unique(chosen)
                rng.shuffle(chosen)
                made = content(chosen[touched // 100 :], chosen[: touched // 100], rng)
            parent = write_version(writer, VersionKind("resume", parent), STORED, Version({"t": made})).sequence


def main() -> None:
    what, folder, rows, deltas = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    if what == "write":
        write(folder, rows, deltas)
        found: dict[str, float] = {}
    else:
        start = time.perf_counter()
        with LeaseHolder(StateFolder(folder)) as writer:
            done = compact(writer, "resume", keep=1)
        seconds = time.perf_counter() - start
        kept = done.version.files["t.rows.0.arrow"].rows
        assert len(done.chain) == deltas + 1
        assert kept is not None
        found = {
            "seconds": seconds,
            "peak_mib": _harness.peak_memory_mib(),
            "rows": kept,
            "freed_bytes": done.freed_bytes,
        }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
