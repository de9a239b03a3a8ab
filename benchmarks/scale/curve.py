"""The curve of a run over 1, 2, 4, ... 1,024 ranks: `python -m benchmarks.scale.curve CONFIG [KEY=VALUE]...`.

Measures the machine and prints JSON: `strong_scaling`, the batch shared by ever more ranks, and `weak_scaling`, a batch
that grows with them. From 4 ranks on it is computed, not measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from embtables.keyspace import NUM_BUCKETS
from embtables.pipelines.config import load_config
from embtables.pipelines.plan.plan import PlanRequest, plan
from embtables.pipelines.plan.scenario import Point, Scenario

RANKS = tuple(2**n for n in range(NUM_BUCKETS.bit_length()))


def curve(scenario: Scenario, part_rows: int | None = None) -> list[Point]:
    """The run at 1, 2, 4, ... 1,024 ranks: with its batch or, with `part_rows`, with so many rows for each rank."""
    return [scenario.at(n, None if part_rows is None else n * part_rows) for n in RANKS]


def to_json(points: list[Point]) -> list[dict[str, Any]]:
    """A curve as an object for each number of ranks."""
    first = points[0].rows_per_second
    return [
        {
            "ranks": p.load.ranks,
            "batch_rows": round(p.load.batch_rows),
            "ms": round(p.time.seconds * 1e3, 3),
            "rows_per_second": round(p.rows_per_second, 1),
            "efficiency": round(p.rows_per_second / first / p.load.ranks, 4),
            "bytes_per_rank": round(p.traffic.sent),
            "memory_per_rank": p.memory.total,
            "skew": round(p.load.skew, 3),
            "bound_by": p.time.bound_by,
            "basis": "like what was measured" if p.load.ranks <= 2 else "computed",
        }
        for p in points
    ]


def main() -> None:
    file, *overrides = sys.argv[1:]
    found = plan(load_config(Path(file), overrides), PlanRequest(), shown=False)
    strong, weak = curve(found.scenario), curve(found.scenario, found.config.train.batch_size)
    print(json.dumps({"strong_scaling": to_json(strong), "weak_scaling": to_json(weak)}))


if __name__ == "__main__":
    main()
