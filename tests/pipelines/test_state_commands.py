"""`embtables state`: what a run's versions are, whether they are whole, and what they hold."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.train import train
from embtables.state.read.find import find
from tests.contents import flat, same

Make = Callable[..., RunConfig]
Call = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(make_config: Make) -> Path:
    report = train(make_config(**{"train.epochs": 2, "train.checkpoint_every_steps": 3}), shown=False)
    return Path(report["run_dir"])


def test_versions_are_listed_verified_and_cleaned(run: Path, call: Call) -> None:
    status, listed = call("state", "ls", run, "--json")
    assert status == 0
    versions = listed["versions"]
    assert versions[0]["kind"] == "snapshot"
    assert versions[-1]["kind"] == "delta"
    assert [v["version"] for v in versions] == [f"resume-{n + 1}" for n in range(len(versions))]
    assert [pin for v in versions for pin in v["pins"]] == ["best"]
    assert versions[-1]["step"] == max(v["step"] for v in versions)
    status, text = call("state", "ls", run)
    assert status == 0
    assert "snapshot" in text
    status, whole = call("state", "verify", run, "--json")
    assert status == 0
    assert whole["versions"] == len(versions)
    assert whole["bytes"] == sum(v["bytes"] for v in versions)
    garbage = run / "checkpoints" / "versions" / "resume-0000000099-00000000"
    garbage.mkdir()
    (garbage / "left").write_bytes(bytes(1000))
    status, freed = call("state", "gc", run, "--json")
    assert (status, freed["freed_bytes"], garbage.exists()) == (0, 1000, False)
    file = next((run / "checkpoints" / "versions").glob("resume-0000000001-*/*.rows.0.arrow"))
    file.write_bytes(file.read_bytes()[:-9])
    status, text = call("state", "verify", run)
    assert status == 1
    assert f"error: file {file}: is damaged" in text


def test_what_cannot_be_removed_is_named(run: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    garbage = run / "checkpoints" / "versions" / "resume-0000000099-00000000"
    garbage.mkdir()
    rmdir = Path.rmdir

    def refusing(path: Path) -> None:
        if path == garbage:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", refusing)
    for command in ("gc", "compact"):
        status, text = call("state", command, run)
        assert status == 1
        assert f"file {garbage}: " in text
        assert "what is no longer needed cannot be removed: Read-only file system" in text
    monkeypatch.undo()
    assert call("state", "gc", run)[0] == 0
    assert not garbage.exists()


@pytest.mark.parametrize("version", [None, "best", "resume-1"])
def test_an_exported_table_is_what_the_model_has(run: Path, version: str | None, tmp_path: Path, call: Call) -> None:
    output = tmp_path / "rows.parquet"
    table = RunDir.open(run).config().tables[0].name
    chosen = [] if version is None else ["--version", version]
    status, report = call("state", "export", run, table, output, *chosen, "--json")
    assert status == 0
    frame = pd.read_parquet(output).sort_values("key")
    assert len(frame) == report["rows"]
    assert frame["key"].is_unique
    if version != "resume-1":
        scorer = load_run(RunDir.open(run), "last" if version is None else "best").scorer
        expected = scorer.tables.weight(table).numpy()
        assert np.array_equal(np.stack(frame["weight"].to_numpy()), expected)
    assert not list(tmp_path.glob(".*"))


def test_a_compacted_run_goes_on_to_the_same_bits(make_config: Make, tmp_path: Path, call: Call) -> None:
    ends = []
    for name in ("plain", "compacted"):
        changes = {"train.epochs": 1, "train.checkpoint_every_steps": 3, "train.runs_dir": str(tmp_path / name)}
        run = Path(train(make_config(**changes), shown=False)["run_dir"])
        if name == "compacted":
            newest = call("state", "ls", run, "--json")[1]["versions"][-1]
            assert newest["kind"] == "delta"
            status, report = call("state", "compact", run, "--json")
            assert (status, report["from"]) == (0, newest["version"])
            assert report["compacted_versions"] > 1
            left = call("state", "ls", run, "--json")[1]["versions"]
            assert (left[-1]["version"], left[-1]["kind"]) == (report["version"], "snapshot")
            assert left[-1]["step"] == newest["step"]
        assert call("train", "--resume", run, "--set", "train.epochs=2", "--json")[0] == 0
        opened = RunDir.open(run)
        learner = Learner(opened.config())
        checkpoint.load(opened.checkpoints, find(opened.checkpoints, "last"), learner)
        ends.append({**flat(learner.tables), **{n: v.detach().numpy() for n, v in learner.dense().items()}})
    assert same(*ends)


def test_pins_of_older_versions_are_named_and_move(run: Path, call: Call) -> None:
    assert call("state", "pin", run, "best", "resume-1")[0] == 0
    status, text = call("state", "compact", run)
    assert status == 0
    newest = call("state", "ls", run, "--json")[1]["versions"][-1]["version"]
    advice = f"embtables state pin {run} best {newest}"
    assert f"resume-1 is kept because pin 'best' names it. To free it, run {advice}" in text
    assert call(*advice.split()[1:])[0] == 0
    assert call("state", "compact", run)[0] == 0
    left = call("state", "ls", run, "--json")[1]["versions"]
    assert [(v["version"], v["pins"]) for v in left] == [(newest, ["best"])]
    assert call("evaluate", run, "--json")[0] == 0


def test_two_versions_are_held_against_each_other(run: Path, tmp_path: Path, call: Call) -> None:
    state = run / "checkpoints"
    newest = call("state", "ls", run, "--json")[1]["versions"][-1]["version"]
    status, report = call("state", "diff", run, "resume-1", newest, "--json")
    assert status == 0
    table = report["tables"]["user"]
    assert (table["only_a"], table["only_b"]) == (0, 0)
    assert table["rows"] == [64, 64]
    assert table["changed"] + table["same"] == 64
    assert 0 < table["differs"]["weight"] <= table["changed"]
    assert len(table["largest"]) == 10
    assert min(report["tensors"][name] for name in report["tensors"] if name.endswith(".weight")) > 0
    assert any(path.startswith("state.step: ") for path in report["content"])
    status, text = call("state", "diff", run, "resume-1", newest)
    assert status == 0
    assert "largest changes of weights" in text
    heads = [line for line in text.splitlines() if "only A" in line]
    assert len(heads) == 1
    assert all(word in heads[0] for word in ("table", "rows A", "rows B", "only B", "same", "changed"))
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    arguments = ("state", "diff", run, newest, newest, "--against", copy, "--json")
    status, report = call(*arguments)
    assert (status, report["tensors"], report["content_differences"]) == (0, {}, 0)
    assert all(t["changed"] == t["only_a"] == t["only_b"] == 0 for t in report["tables"].values())


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["verify", "--version", "nope"], 2, "'nope' is not a version: give resume-<n>, serving-<n>, best"),
        (["verify", "--version", "resume-77"], 1, "there is no version resume-77"),
        (["verify", "--version", "serving-1"], 1, "there is no version serving-1"),
        (["export", "nope", "out.parquet"], 1, "has no table 'nope'; it has: "),
        (
            ["export", "user", "no/such/folder/out.parquet"],
            1,
            "out.parquet: cannot be written: No such file or directory",
        ),
        (["gc", "--keep", "0"], 2, "Invalid value"),
        (["compact", "--purpose", "nope"], 2, "'nope' is not a purpose: give resume or serving"),
        (["compact", "--purpose", "serving"], 1, "there is no serving version"),
        (["compact", "--keep", "0"], 2, "Invalid value"),
        (["diff", "best", "nope"], 2, "'nope' is not a version: give resume-<n>, serving-<n>, best"),
        (["diff", "best", "resume-99"], 1, "there is no version resume-99"),
        (["diff", "best", "best", "--against", "nowhere"], 2, "folder nowhere: has no versions"),
        (["pin", "../best", "resume-1"], 2, "'../best' cannot be a pin"),
        (["pin", "resume-3", "resume-1"], 2, "'resume-3' cannot be a pin"),
        (["pin", "tmp-keep", "resume-1"], 2, "'tmp-keep' cannot be a pin"),
        (["export", "user", "."], 2, "cannot write to '.': give the name of a parquet file"),
        (["pin", "best", "resume-99"], 1, "there is no version resume-99"),
    ],
)
def test_mistakes_are_reported(
    run: Path,
    arguments: list[str],
    status: int,
    text: str,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run)
    outcome = call("state", arguments[0], run, *arguments[1:])
    assert outcome[0] == status
    assert text in outcome[1]
    assert "Traceback" not in outcome[1]


def test_a_folder_without_versions(tmp_path: Path, call: Call) -> None:
    status, text = call("state", "ls", tmp_path)
    assert status == 2
    assert "has no versions" in text
