"""What a process loads: scoring, training and state run without torchrec and fbgemm, and say nothing on stderr."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embtables.pipelines.config import RunConfig
from embtables.schema import to_yaml
from tests.pipelines.conftest import log_dir, make_config

__all__ = ["log_dir", "make_config"]

_HEAVY = ("torchrec", "fbgemm_gpu", "torch._dynamo")


def loaded_by(script: str, *arguments: str) -> tuple[list[str], str]:
    """Which of the heavy modules a script has loaded at its end, and what it says on stderr."""
    ends = f"\nimport sys; print('loaded', *[name for name in {_HEAVY} if name in sys.modules])"
    command = [sys.executable, "-W", "error::ImportWarning", "-c", script + ends, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:], done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "import embtables",
        "import embtables; embtables.Tables; embtables.Batch; embtables.FeatureTransform",
        "import embtables.state.write.version_writer, embtables.state.read.load",
        "import embtables; embtables.Scorer; embtables.register_metric; embtables.register_model",
        "import embtables.pipelines.cli.main",
    ],
)
def test_neither_torchrec_nor_fbgemm_is_imported(script: str) -> None:
    assert loaded_by(script) == ([], "")


def test_a_whole_training_run_does_without_them(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(make_config(**{"train.epochs": 1})))
    script = """
import sys
sys.argv = ["embtables", "train", sys.argv[1], "--json"]
from embtables.pipelines.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, None)
"""
    loaded, said = loaded_by(script, str(config))
    assert loaded == []
    assert all(line.startswith("step ") for line in said.splitlines()), said


def test_the_views_of_torchrec_load_it() -> None:
    assert "torchrec" in loaded_by("import embtables; embtables.EmbeddingBagCollection")[0]
