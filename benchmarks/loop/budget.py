"""Versions with a budget of bytes: what servers lose that get rows that moved most first, and dense weights rarely.

online_retail as in `benchmarks.online`: trained on the days before 1 November 2011, then replayed, a version every
20,480 rows. Rows are scored with the versions as servers read them, each with the newest one that was published before
it came. All contenders train alike: only what their versions hold differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks.loop.logs import LOGS
from benchmarks.online import ran

BATCH, SYNC_ROWS = 256, 20_480
CONTENDERS: Mapping[str, Mapping[str, int]] = {
    "whole": {},
    "256 KiB of rows": {"max_delta_bytes": 256 << 10},
    "64 KiB of rows": {"max_delta_bytes": 64 << 10},
    "16 KiB of rows": {"max_delta_bytes": 16 << 10},
    "dense weights every 10th time": {"dense_every": 10},
    "64 KiB, dense every 10th time": {"max_delta_bytes": 64 << 10, "dense_every": 10},
}


def batches(run: Path) -> Iterator[Any]:
    """The batches of the replay, as it had them."""
    from embtables.pipelines.prepare.log_splits import with_prepared_data
    from embtables.pipelines.run_dir import RunDir
    from embtables.pipelines.sources.epochs import LogEpochs
    from embtables.pipelines.sources.files.record import FilesRecord
    from embtables.pipelines.sources.open_log import open_log
    from embtables.pipelines.training import checkpoint
    from embtables.pipelines.training.learner import Learner
    from embtables.pipelines.training.run_content import run_content
    from embtables.shard.world import SingleRank

    opened = RunDir.open(run)
    config = with_prepared_data(opened.config(), shown=False)
    fitted = run_content(checkpoint.find_on_all_ranks(SingleRank(), opened.checkpoints, "last")[-1]).fitted
    epochs = LogEpochs(
        open_log(config, config.data, None),
        fitted,
        config.train.model_copy(update={"epochs": 1}),
        SingleRank(),
        needs=Learner(config).needs,
        epoch_rows=None,
        quarantine_dir=None,
        record=FilesRecord(None),
        part="test",
        in_order=True,
    )
    epoch = epochs.stretch(0, None)
    assert epoch is not None
    for item in epoch:
        yield item.batch


def judged(run: Path) -> dict[str, Any]:
    """AUC and log loss of the replayed rows as servers would have scored them, and bytes of versions."""
    import torch
    from sklearn.metrics import log_loss, roc_auc_score

    from embtables.serving.versions.checks import ValueLimits
    from embtables.serving.versions.load import load_snapshot, read_delta
    from embtables.state.folder.version_folder import StateFolder

    state = StateFolder(run / "checkpoints")
    # A snapshot that the chain became holds what the delta before it does.
    versions = [v for n in state.sequences("serving") if (v := state.manifest("serving", n)).same_as is None]
    loaded, following = load_snapshot(state, versions[0], ValueLimits()), iter(versions[1:-1])
    scores, labels, rows, size = list[torch.Tensor](), list[torch.Tensor](), 0, list[int]()
    for batch in batches(run):
        if rows >= SYNC_ROWS:
            rows, version = 0, next(following)
            loaded.apply(read_delta(state, loaded, version))
            size.append(sum(file.bytes for file in version.files.values()))
        outputs = loaded.served.scorer.outputs(batch)
        scores.append(torch.sigmoid(outputs).reshape(-1))
        labels.append(batch.labels.reshape(-1))
        rows += batch.num_rows
    truth, said = torch.cat(labels).numpy(), torch.cat(scores).double().numpy()
    return {
        "auc": float(roc_auc_score(truth, said)),
        "log_loss": float(log_loss(truth, said)),
        "rows": len(truth),
        "bytes": sum(size) / len(size),
        "versions": len(size),
    }


def contend(name: str, batch_run: str, folder: Path) -> dict[str, Any]:
    """A replay whose versions are as the contender's, judged."""
    log = LOGS["online_retail"]
    publish = json.dumps({"keep": 1000, **CONTENDERS[name]})
    sets = [*log.overrides, f"train.runs_dir={folder}/runs", "train.threads=1", f"train.batch_size={BATCH}"]
    sets += [f"publish={publish}", "online.part=test", f"online.sync_rows={SYNC_ROWS}"]
    sets += ["online.checkpoint_every_syncs=1000000"]
    words = [word for each in sets for word in ("--set", each)]
    report = ran("online", str(log.write(folder)), "--replay", "--from", batch_run, *words)
    return judged(Path(report["run_dir"]))


def text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The table."""
    whole = found["whole"]
    lines = [
        [
            f"{of['auc'] - whole['auc']:+.4f}",
            f"{of['bytes'] / whole['bytes']:.2f}",
            name,
            *(f"{of[figure]:.4f}" for figure in ("auc", "log_loss")),
            f"{of['bytes'] / 1024:,.0f}",
        ]
        for name, of in found.items()
    ]
    head = ["AUC gain", "bytes", "versions", "AUC", "log loss", "KiB of a version"]
    about = f"{whole['rows']:,} rows, {whole['versions']} versions, batches of {BATCH}, one seed."
    return f"{_harness.table(head, lines)}\n\n{about}"


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--contender", nargs=3, metavar=("NAME", "RUN", "FOLDER"), help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.contender is not None:
        name, run, place = args.contender
        print(json.dumps(contend(name, run, Path(place))))
        return
    with tempfile.TemporaryDirectory() as place:
        log, folder = LOGS["online_retail"], Path(place)
        sets = [*log.overrides, f"train.runs_dir={folder}/runs", "train.threads=1", "publish=null"]
        sets += ["train.max_steps=200"] if args.quick else []
        batch = ran("train", str(log.write(folder)), *[w for each in sets for w in ("--set", each)])
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.loop.budget", "--contender"]
        names = list(CONTENDERS)[:: 2 if args.quick else 1]
        commands = {name: [*command, name, batch["run_dir"], place] for name in names}
        runs = _harness.interleave(commands, 1, timeout_seconds=3600)
        found = {name: of[0] for name, of in runs.items()}
    _harness.finish("budget", "Versions with a budget", found, text(found), args, "loop.budget")


if __name__ == "__main__":
    main()
