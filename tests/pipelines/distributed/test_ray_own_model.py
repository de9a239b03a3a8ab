"""A model of a script's own on real Ray: the ranks, which know neither the script nor its folder, are sent it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.distributed.ray_runs_for_tests import make_config

SCRIPT = """
import threading
import embtables
from torch import nn
from parts import hidden

class Tower(nn.Module):
    def __init__(self, pooled, num_labels, width: int = 8):
        super().__init__()
        self.pooled = pooled
        self.layers = nn.Sequential(hidden(pooled, width), nn.ReLU(), nn.Linear(width, num_labels))

    def forward(self, ids, dense):
        return self.layers(self.pooled(ids))

if __name__ == "__main__":
    embtables.register_model(Tower)
    changes = ["model={kind: Tower, width: 5}", "train.epochs=1", "train.max_steps=20"]
    report = embtables.train("ranks.yaml", overrides=changes, workers=2).report()
    assert report["steps"] == 20 and report["model"] == "Tower"
    on = embtables.resume(report["run_dir"], model=Tower, overrides=["train.max_steps=30"], workers=2).report()
    print(on["steps"], embtables.load(report["run_dir"]).scorer.model.layers[0].out_features)
    lock = threading.Lock()
    embtables.register_model(lambda pooled: (lock, pooled), name="held")
    try:
        embtables.train("ranks.yaml", overrides=["model={kind: held}"], workers=2).report()
    except embtables.ConfigError as error:
        print(error)
"""
PARTS = """
from torch import nn

def hidden(pooled, width):
    return nn.Linear(sum(pooled.embedding_dims), width)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_model_of_the_script_trains_and_goes_on_at_several_ranks(tmp_path: Path) -> None:
    make_config(tmp_path)
    (tmp_path / "train_it.py").write_text(SCRIPT)
    (tmp_path / "parts.py").write_text(PARTS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    argv = [sys.executable, "../train_it.py"]
    (elsewhere / "ranks.yaml").symlink_to(tmp_path / "ranks.yaml")
    done = subprocess.run(argv, cwd=elsewhere, env=os.environ.copy(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trained, refused = done.stdout.splitlines()
    assert trained == "30 5"
    assert (
        "model 'held' cannot be sent to the ranks (TypeError: cannot pickle '_thread.lock' object); define it"
        in refused
    )


RECEIVER = """
import sys
from embtables.errors import ConfigError
from embtables.models.registry import MODELS, spec_of
from embtables.pipelines.distributed.model_code import SentModel, know
kind, path = sys.argv[1], sys.argv[2:]
try:
    know(SentModel(kind, sys.stdin.buffer.read(), tuple(path)))
    print(sorted(spec_of(MODELS[kind]()).takes), MODELS[kind]().model_dump())
except ConfigError as error:
    print(error)
"""
SPEC = """
import sys
import embtables
from typing import Literal
from parts import hidden
from embtables.pipelines.distributed.model_code import model_to_send

class SpecConfig(embtables.ModelOptions):
    kind: Literal["spec"] = "spec"
    width: int = 3

embtables.register_model(embtables.ModelSpec(SpecConfig, frozenset({"sequence"}), lambda c, i: hidden(i, c.width)))
sys.stdout.buffer.write(model_to_send("spec").code)
"""


def test_a_rank_finds_the_modules_of_the_model_or_says_which_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "sender.py").write_text(SPEC)
    (tmp_path / "parts.py").write_text(PARTS)
    code = subprocess.run([sys.executable, "sender.py"], cwd=tmp_path, capture_output=True, check=True).stdout
    argv = [sys.executable, "-P", "-c", RECEIVER, "spec"]
    got = subprocess.run([*argv, str(tmp_path)], input=code, capture_output=True, check=True).stdout.decode()
    assert got == "['sequence'] {'kind': 'spec', 'width': 3}\n"
    got = subprocess.run(argv, input=code, capture_output=True, check=True).stdout.decode()
    assert got.startswith(
        "model 'spec' cannot be made at a rank (ModuleNotFoundError: No module named 'parts'); install"
    )
