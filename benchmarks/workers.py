"""The examples trained by two workers on Ray, beside one process: the same test AUC?

Both train on the same data, seed and batches. What differs is the order of float additions and the dropout masks that
ranks draw. MovieLens-1M may not be shipped: EMBTABLES_DATA names a folder with ml1m/.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks._harness import ctr

TOLERANCE = 0.002


def main() -> None:
    args = _harness.parser(__doc__).parse_args()
    data = ctr.data_folder("ml1m")
    changes = {
        "online_retail": [],
        "movielens": [f"data.path={data / 'ml1m'}", *(["train.epochs=1"] if args.quick else [])],
    }
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as runs:
        commands = {
            f"{example}, {workers}": [
                *ctr.train_command(f"examples/{example}/dcnv2.yaml", Path(runs), *overrides),
                *("--workers", str(workers)),
            ]
            for example, overrides in changes.items()
            for workers in (1, 2)
        }
        found = _harness.interleave(commands, 1, timeout_seconds=3600)
    lines = []
    for example in changes:
        one, two = (found[f"{example}, {workers}"][0] for workers in (1, 2))
        figures = [f"{run['auc']:.4f} / {run['log_loss']:.4f}" for run in (one, two)]
        rates = [f"{run['rows_per_second']:,.0f}" for run in (one, two)]
        lines.append([example, *figures, f"{two['auc'] - one['auc']:+.4f}", f"{TOLERANCE}", *rates])
    head = ["example", "AUC / log loss, 1 worker", "2 workers", "AUC differs by", "goal", "rows/s, 1", "rows/s, 2"]
    text = (
        f"{_harness.table(head, lines)}\n\nTest part, one run each, DCN-V2. Rows/s are of training; one worker has "
        "both cores of the machine, two have one each."
    )
    _harness.finish("workers", "Two workers", found, text, args)


if __name__ == "__main__":
    main()
