"""Training: it learns, repeats itself, survives kills and full disks, and refuses what does not fit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from embtables.errors import ConfigError, DataError, StateError
from embtables.inputs.features import Needs
from embtables.models.task import Pointwise
from embtables.pipelines.call.runs import evaluate
from embtables.pipelines.config import ConstantSchedule, CosineSchedule, EpochDecaySchedule, RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.trained.predict import predict
from embtables.pipelines.trained.run import PartName
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.hooks.checkpoints import Checkpoints
from embtables.pipelines.training.learner import Learner, learning_rate_factor
from embtables.pipelines.training.loop import TrainLoop
from embtables.pipelines.training.run_content import RunState
from embtables.pipelines.training.signals import InterruptedRunError
from embtables.pipelines.training.train import resume, train
from embtables.schema import to_yaml
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.read.find import find
from tests.contents import Arrays, flat, same

Make = Callable[..., RunConfig]


def tensors(report: dict[str, Any], which: checkpoint.Which = "last") -> Arrays:
    """Everything that a run's checkpoint holds."""
    run = RunDir.open(Path(report["run_dir"]))
    learner = Learner(run.config())
    checkpoint.load(run.checkpoints, find(run.checkpoints, which), learner)
    return {**flat(learner.tables), **checkpoint.dense_arrays(learner)}


@pytest.mark.parametrize("kind", ["lr", "fm", "deepfm", "dcnv2"])
@pytest.mark.parametrize("row_store", ["host", "fbgemm", "reference"])
def test_every_model_learns_on_every_row_store(make_config: Make, kind: str, row_store: str) -> None:
    model = {"kind": kind} if kind in ("lr", "fm") else {"kind": kind, "hidden_sizes": [16]}
    config = make_config(**{"model": model, "train.row_store": row_store, "train.epochs": 6})
    report = train(config, shown=False)
    assert report["auc"] > 0.7
    assert report["part"] == "test"
    assert report["rows"] == 6 * (1800 - report["evaluated_rows"] - _rows(report, "validation"))


