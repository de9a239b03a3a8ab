"""The environment of a contender from another project: made once, below build/, apart from this project's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks._harness import ROOT

PEERS = ROOT / "build" / "peers"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def fuxictr_python() -> Path:
    """Interpreter of FuxiCTR's environment."""
    return peer_python("fuxictr")


def peer_python(peer: str) -> Path:
    """Interpreter of a contender's environment, requirements/peers-<peer>.txt. Makes the environment where it is absent
    or of another lock.
    """
    lock = ROOT / "requirements" / f"peers-{peer}.txt"
    folder = PEERS / f"{peer}-venv"
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    if mark.exists() and mark.read_text() == lock.read_text():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run("bash", str(ROOT / "requirements" / "install-torch.sh"), str(python))
    _run(str(python), "-m", "pip", "install", "-q", "--no-deps", "-r", str(lock))
    _run(str(python), "-m", "pip", "check")
    mark.write_text(lock.read_text())
    return python


def _run(*command: str) -> None:
    # stdout is kept for the result: what an installer prints goes to stderr.
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True, env={"TORCH_INDEX": TORCH_INDEX, **os.environ})
