"""MovieLens-1M, the usual CTR protocol: test AUC of DeepFM and DCN-V2 over three seeds.

A seed decides the random 8:1:1 split as well as training. The model is chosen on the validation part; the test part is
scored once a seed. The data may not be shipped: EMBTABLES_DATA names a folder with ml1m/.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks._harness import ctr

GOAL = 0.898


def main() -> None:
    args = _harness.parser(__doc__).parse_args()
    data = ctr.data_folder("ml1m")
    seeds = 1 if args.quick else 3
    reports: dict[str, list[dict[str, Any]]] = {"dcnv2": [], "deepfm": []}
    with tempfile.TemporaryDirectory() as runs:
        for seed in range(seeds):
            changes = [f"data.path={data / 'ml1m'}", f"train.seed={seed}", f"data.split.seed={seed}"]
            changes += ["train.epochs=1"] if args.quick else []
            commands = {n: ctr.train_command(f"examples/movielens/{n}.yaml", Path(runs), *changes) for n in reports}
            for name, found in _harness.interleave(commands, 1, timeout_seconds=3600).items():
                reports[name] += found
    measured = ", ".join(f"{name} {ctr.mean(found, 'auc'):.4f}" for name, found in reports.items())
    text = (
        ctr.seeds_table(reports, ["auc", "log_loss", "gauc"])
        + f"\n\nMean and range over {seeds} seeds (split and training). "
        f"Goal: mean test AUC {GOAL}; measured {measured}."
    )
    _harness.finish("movielens", "MovieLens-1M", reports, text, args)


if __name__ == "__main__":
    main()
