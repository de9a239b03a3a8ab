"""The content of a run's versions: what scoring needs is in it, what no build wrote is refused in one sentence.

Versions are edited with the right checksum, as another build would write them, and read by the real commands.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from embtables.errors import DataError, StateError
from embtables.models.version_content import scoring_content
from embtables.pipelines.call.runs import evaluate
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.run_content import run_content
from embtables.pipelines.training.train import resume, train
from embtables.state.format import manifest as manifests
from embtables.state.format.checksums import Digests

GOLDEN = Path(__file__).parents[2] / "golden" / "run_3ce6b69"
Make = Callable[..., RunConfig]
Command = Callable[..., tuple[int, str, str]]
Change = Callable[[dict[str, Any]], object]
Tensors = dict[str, npt.NDArray[Any]]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of an earlier commit, finished."""
    shutil.copytree(GOLDEN, tmp_path / "run")
    return RunDir.open(tmp_path / "run")


def edit(run: RunDir, change: Change) -> None:
    """Changes the content of all versions, the checksums right."""
    for path in (run.checkpoints / "manifests").iterdir():
        fields = json.loads(path.read_bytes())
        del fields["checksum"]
        change(fields["content"])
        fields["schema_hash"] = manifests.hash_of(fields["content"].get("schema"))
        path.write_bytes(manifests.encode(fields))


