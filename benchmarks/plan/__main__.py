"""`python -m benchmarks.plan [--quick] [--json]`: do runs do what `embtables plan` predicts?

Step time of `embtables train` with 1 and 2 workers, and bytes that 1, 2 and 4 ranks send, against one plan a repeat;
plans and runs take turns. MovieLens-1M needs EMBTABLES_DATA, a folder with ml1m/.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _harness

STEPS = 100
Found = dict[str, list[dict[str, Any]]]


def configs(runs: str) -> dict[str, list[str]]:
    """The command line's CONFIG and overrides of each run; they share what is prepared once."""
    found = {"online_retail": ["examples/online_retail/dcnv2.yaml", f"train.runs_dir={runs}"]}
    data = os.environ.get("EMBTABLES_DATA")
    if data is not None:
        path = f"data.path={Path(data).resolve() / 'ml1m'}"
        found["movielens"] = ["examples/movielens/dcnv2.yaml", path, f"train.runs_dir={runs}"]
    return found


def commands(config: list[str], steps: int) -> dict[str, list[str]]:
    """A plan, and runs with 1 and 2 workers."""
    python = [sys.executable, "-W", "ignore"]
    found = {"plan": [*python, "-m", "benchmarks.scale.curve", *config]}
    for workers in (1, 2):
        found[f"train {workers}"] = [*python, "-m", "benchmarks.plan.steps", str(workers), str(steps), *config]
    return found


def counted(config: list[str], ranks: int) -> list[str]:
    """The command that counts bytes."""
    return [sys.executable, "-W", "ignore", "-m", "benchmarks.plan.ranks", str(ranks), "20", *config]


def lines_of(name: str, found: Found, sent: dict[int, dict[str, Any]]) -> list[list[str]]:
    """Ratios first, then what they are of."""
    lines, details = [], []
    for ranks in (1, 2):
        predicted = [p["strong_scaling"][ranks - 1]["ms"] for p in found["plan"]]
        measured = [1e3 * a["seconds"] for a in found[f"train {ranks}"]]
        ratios = _harness.Spread.of([a / b for a, b in zip(predicted, measured, strict=True)])
        shown = f"{ratios.median:.2f} ({ratios.low:.2f}-{ratios.high:.2f})"
        lines.append([name, f"step time, {ranks} of workers, predicted of measured", shown, "0.70 to 1.30"])
        for what, values in (("predicted", predicted), ("measured", measured)):
            s = _harness.Spread.of(values)
            details.append(
                [name, f"ms per step, {ranks} of workers, {what}", f"{s.median:.1f} ({s.low:.1f}-{s.high:.1f})", ""]
            )
    for ranks, real in sent.items():
        point = next(p for p in found["plan"][0]["strong_scaling"] if p["ranks"] == ranks)
        if ranks == 1:
            lines.append(
                [
                    name,
                    "bytes sent by 1 rank, predicted, measured",
                    f"{point['bytes_per_rank']}, {real['sent']:.0f}",
                    "0, 0",
                ]
            )
            continue
        ratio = point["bytes_per_rank"] / real["sent"]
        lines.append([name, f"bytes of a step, {ranks} ranks, predicted of measured", f"{ratio:.3f}", "0.90 to 1.10"])
        details.append([name, f"bytes per step and rank, {ranks} ranks, measured", f"{real['sent']:,.0f}", ""])
    return lines + details


def main() -> None:
    args = _harness.parser(__doc__).parse_args()
    steps, repeats = (30, 1) if args.quick else (STEPS, 5)
    lines: list[list[str]] = []
    raw: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as runs:
        for name, config in configs(runs).items():
            found = _harness.interleave(commands(config, steps), repeats)
            sent = {n: _harness.interleave({"bytes": counted(config, n)}, 1)["bytes"][0] for n in (1, 2, 4)}
            lines += lines_of(name, found, sent)
            raw[name] = {"found": found, "sent": sent}
    mirrors = [sys.executable, "-W", "ignore", "-m", "benchmarks.plan.mirrors"]
    own = _harness.interleave({"mirrors": mirrors}, 1)["mirrors"][0]
    for ranks, each in own.items():
        ratio = each["predicted"] / each["measured"]
        lines.append(
            [
                "26 features",
                f"a rank's own work among {int(ranks):,} mirrors, predicted of measured",
                f"{ratio:.2f}",
                "",
            ]
        )
        lines.append(
            ["26 features", f"ms of that, {int(ranks):,} mirrors, measured", f"{1e3 * each['measured']:.0f}", ""]
        )
    text = (
        f"Runs of {steps} steps without the first 10, batch 4,096, medians of windows of 10; of {repeats} repeats, in "
        "each of which the machine is measured anew, the median and range of the ratios. One process has both cores, "
        "each of two ranks (on Ray) has one thread. "
        "Bytes: of 20 steps, without what stays at a rank; an all_reduce as gloo's ring sends it.\n\n"
        f"{_harness.table(['run', '', 'measured', 'goal'], lines)}"
    )
    _harness.finish("plan", "Plans", {**raw, "mirrors": own}, text, args)


if __name__ == "__main__":
    main()
