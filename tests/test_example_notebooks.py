"""The examples that are scripts and notebooks, as both."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jupytext
import pytest

from tests.notebooks import run_notebook, run_script

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "own_model": r"ProductNet: AUC 0\.6\d\d of 8,690 rows\nstep 88, options kind='ProductNet' width=32 dropout=0\.1\n",
    "own_loop": r"AUC 0\.9\d\d of 83,259 rows; 3,\d\d\d items have a row\n",
}


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The examples in a folder of their own, where runs and prepared data are written."""
    for name in SAYS:
        shutil.copytree(EXAMPLES / name, tmp_path / name)
    shutil.copytree(EXAMPLES / "online_retail", tmp_path / "online_retail", ignore=shutil.ignore_patterns("prepared"))
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_as_a_script_and_as_a_notebook(
    examples: Path, name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = examples / name / f"{name}.py"
    said = run_script(script)
    assert re.fullmatch(SAYS[name], said), said
    assert run_notebook(script, tmp_path_factory.mktemp("jupyter"), monkeypatch) == said


def test_a_model_of_your_own_takes_at_most_40_lines() -> None:
    for name in SAYS:
        cells = jupytext.read(EXAMPLES / name / f"{name}.py").cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        if name == "own_model":
            assert len([line for line in code.splitlines() if line.strip()]) <= 40
        assert sum(cell.cell_type == "markdown" for cell in cells) >= 2, "a notebook explains itself"