def sets(path: str, value: Any) -> Change:
    """Sets a value by its dotted path."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        node: Any = content
        for part in parents:
            node = node[int(part) if part.isdigit() else part]
        node[last] = value

    return change


STRANGE: dict[str, tuple[Change, str]] = {
    "no state": (lambda c: c.pop("state"), "content.state: Field required"),
    "a list as state": (sets("state", []), "content.state: Input should be"),
    "another field in the state": (sets("state.stap", 1), "content.state: unknown key 'stap'; did you mean 'step'?"),
    "a step as text": (sets("state.step", "9"), "content.state.step: Input should be a valid integer (received '9')"),
    "a step with a point": (sets("state.step", 9.5), "content.state.step: Input should be a valid integer"),
    "a step below zero": (sets("state.step", -1), "content.state.step: Input should be greater than or equal to 0"),
    "a step beyond all": (sets("state.step", 2**70), "content.state.step: Input should be less than"),
    "true as an epoch": (sets("state.epoch", True), "content.state.epoch: Input should be a valid integer"),
    "seconds as a list": (sets("state.train_seconds", [1]), "content.state.train_seconds: Input should be a valid"),
    "finished as text": (sets("state.finished", "yes"), "content.state.finished: Input should be a valid boolean"),
    "a position as text": (sets("state.position", "here"), "content.state.position: Input should be a valid dict"),
    "started from a number": (sets("state.started_from", 3), "content.state.started_from: Input should be a valid"),
    "no transforms": (lambda c: c.pop("transforms"), "content.transforms: Field required"),
    "null transforms": (sets("transforms", None), "content.transforms: Input should be"),
    "other transforms": (sets("transforms.ranks", {}), "content.transforms: unknown key 'ranks'"),
    "a mean alone": (sets("transforms.moments.price", [0.5]), "content.transforms.moments.price.1: Field required"),
    "three moments": (sets("transforms.moments.price", [0.5, 1.0, 2.0]), "content.transforms.moments.price: Tuple"),
    "no deviation": (sets("transforms.moments.price", [0.5, 0]), "content.transforms.moments.price.1: Input should be"),
    "a mean as text": (sets("transforms.moments.price", ["0", 1.0]), "content.transforms.moments.price.0: Input shou"),
    "moments of no column": (sets("transforms.moments.cost", [0.5, 1.0]), "transforms.moments.cost: nothing in the"),
    "no moments of a column": (sets("transforms.moments", {}), "transforms.moments.price: is missing"),
    "quantiles of no column": (sets("transforms.quantiles.price", [1.0]), "transforms.quantiles.price: nothing in"),
    "falling quantiles": (sets("transforms.quantiles.price", [2.0, 1.0]), "quantiles.price: the values do not ascend"),
    "equal boundaries": (sets("transforms.buckets.item", [1.0, 1.0]), "buckets.item: a boundary is not above"),
    "a seed as text": (sets("seed", "0"), "content.seed: Input should be a valid integer"),
    "no schema": (lambda c: c.pop("schema"), "content.schema: Field required"),
    "a schema of nothing": (sets("schema", {}), "content.schema.tables: Field required"),
    "an option of another build": (sets("schema.tables.0.shape", 3), "content.schema.tables.0: unknown key 'shape'"),
    "a model of another build": (sets("schema.model.kind", "bert"), "content.schema.model: "),
    "an encoder of another build": (sets("schema.features.0.encoder.kind", "tt"), "content.schema.features.0.encoder"),
    "features of no table": (sets("schema.features.0.table", "x"), "content.schema: feature 'item' names table 'x'"),
    "a later format": (sets("format", 2), "content.format: Input should be 0 or 1 (received 2)"),
    "a field of another build": (sets("shards", 3), "content: unknown key 'shards'"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_content_of_another_build_is_one_sentence(run: RunDir, command: Command, tmp_path: Path, case: str) -> None:
    change, text = STRANGE[case]
    edit(run, change)
    output = tmp_path / "scores.parquet"
    for arguments in (
        ("train", "--resume", run.path),
        ("evaluate", run.path),
        ("predict", run.path, GOLDEN / "log.parquet", output),
        ("train", run.path / "config.yaml", "--from", run.path),
    ):
        status, out, err = command(*arguments)
        assert (status, out) == (1, ""), err
        assert len(err.splitlines()) == 1, err
        assert re.match(r"error: version resume-[34]: this build cannot read its content: content", err), err
        assert text in err
    assert not output.exists()


POSITIONS: dict[str, tuple[Any, str]] = {
    "no blocks": ({"epoch": 0, "partial": []}, "the reader's position is damaged: next_block: Field required"),
    "text": ({"epoch": 0, "next_block": "1", "partial": []}, "next_block: Input should be a valid integer"),
    "below zero": ({"epoch": 0, "next_block": -1, "partial": []}, "next_block: Input should be greater"),
    "a begun block to come": ({"epoch": 0, "next_block": 1, "partial": [[4, 1]]}, "the blocks must ascend"),
    "the same block twice": ({"epoch": 0, "next_block": 1, "partial": [[0, 1], [0, 2]]}, "the blocks must ascend"),
    "more blocks than there are": (
        {"epoch": 0, "next_block": 99, "partial": [[98, 5]]},
        "the log has 1 blocks, of which 99 were read: it is not the log that the run was trained on",
    ),
    "more rows than there are": (
        {"epoch": 0, "next_block": 1, "partial": [[0, 10**9]]},
        "block 0 of the log has 2,213 rows, of which 1,000,000,000 were read: it is not the log",
    ),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_a_position_that_no_reader_wrote_is_refused(run: RunDir, command: Command, case: str) -> None:
    position, text = POSITIONS[case]
    edit(run, sets("state.position", position))
    status, _, err = command("train", "--resume", run.path, "--set", "train.max_steps=18")
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert text in last
    assert "Traceback" not in err


def edit_tensors(run: RunDir, change: Callable[[Tensors], object]) -> None:
    """Changes the dense tensors of all versions, the checksums right."""
    for path in (run.checkpoints / "manifests").iterdir():
        fields = json.loads(path.read_bytes())
        del fields["checksum"]
        file = run.checkpoints / "versions" / fields["folder"] / "dense.safetensors"
        tensors = safetensors.numpy.load(file.read_bytes())
        change(tensors)
        raw = safetensors.numpy.save(tensors)
        file.write_bytes(raw)
        digests = Digests()
        digests.update(raw)
        written = asdict(digests.written())
        fields["files"]["dense.safetensors"] |= written | {"blocks": list(written["blocks"])}
        path.write_bytes(manifests.encode(fields))


def casts(prefix: str, dtype: Any) -> Callable[[Tensors], object]:
    def change(tensors: Tensors) -> None:
        name = min(name for name in tensors if name.startswith(prefix))
        tensors[name] = tensors[name].astype(dtype)

    return change


def puts(name: str, value: Any) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: np.asarray(value)})


def scales(name: str, factor: float) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: tensors[name] * np.float32(factor) - np.float32(1)})


TENSORS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "integers as weights": (casts("dense/", np.int64), "has dtype torch.int64, the model needs torch.float32"),
    "truths as weights": (casts("dense/", bool), "has dtype torch.bool, the model needs torch.float32"),
    "complex weights": (casts("dense/", np.complex64), "has dtype torch.complex64, the model needs torch.float32"),
    "doubles as moments": (casts("optimizer/0/exp_avg", np.float64), "'0/exp_avg' has dtype torch.float64"),
    "a step as integer": (casts("optimizer/0/step", np.int64), "'0/step' has dtype torch.int64"),
    "five steps": (puts("optimizer/0/step", np.zeros(5, np.float32)), "'0/step' has shape (5,), the model needs ()"),
    "steps below zero": (puts("optimizer/0/step", np.float32(-9)), "'0/step' has values that Adam never has"),
    "squares below zero": (scales("optimizer/0/exp_avg_sq", -1), "'0/exp_avg_sq' has values that Adam never has"),
    "a digit that is none": (puts("optimizer/\u00b2/step", np.float32(0)), "the dense optimizer has no '\u00b2/step'"),
    "a number without end": (puts(f"optimizer/{'9' * 5000}/step", np.float32(0)), "the dense optimizer has no '999"),
    "a short random state": (puts("random/torch", np.zeros(10, np.uint8)), "the random state has shape (10,)"),
    "a random state of zeros": (puts("random/torch", np.zeros(5056, np.uint8)), "torch does not take the saved random"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_no_run_wrote_are_refused(run: RunDir, command: Command, case: str) -> None:
    change, text = TENSORS[case]
    edit_tensors(run, change)
    commands: list[tuple[object, ...]] = [("train", "--resume", run.path, "--set", "train.max_steps=18")]
    if "weights" in case:
        commands += [("evaluate", run.path)]
    for arguments in commands:
        status, _, err = command(*arguments)
        assert status == 1, err
        assert err.splitlines()[-1].startswith("error: version resume-"), err
        assert text in err.splitlines()[-1]
        assert "Traceback" not in err


METRICS: dict[str, bytes] = {
    "bytes that are no text": b'{"step": 1}\n\xff\xfe\n{"step": 2}\n',
    "nested without end": b'{"step": 1}\n' + b"[" * 100_000 + b'\n{"step": 2}\n',
    "a number without end": b'{"step": 1}\n{"step": ' + b"9" * 5000 + b'}\n{"step": 2}\n',
    "a line cut short": b'{"step": 1}\n{"step": 2}\n{"ste',
    "a step as text": b'{"step": 1}\n{"step": "x"}\n{"step": 2}\n[]\n',
}


@pytest.mark.parametrize("case", METRICS)
def test_lines_of_metrics_that_no_run_wrote_are_dropped(run: RunDir, case: str) -> None:
    (run.path / "metrics.jsonl").write_bytes(METRICS[case])
    run.truncate_metrics(5)
    assert (run.path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_metrics_that_are_no_file_are_refused_without_waiting(run: RunDir) -> None:
    (run.path / "metrics.jsonl").unlink(missing_ok=True)
    os.mkfifo(run.path / "metrics.jsonl")
    with pytest.raises(StateError, match=r"metrics\.jsonl: is a named pipe, not a regular file"):
        run.truncate_metrics(5)


@pytest.mark.parametrize("text", ["[" * 20_000, f"a: {'9' * 5000}", "a: !!bool x", "a: !!int x"])
def test_a_configuration_that_cannot_be_is_refused(tmp_path: Path, command: Command, text: str) -> None:
    (tmp_path / "my.yaml").write_text(text)
    status, out, err = command("train", tmp_path / "my.yaml")
    assert (status, out) == (2, "")
    assert "my.yaml: is not valid YAML" in err
    assert len(err.splitlines()) == 1


MANIFESTS: dict[str, Change] = {
    "a step as text": lambda f: f["content"]["state"].update(step="9"),
    "a step as object": lambda f: f["content"]["state"].update(step={}),
}


def edit_manifests(run: RunDir, change: Change) -> None:
    for path in (run.checkpoints / "manifests").iterdir():
        fields = json.loads(path.read_bytes())
        del fields["checksum"]
        change(fields)
        path.write_bytes(manifests.encode(fields))


@pytest.mark.parametrize("case", MANIFESTS)
def test_versions_of_strange_steps_are_listed(run: RunDir, command: Command, case: str) -> None:
    edit_manifests(run, MANIFESTS[case])
    status, _, err = command("state", "ls", run.path)
    assert status == 0, err
    _, _, err = command("inspect", run.path)
    assert "Traceback" not in err


@pytest.mark.parametrize("table", ["item", "user"])
def test_a_clock_that_goes_back_along_a_chain_is_refused(run: RunDir, command: Command, table: str) -> None:
    edit_manifests(run, lambda f: f["tables"][table].update(now=0) if f["parent"] else None)
    for arguments in (("train", "--resume", run.path, "--set", "train.max_steps=18"), ("evaluate", run.path)):
        status, _, err = command(*arguments)
        assert status == 1
        assert f"table {table}: its clock is 0, " in err.splitlines()[-1]


@pytest.mark.parametrize("written", ["[/x]", "now", ""])
def test_a_time_that_is_none_is_refused(run: RunDir, command: Command, written: str) -> None:
    edit_manifests(run, lambda f: f.update(written=written))
    status, _, err = command("state", "ls", run.path)
    assert status == 1
    assert "written: String should match" in err
    assert len(err.splitlines()) == 1


def test_a_clock_of_steps_ends_at_its_last(run: RunDir) -> None:
    """No run takes as many steps; a version may say so."""
    edit_manifests(run, lambda f: [table.update(steps=2**40) for table in f["tables"].values()])
    assert resume(run, ("train.max_steps=12",), shown=False)["steps"] == 12


# ---- what a version records


def test_a_version_says_all_that_scoring_applies(make_config: Make) -> None:
    config = make_config(
        **{
            "sample_weight": "price",
            "evaluate": {"negative_sampling_rate": 0.25},
            "train.precision": "bf16",
            "train.epochs": 1,
            "features.0.side": "user",
        }
    )
    run = RunDir.open(Path(train(config, shown=False)["run_dir"]))
    found = scoring_content(checkpoint.find(run.checkpoints, "last")[-1])
    assert (found.scoring.negative_sampling_rate, found.scoring.precision) == (0.25, "bf16")
    schema = found.trained
    assert (schema.sample_weight, schema.event_time) == ("price", config.event_time)
    assert [f.side for f in schema.features] == ["user", "context", "context"]
    assert (schema.tables, schema.features, schema.dense) == (config.tables, config.features, config.dense)
    assert (schema.labels, schema.model, found.seed) == (config.labels, config.model, config.train.seed)
    assert found.fitted.moments.keys() == {"price"}


def test_a_version_that_recorded_less_has_defaults(run: RunDir) -> None:
    found = run_content(checkpoint.find(run.checkpoints, "last")[-1])
    assert (found.format, found.trained.event_time, found.scoring.negative_sampling_rate) == (0, None, None)
    assert found.state.step == 9
    # Its run's configuration has both; they are not compared with what was not recorded.
    assert run.config().event_time is not None
    assert load_run(run, "last").step == 9


def test_scoring_does_not_ask_where_training_stood(run: RunDir) -> None:
    edit(run, sets("state", "of another build"))
    assert scoring_content(checkpoint.find(run.checkpoints, "last")[-1]).seed == 0


CLOCKED = {"dim": 8, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}, "ttl_seconds": 86_400}


def test_what_was_learned_by_is_compared_and_what_scores_are_corrected_by_is_not(make_config: Make) -> None:
    changes: dict[str, Any] = {"data.shuffle": None, "train.epochs": 1, "train.max_steps": 2}
    tables = [{"name": "user", **CLOCKED}, {"name": "item", **CLOCKED}]
    run = RunDir.open(Path(train(make_config(tables=tables, **changes), shown=False)["run_dir"]))
    free = ("evaluate.negative_sampling_rate=0.5", "sample_weight=price")
    assert resume(run, ("train.max_steps=3", *free), shown=False)["steps"] == 3
    with pytest.raises(StateError, match=r"event_time\.column: 'row' here, 'time' there"):
        resume(run, ("train.max_steps=4", "event_time.column=row", "event_time.unit=s"), shown=False)
    # No table remembers times: they may come from elsewhere.
    run = RunDir.open(Path(train(make_config(**changes), shown=False)["run_dir"]))
    assert resume(run, ("train.max_steps=3", "event_time=null"), shown=False)["steps"] == 3


# ---- scoring's part of a log


def test_predict_needs_features_and_dense_columns_alone(make_config: Make, log_dir: Path, command: Command) -> None:
    changes: dict[str, Any] = {"data.shuffle": None, "train.epochs": 1, "sample_weight": "row"}
    tables = [{"name": "user", **CLOCKED}, {"name": "item", **CLOCKED}]
    run = Path(train(make_config(tables=tables, **changes), shown=False)["run_dir"])
    whole, bare = log_dir.parent / "whole.parquet", log_dir.parent / "bare.parquet"
    table = pq.read_table(log_dir)
    pq.write_table(table, whole)
    pq.write_table(table.select(["user", "item", "tags", "price"]), bare)
    scores = []
    for source in (whole, bare):
        status, _, err = command("predict", run, source, run / "scores.parquet", "--columns", "user")
        assert status == 0, err
        scores.append(pq.read_table(run / "scores.parquet").column("score").to_pylist())
    assert scores[0] == scores[1]
    assert len(scores[0]) == 1800
    with pytest.raises(DataError, match="column label: is missing"):
        evaluate(run, "all", overrides=[f"data.path={bare}"], shown=False)
