"""How long after the command a run takes its first training step."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CONFIG = """
name: start
tables: [{name: item, dim: 8, optimizer: {kind: adagrad, learning_rate: 0.1}}]
features: [{name: item, table: item}]
labels: [{column: click}]
data: {path: log.parquet}
model: {kind: dcnv2, num_cross_layers: 1, hidden_sizes: [8]}
train: {batch_size: 100, log_every_steps: 1, threads: 1, runs_dir: runs}
"""


def first_step(workers: int) -> float:
    """Seconds from the command until the line of the first step stands in metrics.jsonl."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        pq.write_table(
            pa.table({"item": rng.integers(0, 90, 2000), "click": rng.integers(0, 2, 2000)}), folder / "log.parquet"
        )
        (folder / "start.yaml").write_text(CONFIG)
        command = [sys.executable, "-m", "embtables", "train", "start.yaml"]
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--workers", str(workers)],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not any(path.stat().st_size for path in folder.glob("runs/*/metrics.jsonl")):
            if process.poll() is not None:
                raise RuntimeError(process.communicate()[1])
            time.sleep(0.02)
        found = time.perf_counter() - started
        process.communicate()
    return found
