"""embtables against FuxiCTR 2.3.10: DCN-V2 on MovieLens-1M, same split files, sizes, batch, threads; own environments.

Both train two epochs from the same parquet files; samples/s are those of training with reading, evaluations apart
(FuxiCTR: the second epoch, so that its start-up does not count against it). AUC is that of runs with early stopping.
FuxiCTR's loader reads npz, its faster format; its encoding pass before training is not counted. EMBTABLES_DATA names a
folder with ml1m/.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _ctr, _harness
from benchmarks.peers.split import write_split

VENV = _harness.ROOT / "build" / "peers" / "fuxictr-venv"
CONFIG = "examples/movielens/dcnv2.yaml"
THREADS = 2


def peer_python() -> str:
    """The interpreter of the peer's environment, made from its lock if missing."""
    python = VENV / "bin" / "python"
    if not python.exists():
        requirements = _harness.ROOT / "requirements"
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        torch = ["bash", str(requirements / "install-torch.sh"), str(python)]
        index = {"TORCH_INDEX": "https://download.pytorch.org/whl/cpu"}
        subprocess.run(torch, check=True, env={**index, **os.environ})
        lock = ["-m", "pip", "install", "-q", "--no-deps", "-r", str(requirements / "peers-fuxictr.txt")]
        subprocess.run([str(python), *lock], check=True)
    return str(python)


def our_command(split: Path, runs: Path, epochs: int, *changes: str) -> list[str]:
    """The movielens example on the split files."""
    return _ctr.train_command(
        CONFIG,
        runs,
        f"data.path={split}",
        "data.files=**/*.parquet",
        "data.join=[]",
        "data.where=[]",
        "data.split={kind: column, column: part}",
        "labels=[{column: label}]",
        f"train.epochs={epochs}",
        f"train.threads={THREADS}",
        *changes,
    )


def peer_command(python: str, split: Path, folder: Path, epochs: int) -> list[str]:
    """FuxiCTR's loop with the same model and sizes; its own L2 and Adam."""
    settings: dict[str, Any] = {
        "data": str(split),
        "folder": str(folder),
        "data_format": "npz",
        "num_workers": 1,
        "dim": 16,
        "hidden_sizes": [256, 256, 256],
        "num_cross_layers": 3,
        "dropout": 0.2,
        "embedding_l2": 1e-4,
        "learning_rate": 1e-3,
        "batch_size": 4096,
        "epochs": epochs,
        "seed": 0,
        "threads": THREADS,
    }
    return [python, "-W", "ignore", "-m", "benchmarks.peers.fuxictr_dcnv2", json.dumps(settings)]


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--seeds", type=int, default=3, help="how many seeds (split and training)")
    args = options.parse_args()
    data = os.environ.get("EMBTABLES_DATA")
    if data is None:
        sys.exit("EMBTABLES_DATA is not set: it names a folder with ml1m/")
    python = peer_python()
    split = _harness.ROOT / "build" / "peers" / "split-0"
    write_split(Path(data) / "ml1m", split, 0)
    repeats, full = (1, 2) if args.quick else (3, 20)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speed = {
            "fuxictr, fp32": peer_command(python, split, folder / "fuxi", 2),
            "embtables, fp32": our_command(split, folder, 2),
            "embtables, bf16": our_command(split, folder, 2, "train.precision=bf16"),
        }
        rates = _harness.interleave(speed, repeats)
        best = {
            "fuxictr, fp32": peer_command(python, split, folder / "fuxi-full", full),
            "embtables, fp32": our_command(split, folder, full),
        }
        aucs = _harness.interleave(best, 1, timeout_seconds=3600)
    _harness.finish("ctr_peers", "DCN-V2 against FuxiCTR", {"rates": rates, "auc": aucs}, _report(rates, aucs), args)


def _report(rates: dict[str, list[dict[str, Any]]], aucs: dict[str, list[dict[str, Any]]]) -> str:
    spreads = {name: _harness.Spread.of([r["rows_per_second"] for r in runs]) for name, runs in rates.items()}
    peer = spreads["fuxictr, fp32"].median
    rows = []
    for name, spread in spreads.items():
        auc = f"{aucs[name][0]['auc']:.4f}" if name in aucs else "-"
        samples = f"{spread.median:,.0f} ({spread.low:,.0f}-{spread.high:,.0f})"
        rows.append([name, f"{spread.median / peer:.2f}", samples, auc])
    table = _harness.table(["contender", "of FuxiCTR", "training samples/s", "test AUC"], rows)
    fp32, bf16 = (spreads[f"embtables, {kind}"].median / peer for kind in ("fp32", "bf16"))
    ours, theirs = aucs["embtables, fp32"][0]["auc"], aucs["fuxictr, fp32"][0]["auc"]
    return (
        f"{table}\n\nMedian of {len(rates['fuxictr, fp32'])} interleaved runs of two epochs, {THREADS} threads. AUC "
        f"with early stopping, one seed. Goals: 1.5 in fp32 (measured {fp32:.2f}), 2.5 in bf16 (measured {bf16:.2f}; "
        f"this processor has bf16 instructions: {_has_bf16()}), "
        f"AUC at least the peer's - 0.001 (measured {ours - theirs:+.4f})."
    )


def _has_bf16() -> str:
    return "yes" if "avx512_bf16" in Path("/proc/cpuinfo").read_text() else "no"


if __name__ == "__main__":
    main()
