"""`python -m benchmarks.sharded [--quick] [--json]`: steps of tables that two ranks hold, against TorchRec's row-wise.

Every contender is two processes on one core each (one where it says so), which take their steps together; contenders
take turns, one step at a time, over the same ids.
"""

from __future__ import annotations

import os
import sys

from benchmarks import _harness
from benchmarks._turns import contenders, take_turns

REPEATS = 15
KINDS = {
    "fixed": ("fixed", 2),
    "collisionless": ("collisionless", 2),
    "TorchRec row-wise": ("torchrec", 2),
    "fixed, one process": ("local", 1),
    "fixed, world of one": ("fixed", 1),
}


def main() -> None:
    args = _harness.parser(__doc__).parse_args()
    rows, repeats = (20_000, 3) if args.quick else (1_000_000, REPEATS)
    commands = {
        name: [sys.executable, "-W", "ignore", "-m", "benchmarks.sharded.ranks", kind, str(ranks), str(rows)]
        for name, (kind, ranks) in KINDS.items()
    }
    env = {name: {**os.environ, "OMP_NUM_THREADS": str(2 // ranks)} for name, (_, ranks) in KINDS.items()}
    lines, result = [], {}
    with contenders(commands, env) as group:
        for of in ("uniform", "zipf"):
            found = take_turns(group, {"of": of}, repeats)
            ms = {name: _harness.Spread.of([a["seconds"] * 1e3 for a in answers]) for name, answers in found.items()}
            last = found["fixed"][-1]
            of_torchrec = ms["fixed"].median / ms["TorchRec row-wise"].median
            lines += [
                [
                    of,
                    "fixed, of TorchRec row-wise",
                    f"{of_torchrec:.2f}",
                    "1.00",
                ],
                [of, "collisionless, of fixed", f"{ms['collisionless'].median / ms['fixed'].median:.2f}", "1.40"],
                [
                    of,
                    "world of one, of one process",
                    f"{ms['fixed, world of one'].median / ms['fixed, one process'].median:.2f}",
                    "1.05",
                ],
                [of, "bytes sent, of foreign keys' (8 + 4 + 2 rows)", f"{last['sent'] / last['allowed']:.3f}", "1.10"],
            ]
            lines += [[of, f"step ms: {n}", f"{s.median:.1f} ({s.low:.1f}-{s.high:.1f})", ""] for n, s in ms.items()]
            result[of] = {name: vars(s) for name, s in ms.items()}
    text = (
        f"26 features of an id each, tables of {rows:,} rows x 32, rowwise Adagrad, batch 4,096 a rank, gloo over "
        f"loopback; medians of {repeats} steps that take turns. Lookup, backward (the gradient is given), update.\n\n"
        f"{_harness.table(['ids', '', 'measured', 'goal'], lines)}"
    )
    _harness.finish("sharded", "Sharded tables", result, text, args)


if __name__ == "__main__":
    main()
