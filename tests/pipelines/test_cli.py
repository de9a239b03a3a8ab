"""The command line as a user meets it: outputs, exit statuses, messages without tracebacks, help with examples."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer

from embtables.pipelines.cli.main import app
from embtables.pipelines.config import RunConfig
from embtables.schema import to_yaml

Make = Callable[..., RunConfig]


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embtables", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture
def config_file(make_config: Make, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(make_config(**{"train.epochs": 1})))
    return path


@pytest.mark.slow
def test_train_evaluate_predict_resume(config_file: Path, log_dir: Path, tmp_path: Path) -> None:
    trained = run("train", config_file, "--set", "train.epochs=2", "--json")
    assert trained.returncode == 0, trained.stderr
    report = json.loads(trained.stdout.splitlines()[-1])
    assert {"auc", "log_loss", "rows", "rows_per_second", "run_dir"} <= set(report)
    assert report["epochs"] == 2
    evaluated = run("evaluate", report["run_dir"], "--json")
    assert json.loads(evaluated.stdout)["auc"] == report["auc"]
    output = tmp_path / "scores.parquet"
    predicted = run("predict", report["run_dir"], log_dir, output, "--columns", "row,user", "--json")
    assert json.loads(predicted.stdout)["rows"] == 1800
    assert pq.read_schema(output).names == ["row", "user", "score"]
    resumed = run("train", "--resume", report["run_dir"], "--set", "train.epochs=3", "--json")
    assert json.loads(resumed.stdout.splitlines()[-1])["epochs"] == 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("train",), 2, "give a configuration file, or --resume"),
        (("train", "nowhere.yaml"), 2, "file nowhere.yaml: cannot be read: No such file or directory"),
        (("train", "CONFIG", "--set", "train.epoch=2"), 2, "unknown key 'epoch'; did you mean 'epochs'?"),
        (("train", "CONFIG", "--set", "train"), 2, "--set takes KEY=VALUE"),
        (("train", "CONFIG", "--set", "tables.itme.dim=4"), 2, "no item 'itme'; there are: user, item"),
        (("train", "CONFIG", "--set", "tables.user.dim=zero"), 2, "tables.0.dim"),
        (
            ("train", "CONFIG", "--set", "tables.user.kind=hashed"),
            2,
            "tables.0: 'kind' must be 'fixed' or 'collisionless'",
        ),
        (("train", "CONFIG", "--set", "data.path=nowhere"), 1, "nowhere: does not exist"),
        (("train", "CONFIG", "--set", "features.user.column=usr"), 1, "column usr: is missing"),
        (
            (
                "train",
                "CONFIG",
                "--set",
                "tables.item.optimizer.weight_decay=0.1",
                "--set",
                "train.row_store=fbgemm",
            ),
            2,
            "table item: fbgemm ignores weight_decay",
        ),
        (("train", "--resume", "nowhere"), 2, "is not the folder of a run"),
        (("evaluate", "nowhere"), 2, "is not the folder of a run"),
        (("evaluate", "nowhere", "--part", "tset"), 2, "received 'tset'"),
        (("schema", "check", "CONFIG", "--set", "data.where.0=price >"), 2, "data.where"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_a_users_mistake_is_one_message(
    config_file: Path,
    arguments: tuple[str, ...],
    status: int,
    message: str,
    command: Callable[..., tuple[int, str, str]],
) -> None:
    got, out, err = command(*(config_file if a == "CONFIG" else a for a in arguments))
    assert got == status, err
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize("last", [False, True])
def test_a_run_that_fails_leaves_a_folder_only_with_something_in_it(
    last: bool, make_config: Make, log_dir: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    config = make_config(**{"data.shuffle": None, "data.split": None, "train.log_every_steps": 1})
    part = log_dir / f"part-{2 if last else 0}.parquet"
    table = pq.read_table(part)
    labels = table["label"].to_pylist()
    labels[-1 if last else 0] = 7
    at = table.schema.get_field_index("label")
    pq.write_table(table.set_column(at, "label", [labels]), part)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    status, _, err = command("train", path)
    assert (status, "Traceback" in err) == (1, False)
    assert "column label" in err
    assert [any(run.glob("metrics.jsonl")) for run in (tmp_path / "runs").glob("*")] == ([True] if last else [])


def test_schema_check_counts_and_export_is_json(config_file: Path) -> None:
    checked = run("schema", "check", config_file, "--json")
    assert checked.returncode == 0, checked.stderr
    report = json.loads(checked.stdout)
    assert report["tables"] == {name: {"kind": "fixed", "rows": 64, "dim": 8} for name in ("user", "item")}
    assert report["log_rows"] == 1800
    for_people = run("schema", "check", config_file)
    assert for_people.returncode == 0, for_people.stderr
    assert "table user" in for_people.stderr
    exported = json.loads(run("schema", "export").stdout)
    assert set(exported["properties"]) == set(RunConfig.model_fields)


def test_every_command_has_an_example_in_its_help() -> None:
    click_app = typer.main.get_command(app)
    groups = ("data", "events", "running", "schema", "state")
    commands = {name: command for name, command in click_app.commands.items() if name not in groups}  # type: ignore[attr-defined]
    for group in groups:
        of = click_app.commands[group].commands  # type: ignore[attr-defined]
        commands |= {f"{group} {name}": command for name, command in of.items()}
    for name, command in commands.items():
        assert f"Example: embtables {name}" in command.help, name
        pages = ("training.md", "serving.md", "online.md", "events.md", "running.md")
        documented = "".join((Path(__file__).parents[2] / "docs" / page).read_text() for page in pages)
        assert f" {name}" in documented, f"{name} is in none of {', '.join(pages)}"


def test_paths_of_the_file_and_of_the_command_line(make_config: Make, log_dir: Path, tmp_path: Path) -> None:
    from embtables.pipelines.config import load_config

    folder = tmp_path / "configs"
    folder.mkdir()
    text = to_yaml(make_config()).replace(str(log_dir), "../log")
    (folder / "c.yaml").write_text(text)
    assert Path(load_config(folder / "c.yaml").data.path).resolve() == log_dir
    assert load_config(folder / "c.yaml", ["data.path=some/log"]).data.path == str(Path.cwd() / "some/log")
    assert load_config(folder / "c.yaml", ["data.path=s3://bucket/log"]).data.path == "s3://bucket/log"
