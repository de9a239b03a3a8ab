"""The Python calls behind the commands: arguments that do not go together, and what comes before torch's import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import embtables
from tests.docs.quick_start import make_log_and_configuration

MISTAKES: dict[str, Callable[[], Any]] = {
    "'checkpoint' and 'fresh' go with 'continue_from'": lambda: embtables.train("my.yaml", fresh=["user"]),
    "'ray_address' goes with 'workers'": lambda: embtables.train("my.yaml", ray_address="auto"),
    "'workers' must be at least 1, received 0": lambda: embtables.resume("runs/x", workers=0),
    "keep versions: give its path, and runs_dir": lambda: embtables.train("my.yaml", workers=2),
    "'overrides' go with the path": lambda: embtables.train(embtables.load_config("my.yaml"), overrides=["name=x"]),
    "is not the folder of a run": lambda: embtables.train("my.yaml", continue_from="."),
    "cannot be read": lambda: embtables.train("other.yaml"),
    "did you mean 'epochs'": lambda: embtables.train("my.yaml", epoch=2),
    "the schema is int": lambda: embtables.train(7),  # type: ignore[arg-type]
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_log_and_configuration(tmp_path)


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_a_config_error_and_leaves_no_folder(message: str, tmp_path: Path) -> None:
    with pytest.raises(embtables.ConfigError, match=message):
        MISTAKES[message]()
    assert not (tmp_path / "runs").exists()


def test_a_wrong_configuration_is_reported_before_torch_is_imported() -> None:
    code = """if True:
        import sys, embtables
        try:
            embtables.train("my.yaml", overrides=["train.epochs=none"])
        except embtables.ConfigError as error:
            print(error, "torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "train.epochs" in done.stdout
    assert done.stdout.split()[-1] == "False"


def test_a_configuration_object_trains_as_its_file_does() -> None:
    changes = ["train.max_steps=3"]
    of_file = embtables.train("my.yaml", overrides=changes, shown=False)
    of_object = embtables.train(embtables.load_config("my.yaml", changes), shown=False)
    of_options = embtables.train("my.yaml", max_steps=3, shown=False)
    assert of_object.metrics == of_file.metrics == of_options.metrics


def test_a_loaded_run_predicts_and_takes_no_other_version() -> None:
    run = embtables.train("my.yaml", runs_dir="runs", max_steps=3, shown=False)
    assert run.path is not None
    loaded = embtables.load(run.path, checkpoint="last")
    report = embtables.predict(loaded, "log.parquet", "scores.parquet", shown=False)
    assert report["columns"] == ["user", "item", "click", "score"]
    with pytest.raises(embtables.ConfigError, match="has its version already"):
        embtables.predict(loaded, "log.parquet", "scores.parquet", checkpoint="best")
