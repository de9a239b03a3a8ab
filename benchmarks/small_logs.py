"""DCN-V2 on small logs with few ids, MovieLens-100k and 1M, beside FuxiCTR 2.3.10 with batch normalisation: test AUC.

All read the same split files, train a net of the same widths with batches of the same size, and stop early by the AUC
of the validation part; each in a process of its own. A seed decides split and training. FuxiCTR's net has batch
normalisation and its L2 term reaches every embedding in every step. The data may not be shipped: EMBTABLES_DATA names a
folder with ml100k/ and ml1m/.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks._harness import ctr
from benchmarks.ctr_peers import CONFIG, PEER_SETTINGS, overrides, peer_command
from benchmarks.peers.environment import PEERS, fuxictr_python
from benchmarks.peers.split import write_split

BATCH = {"ml100k": 1024, "ml1m": 4096}
EPOCHS = 30
PEER = "FuxiCTR, batch_norm, L2"
NORMALISED = ["model.normalisation=batch_norm"]
TABLES = ("user", "movie", "profile", "zip")
DENSE = [f"tables.{table}.optimizer.weight_decay={{kind: dense, rate: 0.02}}" for table in TABLES]
OURS: dict[str, list[str]] = {
    "embtables, as the example": [],
    "embtables, batch_norm": NORMALISED,
    "embtables, batch_norm, dense decay": [*NORMALISED, *DENSE],
}
Reports = dict[str, list[dict[str, Any]]]


def commands(data: str, split: Path, seed: int, epochs: int, python: Path, runs: Path) -> dict[str, list[str]]:
    """One command line for each contender."""
    common = [*overrides(split, seed), f"train.batch_size={BATCH[data]}", f"train.epochs={epochs}"]
    found = {name: ctr.train_command(CONFIG, runs, *common, *changes) for name, changes in OURS.items()}
    settings = PEER_SETTINGS | {
        **{"batch_size": BATCH[data], "batch_norm": True, "data": str(split), "seed": seed, "epochs": epochs},
        "folder": str(runs / f"fuxictr-{data}-{seed}"),
    }
    return found | {PEER: peer_command(python, settings)}


def markdown(reports: dict[str, Reports], seeds: dict[str, int]) -> str:
    parts = []
    for data, of in reports.items():
        table = ctr.seeds_table(of, ["auc", "log_loss"])
        differences = ", ".join(
            f"{name.removeprefix('embtables, ')} {ctr.mean(of[name], 'auc') - ctr.mean(of[PEER], 'auc'):+.4f}"
            for name in OURS
        )
        parts.append(
            f"### {data}\n\n{table}\n\n{seeds[data]} seeds (split and training), batch {BATCH[data]}. "
            f"Mean test AUC above FuxiCTR's: {differences}."
        )
    return "\n\n".join(parts)


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--seeds", type=int, default=3, help="seeds of MovieLens-1M; MovieLens-100k has twice as many")
    args = options.parse_args()
    folder = ctr.data_folder("ml100k", "ml1m")
    python = fuxictr_python()
    seeds = {"ml100k": 1, "ml1m": 1} if args.quick else {"ml100k": 2 * args.seeds, "ml1m": args.seeds}
    reports: dict[str, Reports] = {data: {} for data in BATCH}
    with tempfile.TemporaryDirectory() as runs:
        for data in BATCH:
            for seed in range(seeds[data]):
                split = PEERS / f"{data}-{seed}"
                write_split(folder / data, split, seed)
                lines = commands(data, split, seed, 2 if args.quick else EPOCHS, python, Path(runs))
                for name, done in _harness.interleave(lines, 1, timeout_seconds=3600).items():
                    reports[data].setdefault(name, []).extend(done)
    _harness.finish("small_logs", "Small logs", {"reports": reports}, markdown(reports, seeds), args)


if __name__ == "__main__":
    main()
