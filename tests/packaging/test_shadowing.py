"""A user's own folders `models`, `pipelines` and `serving` beside a script, a notebook, tests or a training run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.conftest import ROOT, call
from tests.pipelines.distributed.ray_runs_for_tests import make_config

NAMES = ("models", "pipelines", "serving")
# The user's modules first, then ours in the same process; prints where each lies and what a run reports.
SCRIPT = """
import json
import models, pipelines, serving
import embtables.models.registry, embtables.pipelines.config, embtables.serving
from pathlib import Path

from embtables.pipelines.config import load_config
from embtables.pipelines.training.train import train

report = train(load_config(Path("ranks.yaml"), ["train.epochs=1", "train.max_steps=5"]), shown=False)
theirs = [module.__file__ for module in (models, pipelines, serving)]
ours = [module.__file__ for module in (embtables.models.registry, embtables.pipelines.config, embtables.serving)]
print(json.dumps({"theirs": theirs, "ours": ours, "steps": report["steps"]}))
"""
TEST = """
import models
from embtables.models.registry import MODELS

def test_both_are_there(theirs):
    assert theirs == models.OF == "the user"
    assert "lr" in MODELS
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, with a log and a configuration to train on."""
    make_config(tmp_path)
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OF = 'the user'\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "conftest.py").write_text(
        "import models, pytest\n\n@pytest.fixture\ndef theirs():\n    return models.OF\n"
    )
    (tmp_path / "test_own.py").write_text(TEST)
    return tmp_path


@pytest.fixture(params=["editable", "wheel"])
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with the editable install, or with the built wheel."""
    if request.param == "editable":
        return Path(sys.executable)
    found: Path = request.getfixturevalue("python_of_wheel")
    return found


def assert_both(found: dict[str, Any], folder: Path, python: Path) -> None:
    home = ROOT if python == Path(sys.executable) else python.parents[1]
    assert [Path(file) for file in found["theirs"]] == [folder / name / "__init__.py" for name in NAMES]
    assert all(Path(file).is_relative_to(home) for file in found["ours"]), found["ours"]
    assert found["steps"] == 5


@pytest.mark.slow
def test_in_a_script(folder: Path, python: Path) -> None:
    assert_both(json.loads(call(python, "script.py", folder=folder)), folder, python)


@pytest.mark.slow
def test_folders_without_an_init_file_are_the_users_and_our_names_are_not_seen(tmp_path: Path, python: Path) -> None:
    """Such a folder gives way to any package of its name further along sys.path: none may be there."""
    names = (*NAMES, "benchmarks", "docs", "examples", "tests")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text("OF = 'the user'\n")
    code = "import importlib, embtables.models.registry\n"
    code += f"print([importlib.import_module(name + '.mine').OF for name in {names}])"
    (tmp_path / "script.py").write_text(code)
    assert call(python, "script.py", folder=tmp_path).strip() == str(["the user"] * len(names))
    (tmp_path / "elsewhere").mkdir()
    alone = f"import importlib.util as u; print([name for name in {names} if u.find_spec(name)])"
    assert call(python, "-c", alone, folder=tmp_path / "elsewhere").strip() == "[]"


@pytest.mark.slow
def test_in_the_kernel_of_a_notebook(folder: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager = KernelManager()
    manager._kernel_spec = KernelSpec(argv=argv, language="python")
    manager.start_kernel(cwd=str(folder), env={**os.environ, "IPYTHONDIR": str(folder / "ipython")})
    client = manager.client()
    printed: list[str] = []
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        reply = client.execute_interactive(
            SCRIPT,
            timeout=200,
            output_hook=lambda message: printed.append(message["content"].get("text", "")),
        )
        assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert_both(json.loads("".join(printed).splitlines()[-1]), folder, python)


@pytest.mark.slow
def test_in_tests_of_the_user_with_a_conftest(folder: Path, python: Path) -> None:
    assert "1 passed" in call(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".", folder=folder)


@pytest.mark.slow
def test_in_workers_of_ray(folder: Path, python_of_wheel: Path) -> None:
    """Of the wheel; tests/pipelines/distributed/test_train_ray.py trains so with the editable install."""
    changes = ["--set", "train.epochs=1", "--set", "train.max_steps=20"]
    argv = [python_of_wheel.with_name("embtables"), "train", "ranks.yaml", "--workers", "2", "--json", *changes]
    # The command does not look for modules in the folder where it is given, so its ranks must not either.
    (folder / "embtables").mkdir()
    (folder / "embtables" / "__init__.py").write_text("raise RuntimeError('not the module you look for')\n")
    report = json.loads(call(*argv, folder=folder).splitlines()[-1])
    assert report["steps"] == 20
