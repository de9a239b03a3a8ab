"""How long state takes: `python -m benchmarks.state [--quick] [--json]`.

One collisionless table of 10 M rows, dimension 16, rowwise Adagrad, in a process of its own beside one that saves and
loads the same tensors with torch; they take turns. Then a chain of a snapshot and 100 deltas is compacted, in a process
of its own that has nothing else in memory.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks._harness import Spread, turns
from benchmarks.state import without_cuts
from benchmarks.state.worker import ROW_BYTES, TOUCHED

REPEATS, DELTAS = 7, 100


def measure(rows: int, repeats: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every answer, by contender and question."""
    commands = {
        kind: [sys.executable, "-m", "benchmarks.state.worker", kind, str(rows), str(folder / kind)]
        for kind in ("embtables", "torch")
    }
    found: dict[str, list[dict[str, Any]]] = {}
    with turns.contenders(commands, {}) as (ours, torch):
        for turn in range(repeats):
            for what in ("snapshot", "load"):
                pair = (ours, torch) if turn % 2 == 0 else (torch, ours)
                for contender in pair:
                    found.setdefault(f"{contender.name} {what}", []).append(contender.ask({"what": what}))
        for what, times in (("step", 50), ("delta", repeats), ("training_snapshot", 3)):
            for _ in range(times):
                found.setdefault(f"embtables {what}", []).append(ours.ask({"what": what}))
    return found


def cuts(rows: int, repeats: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Training steps with cut numbers and without."""
    worker = ["-m", "benchmarks.state.worker", "embtables", str(rows)]
    commands = {
        "with cuts": [sys.executable, *worker, str(folder / "with")],
        "without": [sys.executable, "-S", "-P", *worker, str(folder / "without")],
    }
    environments = {"without": without_cuts.build(folder / "build")}
    with turns.contenders(commands, environments) as group:
        return turns.take_turns(group, {"what": "steps"}, repeats)


def compaction(rows: int, deltas: int, folder: Path) -> dict[str, float]:
    """Seconds and peak memory of compacting a chain."""
    found = {}
    for what in ("write", "compact"):
        argv = [sys.executable, "-m", "benchmarks.state.compaction", what, str(folder), str(rows), str(deltas)]
        found = _harness.interleave({what: argv}, 1)[what][0]
    shutil.rmtree(folder)
    return found


def spread(found: dict[str, list[dict[str, Any]]], name: str, figure: str) -> Spread:
    """Median and range of one figure."""
    return Spread.of([answer[figure] for answer in found[name]])


def section(found: dict[str, list[dict[str, Any]]], compacted: dict[str, float], rows: int, deltas: int) -> str:
    """The section of RESULTS.md."""
    kept, left = spread(found, "with cuts", "seconds"), spread(found, "without", "seconds")
    during, longest = (spread(found, "embtables training_snapshot", name) for name in ("median", "longest"))
    step = spread(found, "embtables step", "seconds")
    save, save_torch = spread(found, "embtables snapshot", "seconds"), spread(found, "torch snapshot", "seconds")
    load, load_torch = spread(found, "embtables load", "seconds"), spread(found, "torch load", "seconds")
    pause, delta = spread(found, "embtables snapshot", "paused"), spread(found, "embtables delta", "paused")
    size = found["embtables delta"][-1]
    lines = [
        ["snapshot, against torch.save and fsync", f"{save_torch.median / save.median:.2f} x", "2 x"],
        ["restore, against torch.load and building the map", f"{load_torch.median / load.median:.2f} x", "2 x"],
        ["training stands for a snapshot, ms", f"{pause.median * 1e3:.1f}", "100"],
        ["the longest step of 4,096 ids while a snapshot is written, ms", f"{longest.median * 1e3:.0f}", ""],
        [
            "the median step meanwhile; without a snapshot, ms",
            f"{during.median * 1e3:.2f}; {step.median * 1e3:.2f}",
            "",
        ],
        [f"training stands for a delta of {TOUCHED:,} rows, ms", f"{delta.median * 1e3:.0f}", "20"],
        ["bytes of that delta over those of its rows", f"{size['bytes'] / (size['rows'] * ROW_BYTES):.3f}", "1.10"],
        ["cut numbers cost of the tables' step", f"{(kept.median / left.median - 1) * 100:+.1f} %", "3 %"],
        [
            f"peak memory of compacting it with {deltas} such deltas, MB",
            f"{compacted['peak_mib'] * 2**20 / 1e6:,.0f}",
            "1,000",
        ],
    ]
    seconds = [
        [name, *(_text(spread(found, f"{name} {what}", "seconds")) for what in ("snapshot", "load"))]
        for name in ("embtables", "torch")
    ]
    repeats, megabytes = len(found["embtables snapshot"]), rows * ROW_BYTES / 1e6
    return (
        f"{rows:,} rows of dimension 16 with rowwise Adagrad, {megabytes:,.0f} MB; medians of {repeats} repeats that "
        f"take turns on two threads.\n\n{_harness.table(['', 'measured', 'goal'], lines)}\n\n"
        f"{_harness.table(['seconds', 'snapshot, until durable', 'restore'], seconds)}\n\n"
        f"Compacting took {compacted['seconds']:.1f} s, once, with the checksums of all it reads.\n"
    )


def _text(value: Spread) -> str:
    return f"{value.median:.2f} ({value.low:.2f}-{value.high:.2f})"


def main() -> None:
    args = _harness.parser(__doc__).parse_args()
    rows, repeats, deltas = (200_000, 2, 10) if args.quick else (10_000_000, REPEATS, DELTAS)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(rows, repeats, Path(folder))
        found |= cuts(rows, 3 * repeats, Path(folder) / "cuts")
        compacted = compaction(rows, deltas, Path(folder) / "chain")
    answers = {"rows": rows, "answers": found, "compaction": {"deltas": deltas, **compacted}}
    _harness.finish("state", "State", answers, section(found, compacted, rows, deltas), args)


if __name__ == "__main__":
    main()
