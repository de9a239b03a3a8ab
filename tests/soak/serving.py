"""A server under load while rows change and are evicted: `python -m tests.soak.serving [MINUTES]`, by default 30.

Every second a trainer publishes a version: 20,000 rows have changed, 5,000 keys are gone, 5,000 are new. Snapshots come
between, and old versions are removed. Meanwhile requests come at a fixed rate. At the end: no request has failed, no
version was set aside, rows are those of the trainer bit for bit, and memory does not grow.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import embtables
from benchmarks import _harness
from benchmarks._serving import load, servers, synthetic, updates

ROWS, CHANGED, EVICTED = 200_000, 20_000, 5_000
RATE = 100.0
LOOK_SECONDS = 2.0
BLOCKS = 10
# Of Student's t with BLOCKS - 2 degrees of freedom: memory that only wavers is beyond it once in 1,000 runs.
SIGNIFICANT = 5.04
SETTLED = 0.25  # of the time is left out: caches fill


class Trainer:
    """Publishes until it is told to end. Keys are a window that moves: the number of rows stays."""

    def __init__(self, publisher: synthetic.Publisher) -> None:
        self._publisher, self._random = publisher, np.random.default_rng(5)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.first, self.versions = 0, 1
        self.error: BaseException | None = None

    def __enter__(self) -> Trainer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            due = time.monotonic() + 1.0
            while not self._ends.wait(max(0.0, due - time.monotonic())):
                due = max(due + 1.0, time.monotonic())
                self._step()
        except BaseException as error:
            self.error = error

    def _step(self) -> None:
        self._publisher.delete(np.arange(self.first, self.first + EVICTED))
        self.first += EVICTED
        self._publisher.set(np.arange(self.first + ROWS - EVICTED, self.first + ROWS))
        self._publisher.set(self.first + self._random.choice(ROWS, CHANGED, replace=False))
        self._publisher.cut()
        self.versions += 1


def soak(minutes: float, folder: Path) -> str:
    """Raises AssertionError where something does not hold."""
    publisher = synthetic.Publisher(folder, ROWS, keep=4, longest=16)
    memory: list[float] = []
    with servers.ours(folder, cores=sorted(os.sched_getaffinity(0))) as server:
        with Trainer(publisher) as trainer:
            found, loading = [], threading.Thread(target=lambda: found.append(_load(server.port, 60.0 * minutes)))
            loading.start()
            while loading.is_alive():
                memory.append(server.memory_mib())
                loading.join(LOOK_SECONDS)
        (answered,) = found
        assert trainer.error is None, trainer.error
        assert answered["failed"] == answered["unsent"] == 0 < answered["ok"], answered
        with embtables.Client(server.url) as client:
            last = f"serving-{publisher.last_sequence()}"
            _wait_for(client, last)
            follow = client.model().follow
            assert not any(follow.rejected.values()), follow
            keys = np.arange(trainer.first - 1000, trainer.first + ROWS)
            for part in np.array_split(keys, 16):
                served = client.embed(part, table="item", deadline_seconds=60.0)
                assert np.array_equal(served, publisher.tables.get("item", torch.from_numpy(part)).numpy())
    publisher.close()
    slope, t = trend(memory)
    grown = slope * len(memory) * (1 - SETTLED)
    assert t < SIGNIFICANT or grown < 0.01 * np.median(memory), f"memory grows by {grown:.1f} MiB, t {t:.1f}: {memory}"
    return (
        f"{minutes:g} minutes of serving, {answered['ok']:,} requests while {trainer.versions:,} versions came: no "
        f"error, rows equal bit for bit, memory {np.median(memory):,.0f} MiB {grown:+.1f} MiB (t {t:+.1f})"
    )


def _load(port: int, seconds: float) -> dict[str, float]:
    found: dict[str, float] = load.measure(
        port, updates.bodies(ROWS), seconds=seconds, rate=RATE, connections=32, warmup=1.0
    )
    return found


def _wait_for(client: embtables.Client, version: str) -> None:
    end = time.monotonic() + 60.0
    while client.model().versions.rows != version:
        assert time.monotonic() < end, f"{version} does not come: {client.model().follow}"
        time.sleep(0.05)


def trend(memory: Sequence[float]) -> tuple[float, float]:
    """MiB per look, and its t: a line through the medians of ten blocks of the time after it has settled."""
    settled = np.array(memory[int(SETTLED * len(memory)) :])
    blocks = np.array_split(settled, BLOCKS)
    y, x = np.array([np.median(block) for block in blocks]), np.arange(BLOCKS) * (len(settled) / BLOCKS)
    centred = x - x.mean()
    slope = float((centred * y).sum() / (centred**2).sum())
    residual = y - y.mean() - slope * centred
    error = float(np.sqrt((residual**2).sum() / (BLOCKS - 2) / (centred**2).sum()))
    return slope, slope / error if error > 0 else (0.0 if slope == 0 else np.inf)


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    where = _harness.machine()
    about = f"`python -m tests.soak.serving {minutes:g}` on {where['cpu']}, commit {where['commit']}, {where['date']}"
    line = soak(minutes, synthetic.RUNS / "soak")
    print(line)
    _harness.write_section("soak-server", f"## Soak: server\n\n{about}: {line}.\n")


if __name__ == "__main__":
    main()
