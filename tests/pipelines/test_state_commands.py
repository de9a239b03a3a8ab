"""`embtables state`: what a run's versions are, whether they are whole, and what they hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.cli import main
from pipelines.config import RunConfig
from pipelines.loaded import load_run
from pipelines.run_dir import RunDir
from pipelines.train import train

Make = Callable[..., RunConfig]


@pytest.fixture
def run(make_config: Make) -> Path:
    report = train(make_config(**{"train.epochs": 2, "train.checkpoint_every_steps": 3}), shown=False)
    return Path(report["run_dir"])


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    """Exit status, and the JSON on stdout or the text on stderr."""
    monkeypatch.setattr("sys.argv", ["embtables", *map(str, arguments)])
    capsys.readouterr()
    try:
        main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    return status, json.loads(said.out.splitlines()[-1]) if said.out else said.err


def test_versions_are_listed_verified_and_cleaned(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, listed = command(monkeypatch, capsys, "state", "ls", run, "--json")
    assert status == 0
    versions = listed["versions"]
    assert versions[0]["kind"] == "snapshot"
    assert versions[-1]["kind"] == "delta"
    assert [v["version"] for v in versions] == [f"resume-{n + 1}" for n in range(len(versions))]
    assert [pin for v in versions for pin in v["pins"]] == ["best"]
    assert versions[-1]["step"] == max(v["step"] for v in versions)
    status, text = command(monkeypatch, capsys, "state", "ls", run)
    assert status == 0
    assert "snapshot" in text
    status, whole = command(monkeypatch, capsys, "state", "verify", run, "--json")
    assert status == 0
    assert whole["versions"] == len(versions)
    assert whole["bytes"] == sum(v["bytes"] for v in versions)
    garbage = run / "checkpoints" / "versions" / "resume-0000000099-00000000"
    garbage.mkdir()
    (garbage / "left").write_bytes(bytes(1000))
    status, freed = command(monkeypatch, capsys, "state", "gc", run, "--json")
    assert (status, freed["freed_bytes"], garbage.exists()) == (0, 1000, False)
    file = next((run / "checkpoints" / "versions").glob("resume-0000000001-*/*.rows.0.arrow"))
    file.write_bytes(file.read_bytes()[:-9])
    status, text = command(monkeypatch, capsys, "state", "verify", run)
    assert status == 1
    assert f"error: file {file}: is damaged" in text


@pytest.mark.parametrize("version", [None, "best", "resume-1"])
def test_an_exported_table_is_what_the_model_has(
    run: Path, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.parquet"
    table = RunDir.open(run).config().tables[0].name
    chosen = [] if version is None else ["--version", version]
    status, report = command(monkeypatch, capsys, "state", "export", run, table, output, *chosen, "--json")
    assert status == 0
    frame = pd.read_parquet(output).sort_values("key")
    assert len(frame) == report["rows"]
    assert frame["key"].is_unique
    if version != "resume-1":
        learner = load_run(RunDir.open(run), "last" if version is None else "best").learner
        expected = learner.tables.weight(table).numpy()
        assert np.array_equal(np.stack(frame["weight"].to_numpy()), expected)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["verify", "--version", "nope"], 2, "'nope' is no version: give resume-<n>, serving-<n>, best"),
        (["verify", "--version", "resume-77"], 1, "there is no version resume-77"),
        (["verify", "--version", "serving-1"], 1, "there is no version serving-1"),
        (["export", "nope", "out.parquet"], 1, "has no table 'nope'; it has: "),
        (
            ["export", "user", "no/such/folder/out.parquet"],
            1,
            "out.parquet: cannot be written: No such file or directory",
        ),
        (["gc", "--keep", "0"], 2, "Invalid value"),
    ],
)
def test_mistakes_are_told(
    run: Path,
    arguments: list[str],
    status: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run)
    told = command(monkeypatch, capsys, "state", arguments[0], run, *arguments[1:])
    assert told[0] == status
    assert text in told[1]
    assert "Traceback" not in told[1]


def test_a_folder_without_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = command(monkeypatch, capsys, "state", "ls", tmp_path)
    assert status == 2
    assert "has no versions" in text
