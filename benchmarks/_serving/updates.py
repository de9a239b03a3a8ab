"""Part `updates`: the same load with and without a delta of 100,000 rows every second; when each is seen in answers."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from typing import Any

import numpy as np

import embtables
from benchmarks import _harness
from benchmarks._serving import load, servers, synthetic
from benchmarks._serving.online_retail import RUNS
from benchmarks._serving.turns import capacities, latencies

TITLE = "Server: updates meanwhile"
CANDIDATES = 100
_LOOK_SECONDS = 0.002


class Cuts:
    """Publishes a version every second and notes how long each takes until an answer is of it."""

    def __init__(self, source: synthetic.Replayed, url: str, every_seconds: float) -> None:
        self._source, self._url, self._every = source, url, every_seconds
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds_until_seen: list[float] = []

    def __enter__(self) -> Cuts:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        with embtables.Client(self._url, deadline_seconds=30.0) as client:
            due = time.monotonic()
            while not self._ends.wait(max(0.0, due - time.monotonic())) and len(self._source):
                due += self._every
                name = self._source.publish()
                published = time.monotonic()
                number = int(name.rpartition("-")[2])
                while True:
                    client.embed([1], feature="item")
                    seen = client.last_versions
                    if seen is not None and int(seen.rows.rpartition("-")[2]) >= number:
                        break
                    time.sleep(_LOOK_SECONDS)
                self.seconds_until_seen.append(time.monotonic() - published)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and the table."""
    rows, deltas, delta_rows, seconds = (100_000, 8, 10_000, 3.0) if args.quick else (1_000_000, 60, 100_000, 12.0)
    repeats = 1 if args.quick else 3
    source = synthetic.chain(rows, deltas, delta_rows)
    served = synthetic.Replayed(source, RUNS / "served")
    served.publish()
    asked = bodies(rows)
    with servers.ours(RUNS / "served", cores=sorted(os.sched_getaffinity(0))) as server:
        ports, requests = {"embtables": server.port}, {"embtables": asked}
        capacity = capacities(ports, requests, repeats=repeats, seconds=min(3.0, seconds), connections=8)["embtables"]
        rate = capacity["per_second"] / 2
        rates = {"embtables": rate}
        quiet = latencies(ports, requests, rates, seconds=seconds, repeats=repeats)["embtables"]
        with Cuts(served, server.url, 1.0) as cuts:
            busy = latencies(ports, requests, rates, seconds=seconds, repeats=repeats)["embtables"]
        with embtables.Client(server.url) as client:
            follow = client.model().follow
    result = {
        "rows": rows,
        "delta_rows": delta_rows,
        "rate": rate,
        "quiet": quiet,
        "busy": busy,
        "applied_versions": follow.applied_versions,
        "rejected": dict(follow.rejected),
        "seconds_until_seen": sorted(cuts.seconds_until_seen),
    }
    return result, _markdown(result)


def bodies(rows: int) -> list[bytes]:
    """Requests for scores of candidates with keys below `rows`."""
    random = np.random.default_rng(2)
    found = []
    for _ in range(64):
        items = random.integers(0, rows, CANDIDATES).tolist()
        candidates = [{"item": item, "price": round(random.random(), 6)} for item in items]
        request = {"context": {"user": int(random.integers(0, 100))}, "candidates": candidates}
        found.append(load.post("/v1/score", json.dumps(request).encode(), "application/json"))
    return found


def _markdown(result: dict[str, Any]) -> str:
    quiet, busy, seen = result["quiet"], result["busy"], result["seconds_until_seen"]
    header = ["", "failed", "p50, ms", "p99, ms", "p99.9, ms"]
    rows = [
        [name, of["failed"], *(f"{of[q] / 1e3:.2f}" for q in ("p50_us", "p99_us", "p999_us"))]
        for name, of in (("quiet", quiet), (f"a delta of {result['delta_rows']:,} rows every second", busy))
    ]
    p50, p95 = (float(np.quantile(seen, q)) for q in (0.5, 0.95))
    return (
        f"{_harness.table(header, rows)}\n\n"
        f"p99 is {busy['p99_us'] / quiet['p99_us']:.1f}x of the quiet server's. From a version's manifest on disk to "
        f"the first answer of it: p50 {p50:.2f} s, p95 {p95:.2f} s ({len(seen)} versions, "
        f"{sum(result['rejected'].values())} set aside). {CANDIDATES} candidates of a table of {result['rows']:,} "
        f"rows, {result['rate']:,.0f} requests/s, half of what the server reaches; server and load share all cores."
    )
