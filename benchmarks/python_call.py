"""Seconds from `embtables.train(...)` on a DataFrame to its first training step: MovieLens-1M, in a fresh process.

Imports are timed apart: torch, then what a run needs of this package, which is otherwise imported at the first call.
The clock of the call starts with the frames in memory, and stops when the line of the first step stands in
metrics.jsonl: the schema's suggestion, the checks, the split, and fitting lie between. The data may not be shipped:
EMBTABLES_DATA names a folder with ml1m/.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks._harness import ctr

GOAL_SECONDS = 2.0
CONFIG = "examples/movielens/dcnv2.yaml"
INFERRED, AS_THE_EXAMPLE = "schema inferred from the frame", "schema and joins of the example"


def first_step(name: str, data: Path) -> dict[str, float]:
    """Seconds of the imports, and to the first step of a run that stops after three."""
    import pandas as pd

    started = time.perf_counter()
    importlib.import_module("torch")
    torch_there = time.perf_counter()
    importlib.import_module("embtables.pipelines.training.train")
    imports = {"torch": torch_there - started, "embtables": time.perf_counter() - torch_there}

    import embtables as et

    ratings = pd.read_parquet(data / "ratings.parquet")
    found: list[float] = []
    with tempfile.TemporaryDirectory() as runs:

        def watch() -> None:
            while not any(path.stat().st_size for path in Path(runs).glob("*/metrics.jsonl")):
                time.sleep(0.002)
            found.append(time.perf_counter())

        watcher = threading.Thread(target=watch, daemon=True)
        options: dict[str, Any] = {"runs_dir": runs, "max_steps": 3, "log_every_steps": 1, "shown": False}
        started = time.perf_counter()
        watcher.start()
        if name == INFERRED:
            et.train(et.Schema.infer(ratings, label="rating", positive_above=3), ratings, model="dcnv2", **options)
        else:
            joins = [f"data.join.{n}.path={data}/{side}.parquet" for n, side in enumerate(("users", "movies"))]
            et.train(CONFIG, ratings, overrides=joins, **options)
        watcher.join()
    return {"seconds": found[0] - started, **imports}


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--contender", help=argparse.SUPPRESS)
    args = options.parse_args()
    data = ctr.data_folder("ml1m") / "ml1m"
    if args.contender is not None:
        print(json.dumps(first_step(args.contender, data)))
        return
    repeats = 2 if args.quick else 7
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.python_call", "--contender"]
    done = _harness.interleave({name: [*command, name] for name in (INFERRED, AS_THE_EXAMPLE)}, repeats)
    spreads = {name: _harness.Spread.of([run["seconds"] for run in runs]) for name, runs in done.items()}
    rows = [
        [name, f"{s.median:.2f} ({s.low:.2f}-{s.high:.2f})", f"{GOAL_SECONDS:g}", _met(s.median)]
        for name, s in spreads.items()
    ]
    runs = [run for of in done.values() for run in of]
    torch, ours = (_harness.Spread.of([run[what] for run in runs]).median for what in ("torch", "embtables"))
    text = (
        f"{_harness.table(['MovieLens-1M as a DataFrame', 'seconds to the first step', 'goal', ''], rows)}\n\n"
        f"Median (range) of {repeats} interleaved processes, after the imports: torch takes {torch:.2f} s, "
        f"this package {ours:.2f} s."
    )
    _harness.finish("python_call", "The Python call", {n: s.median for n, s in spreads.items()}, text, args)


def _met(seconds: float) -> str:
    return "reached" if seconds <= GOAL_SECONDS else "missed"


if __name__ == "__main__":
    main()
