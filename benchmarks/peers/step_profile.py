"""Where does a training step of the configured model spend its time?

`python -m benchmarks.peers.step_profile CONFIG [KEY=VALUE ...]` trains on batches that are ready in memory, with a
clock around each part, and prints one JSON object last on stdout: milliseconds per step by part, and what the
processor's matrix product reaches in fp32 and bf16.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from embtables.inputs.batch import Batch
from embtables.pipelines.config import load_config
from embtables.pipelines.sources.parquet import Log, ParquetReader
from embtables.pipelines.training.learner import Learner
from embtables.rows.host.lookup import HostPooledLookup

WARM_UP = 10
STEPS = 100


class Clock:
    """Seconds of each named part, step by step."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def measure(self, part: str, work: Callable[[], Any]) -> Any:
        """Result of `work`; its time goes to `part`."""
        start = time.perf_counter()
        result = work()
        self._seconds[part].append(time.perf_counter() - start)
        return result

    def wrap(self, owner: Any, method: str, part: str) -> None:
        """From now on every call of the method is measured."""
        inner = getattr(owner, method)
        setattr(owner, method, lambda *args, **kwargs: self.measure(part, lambda: inner(*args, **kwargs)))

    def milliseconds(self) -> dict[str, float]:
        """Median of each part over the steps after the warm-up."""
        return {part: 1e3 * median(values[WARM_UP:]) for part, values in self._seconds.items()}


def profile(config: str, overrides: list[str]) -> dict[str, float]:
    """Milliseconds per step by part; `dense forward` and `dense backward` are what is left of the two passes."""
    run = load_config(Path(config), overrides)
    if run.train.threads is not None:
        torch.set_num_threads(run.train.threads)
    log = Log(run, run.data)
    reader = ParquetReader(log, "train", batch_size=run.train.batch_size, fitted=log.fit_transforms(0), seed=0)
    batches = [item.batch for item, _ in zip(reader, range(WARM_UP + STEPS), strict=False)]
    learner, clock = Learner(run), Clock()
    clock.wrap(learner.model.embeddings, "forward", "lookup")
    clock.wrap(HostPooledLookup, "add_gradient", "row gradients")
    for batch in batches:
        clock.measure("step", lambda batch=batch: _step(learner, batch, clock))  # type: ignore[misc]
    found = clock.milliseconds()
    found["dense forward"] = found.pop("forward") - found["lookup"]
    found["dense backward"] = found.pop("backward") - found["row gradients"]
    return found


def _step(learner: Learner, batch: Batch, clock: Clock) -> None:
    """The parts of `Learner.train_step`, each on the clock."""
    learner.model.train()

    def forward() -> torch.Tensor:
        return learner.task.loss(learner._outputs(batch), batch)

    loss = clock.measure("forward", forward)
    learner.optimizer.zero_grad()
    clock.measure("backward", loss.backward)
    rate = learner.config.train.dense_optimizer.learning_rate
    clock.measure("dense Adam", lambda: learner.optimizer.step(rate))
    clock.measure("row update", learner.tables.step)


def matmul_gflops(dtype: torch.dtype, size: int = 256, rows: int = 4096, repeats: int = 7) -> float:
    """What (rows, size) x (size, size) reaches, median of the repeats."""
    a, b = torch.randn(rows, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - start)
    return 2e-9 * rows * size * size / median(seconds)


if __name__ == "__main__":
    parts = profile(sys.argv[1], sys.argv[2:])
    rates = {name: matmul_gflops(getattr(torch, name)) for name in ("float32", "bfloat16")}
    print(json.dumps({"milliseconds": parts, "matmul_gflops": rates}))
