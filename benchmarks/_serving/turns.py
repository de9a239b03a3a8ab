"""Servers that take turns under load, so that a slow minute of the machine hits all alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks._serving import load

Figures = dict[str, Any]


def capacities(
    ports: Mapping[str, int],
    requests: Mapping[str, Sequence[bytes]],
    *,
    repeats: int,
    seconds: float,
    connections: int,
    redis: Sequence[str] = (),
) -> dict[str, Figures]:
    """By server what it answers per second when every connection asks as soon as it has its answer: of `repeats` runs
    the median, the least and the greatest. Each round starts with another server."""
    names = list(ports)
    runs: dict[str, list[Figures]] = {name: [] for name in names}
    for turn in range(repeats):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            found = load.measure(
                ports[name], requests[name], seconds=seconds, connections=connections, redis=name in redis
            )
            if found["failed"]:
                raise RuntimeError(f"{name}: {found['failed']} requests failed: {found['statuses']}")
            runs[name].append(found)
    return {name: _summed([run["per_second"] for run in of]) for name, of in runs.items()}


def _summed(rates: Sequence[float]) -> Figures:
    return {"per_second": median(rates), "low": min(rates), "high": max(rates)}


def latencies(
    port: int, requests: Sequence[bytes], rate: float, *, seconds: float, repeats: int, redis: bool = False
) -> Figures:
    """Latencies at a fixed rate: of the run with the median p99."""
    runs = [
        load.measure(port, requests, seconds=seconds, rate=rate, connections=64, redis=redis) for _ in range(repeats)
    ]
    runs.sort(key=lambda run: float(run["p99_us"]))
    found = runs[len(runs) // 2]
    return found | {"failed": sum(run["failed"] + run["unsent"] for run in runs)}