def _rows(report: dict[str, Any], part: str) -> int:
    lines = [json.loads(line) for line in (Path(report["run_dir"]) / "metrics.jsonl").read_text().splitlines()]
    return next(int(line["rows"]) for line in lines if line["part"] == part)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.shuffle": None}, "table 'user': ttl_seconds needs one pass over the log, but train.epochs is 2"),
        ({"train.epochs": 1}, "table 'user': ttl_seconds needs the log in order of time, but data.shuffle is set"),
        ({"data.shuffle": None, "train.epochs": 1, "event_time": None}, "table 'user': ttl_seconds needs event_time"),
    ],
)
def test_a_ttl_needs_one_pass_in_order_of_time(make_config: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(tables=COLLISIONLESS, **changes)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(make_config: Make) -> None:
    first, second = (train(make_config(), shown=False) for _ in range(2))
    other = train(make_config(**{"train.seed": 1}), shown=False)
    assert same(tensors(first), tensors(second))
    assert first["auc"] == second["auc"]
    assert not same(tensors(first), tensors(other))


ROWS = {"dim": 8, "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.1}}
# Expiry, waiting keys and the limit on rows are all at work: 40 users, 30 items and 9 tags, an event a minute.
COLLISIONLESS = [
    {"name": "user", **ROWS, "ttl_seconds": 1200, "max_clock_step_seconds": 6000},
    {"name": "item", **ROWS, "admission": {"kind": "min_count", "count": 2}, "max_rows": 25, "cold_row": "trained"},
]


@pytest.mark.parametrize("stop_at", [3, 11, 14])
@pytest.mark.parametrize("row_store", ["host", "fbgemm", "reference", "host collisionless", "host normalised"])
def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, stop_at: int, row_store: str
) -> None:
    changes: dict[str, Any] = {
        "train.row_store": row_store.partition(" ")[0],
        "train.schedule": {"kind": "cosine", "warmup_steps": 4},
        "train.clip_norm": 0.1,
    }
    if row_store == "host normalised":
        changes |= {"model.normalisation": "batch_norm", "model.activation": "prelu", "train.checkpoint_every_steps": 2}
        changes |= {"tables.0.optimizer.weight_decay": {"kind": "dense", "rate": 0.1}}
    if row_store == "host collisionless":
        changes |= {"tables": COLLISIONLESS, "data.shuffle": None, "train.epochs": 1, "train.batch_size": 50}
    whole = train(make_config(**changes), shown=False)
    step = TrainLoop._step

    def stopping(loop: TrainLoop, item: Any, of_all: Any) -> torch.Tensor:
        loss = step(loop, item, of_all)
        if loop.state.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    monkeypatch.setattr(TrainLoop, "_step", stopping)
    with pytest.raises(InterruptedRunError, match=rf"SIGTERM at step {stop_at}, saved; .*--resume") as raised:
        train(make_config(**changes), shown=False)
    monkeypatch.undo()
    run = RunDir.open(Path(str(raised.value).rsplit(" ", 1)[1]))
    report = resume(run, shown=False)
    assert same(tensors(whole), tensors(report))
    assert {k: report[k] for k in ("auc", "log_loss", "steps", "rows")} == {
        k: whole[k] for k in ("auc", "log_loss", "steps", "rows")
    }
    counts = [{name: counted(table) for name, table in of["tables"].items()} for of in (whole, report)]
    assert counts[0] == counts[1]
    if row_store == "host collisionless":
        for name in ("admitted", "evicted", "cold_reads"):
            assert sum(table[name] for table in counts[0].values()) > 0


def counted(table: dict[str, int]) -> dict[str, int]:
    """What was counted of a table, however far the sweep has come: that decides when what is past its ttl goes."""
    found = {name: count for name, count in table.items() if name != "bytes"}
    for held, expired in (("rows", "expired"), ("waiting", "waiting_expired")):
        if expired in found:
            found[expired] += found.pop(held)
    return found


@pytest.mark.slow
def test_a_killed_process_resumes_from_its_last_checkpoint(make_config: Make, tmp_path: Path) -> None:
    changes = {"train.checkpoint_every_steps": 2, "train.epochs": 400}
    (tmp_path / "config.yaml").write_text(to_yaml(make_config(**changes)))
    command = [
        sys.executable,
        "-m",
        "embtables",
        "train",
        str(tmp_path / "config.yaml"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        run = _await_checkpoint(tmp_path / "runs", process)
    finally:
        process.kill()
        process.wait()
    step = find(run / "checkpoints", "last")[-1].content["state"]["step"]
    epochs = step // 11 + 2
    report = resume(RunDir.open(run), (f"train.epochs={epochs}",), shown=False)
    whole = train(make_config(**{**changes, "train.epochs": epochs}), shown=False)
    assert step > 0
    assert same(tensors(whole), tensors(report))


def _await_checkpoint(runs: Path, process: subprocess.Popen[bytes]) -> Path:
    """Waits, by the file system's own events, until a run has its first checkpoint."""
    waiting = threading.Event()
    while process.poll() is None:
        found = list(runs.glob("*/checkpoints/manifests/resume-*.json"))
        if found:
            return found[0].parents[2]
        waiting.wait(0.05)
    raise AssertionError("the process ended before its first checkpoint")


def test_early_stopping_keeps_the_best_checkpoint(make_config: Make) -> None:
    stopping = {"metric": "log_loss", "patience": 2}
    wild = {"kind": "sgd", "learning_rate": 30.0}
    changes = {"train.epochs": 40, "train.early_stopping": stopping, "tables.0.optimizer": wild}
    report = train(make_config(**changes), shown=False)
    lines = [json.loads(line) for line in (Path(report["run_dir"]) / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["log_loss"] for line in lines if line.get("part") == "validation"}
    best = min(losses, key=lambda s: losses[s])
    assert report["best_step"] == best
    assert report["epochs"] < 40
    assert len([s for s in losses if s > best]) == 2
    checked = evaluate(report["run_dir"], "validation", shown=False)
    assert checked["log_loss"] == pytest.approx(losses[best], rel=1e-6)


def test_evaluation_reports_slices_baselines_groups_and_parts(make_config: Make, log_dir: Path) -> None:
    evaluation = {
        "group_column": "item",
        "slices": [{"name": "cheap", "where": ["price < 1"]}],
        "baseline_columns": ["price"],
        "batch_size": 100,
    }
    report = train(make_config(**{"evaluate": evaluation}), shown=False)
    run = Path(report["run_dir"])
    whole = evaluate(run, "all", checkpoint="last", shown=False)
    assert whole["rows"] == 1800
    table = pq.read_table(log_dir)
    assert whole["baselines"]["price"]["auc"] == pytest.approx(roc_auc_score(table["label"], table["price"]), abs=1e-9)
    assert whole["slices"]["cheap"]["rows"] == int((table["price"].to_numpy() < 1).sum())
    assert 0.0 < whole["gauc"] < 1.0
    parts: tuple[PartName, ...] = ("train", "validation", "test")
    rows = [evaluate(run, part, checkpoint="last", shown=False)["rows"] for part in parts]
    assert sum(rows) == 1800


def test_predictions_are_the_evaluated_scores_in_order(make_config: Make, log_dir: Path, tmp_path: Path) -> None:
    report = train(make_config(**{"data.where": ["price < 5"]}), shown=False)
    loaded = load_run(RunDir.open(Path(report["run_dir"])))
    source = tmp_path / "new.parquet"
    pq.write_table(pq.read_table(log_dir).drop_columns(["label"]), source)
    output = tmp_path / "scores.parquet"
    done = predict(loaded, str(source), output, shown=False)
    scores = pq.read_table(output)
    assert done["rows"] == scores.num_rows == 1800
    assert scores.column("row").to_pylist() == list(range(1800))
    assert scores.schema.names == ["row", "user", "item", "tags", "price", "time", "score"]
    labels = pq.read_table(log_dir).column("label").to_numpy()
    kept = scores.column("price").to_numpy() < 5
    whole = evaluate(report["run_dir"], "all", shown=False)
    assert roc_auc_score(labels[kept], scores.column("score").to_numpy()[kept]) == pytest.approx(whole["auc"], abs=1e-9)
    few = predict(loaded, str(log_dir), output, columns=["row"], shown=False)
    assert pq.read_table(output).schema.names == ["row", "score"]
    assert few["rows"] == 1800
    with pytest.raises(ConfigError, match="has a column 'score' already"):
        predict(loaded, str(log_dir), output, columns=["score"], shown=False)
    with pytest.raises(DataError, match="column nope: is missing"):
        predict(loaded, str(log_dir), output, columns=["nope"], shown=False)


def test_several_labels_and_sample_weights(make_config: Make, log_dir: Path) -> None:
    labels = [{"column": "label"}, {"column": "price", "name": "dear", "positive_above": 1.0}]
    report = train(make_config(**{"labels": labels, "sample_weight": "price", "dense": []}), shown=False)
    assert set(report["labels"]) == {"label", "dear"}
    assert report["labels"]["label"]["auc"] == report["auc"]
    assert report["labels"]["dear"]["positives"] > 0


def test_training_and_evaluation_read_what_the_task_needs(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task without sample weights: those of the log, which are no weights at all, are not looked at."""
    plain = make_config()
    weighted = plain.model_copy(update={"sample_weight": "no_such_column"})
    with pytest.raises(DataError, match="column no_such_column: is missing"):
        train(weighted, shown=False)
    monkeypatch.setattr(Pointwise, "needs", lambda task, schema: Needs(weight=False))
    reports = [train(config, shown=False) for config in (plain, weighted)]
    assert same(tensors(reports[0]), tensors(reports[1]))
    evaluated = [evaluate(report["run_dir"], "test", shown=False) for report in reports]
    assert evaluated[0]["auc"] == evaluated[1]["auc"]


def test_a_checkpoint_of_another_schema_names_what_differs(make_config: Make) -> None:
    report = train(make_config(**{"train.epochs": 1}), shown=False)
    run = RunDir.open(Path(report["run_dir"]))
    with pytest.raises(StateError, match=r"tables\.0\.dim: 16 here, 8 there"):
        resume(run, ("tables.user.dim=16",), shown=False)
    with pytest.raises(StateError, match=r"features\.2\.max_length: 5 here, 3 there"):
        load_run(run, overrides=("features.tags.max_length=5",))
    with pytest.raises(StateError, match=r"train\.seed: 7 here, 0 there"):
        resume(run, ("train.seed=7",), shown=False)


def test_more_epochs_go_on_from_a_finished_run(make_config: Make) -> None:
    report = train(make_config(**{"train.epochs": 1}), shown=False)
    longer = resume(RunDir.open(Path(report["run_dir"])), ("train.epochs=2",), shown=False)
    whole = train(make_config(**{"train.epochs": 2}), shown=False)
    assert longer["steps"] == whole["steps"] == 2 * report["steps"]
    assert same(tensors(longer), tensors(whole))


def test_damaged_checkpoints_are_refused(make_config: Make) -> None:
    report = train(make_config(**{"train.epochs": 1}), shown=False)
    run = RunDir.open(Path(report["run_dir"]))
    newest = find(run.checkpoints, "last")[-1]
    for name in newest.files:
        file = run.checkpoints / "versions" / newest.folder / name
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(bytes(damaged))
        with pytest.raises(StateError, match=rf"{name}: is damaged"):
            resume(run, shown=False)
        file.write_bytes(whole)
    manifest = run.checkpoints / "manifests" / f"resume-{newest.sequence:010d}.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"rows":', b'"rowz":', 1))
    with pytest.raises(StateError, match="is damaged: its checksum"):
        resume(run, shown=False)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(StateError, match=r"there is no last checkpoint"):
        resume(run, shown=False)


def test_on_a_full_disk_training_goes_on_and_the_former_checkpoint_stays(
    make_config: Make, small_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = small_disk / "ballast"
    save = Checkpoints.save

    def filling(checkpoints: Checkpoints, state: RunState, pin: str | None = None) -> None:
        checkpoints.chain.wait()
        room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        if 4 <= state.step <= 8:
            ballast.write_bytes(bytes(max(0, room - 4096)))
        save(checkpoints, state, pin)
        checkpoints.chain._note(checkpoints.chain._harvest())
        checkpoints.report_failures()
        ballast.unlink(missing_ok=True)

    monkeypatch.setattr(Checkpoints, "save", filling)
    changes = {"train.checkpoint_every_steps": 2, "train.runs_dir": str(small_disk), "train.epochs": 1}
    report = train(make_config(**changes), shown=False)
    said = capsys.readouterr().err
    assert "cannot write version resume-2: No space left on device; earlier versions are intact" in said
    assert "training goes on" in said
    monkeypatch.undo()
    whole = train(make_config(**{**changes, "train.runs_dir": str(small_disk.parent)}), shown=False)
    assert same(tensors(report), tensors(whole))


def test_a_best_checkpoint_that_could_not_be_written_is_reported_and_not_mistaken(
    make_config: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(writer: LeaseHolder, pin: str, version: Any) -> None:
        raise StateError(f"cannot pin {version.name}: No space left on device")

    monkeypatch.setattr(LeaseHolder, "pin", failing)
    # The rate grows too large for the later epochs to be the best.
    changes = {"train.epochs": 6, "tables.0.optimizer": {"kind": "sgd", "learning_rate": 30.0}}
    report = train(make_config(**changes), shown=False)
    said = capsys.readouterr().err
    assert "cannot pin resume-1: No space left on device; training goes on" in said
    assert "was not written; the last is evaluated" in said
    assert report["best_step"] == report["steps"]


def test_two_processes_do_not_write_one_run(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = TrainLoop._step

    def meddling(loop: TrainLoop, item: Any, of_all: Any) -> torch.Tensor:
        if loop.state.step == 3:
            (run,) = (tmp_path / "runs").iterdir()
            with (
                pytest.raises(StateError, match=rf"is being written by process {os.getpid()}"),
                LeaseHolder(StateFolder(run / "checkpoints")),
            ):
                pass
        return step(loop, item, of_all)

    monkeypatch.setattr(TrainLoop, "_step", meddling)
    train(make_config(**{"train.epochs": 1}), shown=False)


def test_only_the_newest_and_the_best_checkpoint_stay(make_config: Make) -> None:
    report = train(make_config(**{"train.epochs": 9, "train.checkpoint_every_steps": 1}), shown=False)
    folder = Path(report["run_dir"]) / "checkpoints"
    state = StateFolder(folder)
    numbers, best = state.sequences("resume"), state.pinned("best")
    assert best is not None
    wanted = {m.sequence for n in (*numbers[-2:], best[1]) for m in state.chain("resume", n)}
    assert set(numbers) == wanted
    assert numbers[-1] > 80
    assert len(list((folder / "versions").iterdir())) == len(numbers)
    assert len(find(folder, "last")) > 1  # deltas to a snapshot


def test_learning_rate_schedules() -> None:
    cosine = CosineSchedule(warmup_steps=2, final_factor=0.1)
    factors = [learning_rate_factor(cosine, step, 0, 12) for step in range(13)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[7] == pytest.approx(0.55)
    assert factors[12] == pytest.approx(0.1)
    assert all(np.diff(factors[2:]) < 0)
    decay = EpochDecaySchedule(factor=0.5)
    assert [learning_rate_factor(decay, 99, epoch, None) for epoch in range(3)] == [1.0, 0.5, 0.25]
    assert learning_rate_factor(ConstantSchedule(), 5, 1, None) == 1.0
    with pytest.raises(ConfigError, match="cosine"):
        learning_rate_factor(cosine, 5, 0, None)


@pytest.mark.parametrize("normalisation", [None, "batch_norm", "layer_norm"])
def test_bf16_autocast_trains(make_config: Make, normalisation: str | None) -> None:
    changes = {"train.precision": "bf16", "train.epochs": 6, "model.normalisation": normalisation}
    report = train(make_config(**changes), shown=False)
    assert report["auc"] > 0.7
    assert all(v.dtype != torch.bfloat16 for v in tensors(report).values())


def test_batches_of_one_row_train_with_batch_norm(make_config: Make) -> None:
    changes = {"model.normalisation": "batch_norm", "train.batch_size": 1, "train.max_steps": 3}
    report = train(make_config(**changes), shown=False)
    assert torch.equal(torch.from_numpy(tensors(report)["dense/deep.net.1.running_mean"]), torch.zeros(16))
    assert report["log_loss"] < 1.0


def test_an_empty_training_part_is_reported(make_config: Make) -> None:
    with pytest.raises(DataError, match="the train part holds no rows"):
        train(make_config(**{"data.where": ["price < -1"]}), shown=False)


def test_figures_that_a_full_disk_does_not_take_come_when_there_is_room(
    make_config: Make, small_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, ballast = TrainLoop._step, small_disk / "ballast"

    def filling(loop: TrainLoop, item: Any, of_all: Any) -> torch.Tensor:
        if loop.state.step == 0:
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(512))
        if loop.state.step == 8:
            ballast.unlink()
        return step(loop, item, of_all)

    monkeypatch.setattr(TrainLoop, "_step", filling)
    changes = {"train.log_every_steps": 1, "train.runs_dir": str(small_disk), "train.epochs": 1}
    report = train(make_config(**changes), shown=False)
    said = capsys.readouterr().err
    assert said.count("No space left on device; figures are kept until there is room, training goes on") == 1
    lines = [json.loads(line) for line in (Path(report["run_dir"]) / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["part"] == "train"] == list(range(1, report["steps"] + 1))
