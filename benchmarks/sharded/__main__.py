"""`python -m benchmarks.sharded [--quick] [--json]`: steps of tables that two ranks hold, against TorchRec's row-wise.

Every contender is two processes on one core each (one where it says so), which take their steps together; contenders
take turns, one step at a time, over the same ids.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks import _harness
from benchmarks._harness.turns import contenders, take_turns
from benchmarks.sharded.start import first_step

REPEATS, REPEATS_ALONE = 15, 41
# What is measured together: its tables are in memory at once.
GROUP = {"fixed": ("fixed", 2), "collisionless": ("collisionless", 2), "TorchRec row-wise": ("torchrec", 2)}
ALONE = {"fixed, one process": ("local", 1), "fixed, world of one": ("fixed", 1)}
SMALL = {"sharded": ("fixed", 2), "replicated": ("replicated", 2)}
SMALL_ROWS = (8, 100, 1000)
Found = dict[str, dict[str, list[dict[str, Any]]]]  # by ids, contender


def measured(kinds: Mapping[str, tuple[str, int]], rows: int, repeats: int) -> Found:
    """Every contender's answers."""
    commands = {
        name: [sys.executable, "-W", "ignore", "-m", "benchmarks.sharded.ranks", kind, str(ranks), str(rows)]
        for name, (kind, ranks) in kinds.items()
    }
    env = {name: {**os.environ, "OMP_NUM_THREADS": str(2 // ranks)} for name, (_, ranks) in kinds.items()}
    with contenders(commands, env) as group:
        return {of: take_turns(group, {"of": of}, repeats) for of in ("uniform", "zipf")}


def lines_of(of: str, found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Ratios first, then steps."""
    ms = {name: _harness.Spread.of([a["seconds"] * 1e3 for a in answers]) for name, answers in found.items()}
    last = found["fixed"][-1]
    ratios = [
        ("fixed, of TorchRec row-wise", ms["fixed"].median / ms["TorchRec row-wise"].median, "1.00"),
        ("collisionless, of fixed", ms["collisionless"].median / ms["fixed"].median, "1.40"),
        ("world of one, of one process", ms["fixed, world of one"].median / ms["fixed, one process"].median, "1.05"),
        ("bytes sent, of foreign keys' (8 + 4 + 2 rows)", last["sent"] / last["allowed"], "1.10"),
    ]
    lines = [[of, name, f"{ratio:.3f}", goal] for name, ratio, goal in ratios]
    return lines + [[of, f"step ms: {n}", f"{s.median:.1f} ({s.low:.1f}-{s.high:.1f})", ""] for n, s in ms.items()]


def small_lines(small: dict[int, Found]) -> list[list[str]]:
    """What it brings to replicate small tables."""
    lines = []
    for rows, found in small.items():
        for of, answers in found.items():
            ms = {n: _harness.Spread.of([a["seconds"] * 1e3 for a in each]).median for n, each in answers.items()}
            ratio = ms["replicated"] / ms["sharded"]
            lines.append([of, f"tables of {rows:,} rows: replicated, of sharded", f"{ratio:.3f}", ""])
    return lines


def main() -> None:
    args = _harness.parser(__doc__).parse_args()
    rows, repeats, of_alone = (20_000, 3, 3) if args.quick else (1_000_000, REPEATS, REPEATS_ALONE)
    alone = measured(ALONE, rows, of_alone)
    found = {of: answers | alone[of] for of, answers in measured(GROUP, rows, repeats).items()}
    small = {few: measured(SMALL, few, repeats) for few in SMALL_ROWS}
    lines = [line for of, answers in found.items() for line in lines_of(of, answers)] + small_lines(small)
    starts = [(first_step(1), first_step(2)) for _ in range(1 if args.quick else 3)]
    for workers, seconds, goal in zip((1, 2), zip(*starts, strict=True), ("4", "45"), strict=True):
        s = _harness.Spread.of(list(seconds))
        name = f"seconds to the first step, --workers {workers}"
        lines.append(["", name, f"{s.median:.1f} ({s.low:.1f}-{s.high:.1f})", goal])
    text = (
        f"26 features with one id each, tables of {rows:,} rows x 32, rowwise Adagrad, batch 4,096 per rank, gloo over "
        f"loopback; medians of {repeats} interleaved steps ({of_alone} of one process). Lookup, backward (the "
        "gradient is given), update.\n\n"
        f"{_harness.table(['ids', '', 'measured', 'goal'], lines)}"
    )
    _harness.finish("sharded", "Sharded tables", {"found": found, "small": small, "starts": starts}, text, args)


if __name__ == "__main__":
    main()
