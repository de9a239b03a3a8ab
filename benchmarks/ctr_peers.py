"""DCN-V2 on MovieLens-1M against FuxiCTR 2.3.10: test AUC and training samples per second, reading included.

Both read the same split files (train, validation, test parquet of one seeded split) and train the same model with the
same batch size and threads, each in a process and an environment of its own, interleaved. A seed decides split and
training. FuxiCTR trains in fp32; it has no bf16. The data may not be shipped: EMBTABLES_DATA names a folder with ml1m/.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks._harness import ctr
from benchmarks.peers.environment import PEERS, fuxictr_python
from benchmarks.peers.split import write_split

CONFIG = "examples/movielens/dcnv2.yaml"
THREADS = 2
AUC_MARGIN = 0.001
SPEED_GOALS = {"fp32": 1.5, "bf16": 2.5}
OURS, OURS_BF16, PEER = "embtables fp32", "embtables bf16", "FuxiCTR fp32"
PEER_SETTINGS: dict[str, Any] = {
    "threads": THREADS,
    "batch_size": 4096,
    "dim": 16,
    "hidden_sizes": [256, 256, 256],
    "num_cross_layers": 3,
    "dropout": 0.2,
    "learning_rate": 1e-3,
    "embedding_l2": 1e-4,
    "data_format": "npz",  # the faster of its two loaders
    "num_workers": 1,
}
Reports = dict[str, list[dict[str, Any]]]


def overrides(split: Path, seed: int) -> list[str]:
    """What makes the example read the split files."""
    return [
        f"data.path={split}",
        "data.files=**/*.parquet",
        "data.join=[]",
        "data.where=[]",
        "data.split={kind: column, column: part}",
        "labels=[{column: label, name: liked}]",
        f"train.seed={seed}",
        f"train.threads={THREADS}",
    ]


def peer_command(python: Path, settings: dict[str, Any]) -> list[str]:
    """The command line of FuxiCTR, by the interpreter of its environment."""
    worker = [str(python), "-m", "benchmarks.peers.fuxictr_dcnv2", json.dumps(settings)]
    return ["env", "RAY_USAGE_STATS_ENABLED=0", *worker]


def commands(split: Path, seed: int, epochs: int, python: Path, runs: Path) -> dict[str, list[str]]:
    """One command line a contender. bf16 trains one epoch of the first seed: without bf16 instructions, minutes."""
    changes = overrides(split, seed)
    settings = {
        **PEER_SETTINGS,
        "data": str(split),
        "folder": str(runs / f"fuxictr-{seed}"),
        "seed": seed,
        "epochs": epochs,
    }
    found = {
        OURS: ctr.train_command(CONFIG, runs, *changes, f"train.epochs={epochs}"),
        PEER: peer_command(python, settings),
    }
    if seed == 0:
        found[OURS_BF16] = ctr.train_command(CONFIG, runs, *changes, "train.precision=bf16", "train.epochs=1")
    return found


def profiled(split: Path) -> dict[str, Any]:
    """The parts of a step of ours, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peers.step_profile", CONFIG, *overrides(split, 0)]
    return _harness.interleave({"profile": command}, 1)["profile"][0]


def ratios(reports: Reports) -> dict[str, float]:
    """Ours over the peer's: medians over the runs of samples per second; difference of mean AUC."""
    rates = {name: _harness.Spread.of([r["rows_per_second"] for r in runs]).median for name, runs in reports.items()}
    return {
        "fp32": rates[OURS] / rates[PEER],
        "bf16": rates[OURS_BF16] / rates[PEER],
        "auc": ctr.mean(reports[OURS], "auc") - ctr.mean(reports[PEER], "auc"),
    }


def markdown(reports: Reports, profile: dict[str, Any], seeds: int) -> str:
    found = ratios(reports)
    rows = [
        [f"training samples/s, {kind}", f"{found[kind]:.2f} x", f"{goal} x", _met(found[kind] >= goal)]
        for kind, goal in SPEED_GOALS.items()
    ]
    rows.append(["mean test AUC", f"{found['auc']:+.4f}", f"-{AUC_MARGIN}", _met(found["auc"] >= -AUC_MARGIN)])
    compared = _harness.table(["embtables against FuxiCTR in fp32", "measured", "goal", ""], rows)
    trained = {name: reports[name] for name in (OURS, PEER)}
    bf16 = _harness.Spread.of([run["rows_per_second"] for run in reports[OURS_BF16]])
    return (
        f"{compared}\n\n{ctr.seeds_table(trained, ['auc', 'log_loss'])}\n\n"
        f"Seeds (split and training): {seeds}; {THREADS} threads, batch 4096. FuxiCTR's rate leaves its first epoch "
        "out and starts from files it has encoded before; its early stopping and learning-rate reduction are its own. "
        f"embtables in bf16: {bf16.median:,.0f} rows/s over one epoch of the first seed, so without an AUC.\n\n"
        f"{_profile_text(profile)}"
    )


def _met(reached: bool) -> str:
    return "reached" if reached else "missed"


def _profile_text(profile: dict[str, Any]) -> str:
    parts = dict(profile["milliseconds"])
    step = parts.pop("step")
    rows = [[part, f"{ms:.1f}", f"{ms / step:.0%}"] for part, ms in sorted(parts.items(), key=lambda p: -p[1])]
    gflops = profile["matmul_gflops"]
    return (
        f"A step of embtables in fp32, batch ready in memory: {step:.1f} ms.\n\n"
        f"{_harness.table(['part', 'ms', 'share'], rows)}\n\n"
        f"A (4096, 256) x (256, 256) product reaches {gflops['float32']:,.0f} GFLOP/s in fp32 and "
        f"{gflops['bfloat16']:,.0f} in bf16 on this processor."
    )


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--seeds", type=int, default=3, help="how many seeds (split and training)")
    args = options.parse_args()
    data = ctr.data_folder("ml1m")
    python = fuxictr_python()
    seeds, epochs = (1, 2) if args.quick else (args.seeds, 20)
    reports: Reports = {}
    splits = [PEERS / f"ml1m-{seed}" for seed in range(seeds)]
    with tempfile.TemporaryDirectory() as runs:
        for seed, split in enumerate(splits):
            write_split(data / "ml1m", split, seed)
            lines = commands(split, seed, epochs, python, Path(runs))
            names = list(lines)
            turned = {name: lines[name] for name in (names if seed % 2 == 0 else names[::-1])}
            for name, done in _harness.interleave(turned, 1, timeout_seconds=3600).items():
                reports.setdefault(name, []).extend(done)
        profile = profiled(splits[0])
    result = {"ratios": ratios(reports), "reports": reports, "profile": profile}
    _harness.finish("ctr_peers", "CTR peers", result, markdown(reports, profile, seeds), args)


if __name__ == "__main__":
    main()
