"""Servers that take turns under load, so that a slow minute of the machine hits all alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    runs: dict[str, list[Figures]] = {name: [] for name in ports}
    for name in _in_turn(list(ports), repeats):
        found = load.measure(ports[name], requests[name], seconds=seconds, connections=connections, redis=name in redis)
        if found["failed"]:
            raise RuntimeError(f"{name}: {found['failed']} requests failed: {found['statuses']}")
        runs[name].append(found)
    return {name: _summed([run["per_second"] for run in of]) for name, of in runs.items()}


def _summed(rates: Sequence[float]) -> Figures:
    return {"per_second": median(rates), "low": min(rates), "high": max(rates)}


def latencies(
    ports: Mapping[str, int],
    requests: Mapping[str, Sequence[bytes]],
    rates: Mapping[str, float],
    *,
    repeats: int,
    seconds: float,
) -> dict[str, Figures]:
    """By server latencies at a fixed rate: of `repeats` runs that with the median p99, with `p99_us_least` of all runs.

    A virtual machine loses its processor for a while now and then, which makes the p99 of a run that is hit; the least
    one says what the server does where it is left alone. `failed` and `unsent` are of all runs; a request that was not
    sent in time is among the latencies.
    """
    runs: dict[str, list[Figures]] = {name: [] for name in ports}
    for name in _in_turn(list(ports), repeats):
        found = load.measure(ports[name], requests[name], seconds=seconds, rate=rates[name], connections=64)
        runs[name].append(found)
    return {name: _median_run(of) for name, of in runs.items()}


def half_load(
    ports: Mapping[str, int], requests: Mapping[str, Sequence[bytes]], rates: Mapping[str, float], *, quick: bool
) -> dict[str, Figures]:
    """Latencies of the tables of a part. Raises RuntimeError where a request fails."""
    repeats, seconds = (1, 1.0) if quick else (7, 3.0)
    found = latencies(ports, requests, rates, repeats=repeats, seconds=seconds)
    for name, of in found.items():
        if of["failed"]:
            raise RuntimeError(f"{name}: {of['failed']} requests failed at a fixed rate: {of['statuses']}")
    return found


def milliseconds(of: Figures, digits: int) -> str:
    """`p50 / p99 (least of the runs)`, in ms."""
    p50, p99, least = (f"{of[name] / 1e3:.{digits}f}" for name in ("p50_us", "p99_us", "p99_us_least"))
    return f"{p50} / {p99} ({least})"


def _in_turn(names: Sequence[str], repeats: int) -> Iterator[str]:
    """Each name once a round; each round begins with another one."""
    for turn in range(repeats):
        start = turn % len(names)
        yield from (*names[start:], *names[:start])


def _median_run(runs: Sequence[Figures]) -> Figures:
    by_p99 = sorted(runs, key=lambda run: float(run["p99_us"]))
    statuses: Counter[str] = Counter()
    for run in runs:
        statuses.update(run["statuses"])
    sums = {name: sum(run[name] for run in runs) for name in ("failed", "unsent")}
    least = {"p99_us_least": by_p99[0]["p99_us"]}
    return by_p99[len(runs) // 2] | sums | least | {"statuses": dict(statuses)}
