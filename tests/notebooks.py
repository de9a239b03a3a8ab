"""Scripts in jupytext's percent format, run as scripts and as notebooks in a kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager


def run_script(script: Path) -> str:
    """What a script prints on stdout, run in its folder."""
    argv = [sys.executable, script.name]
    done = subprocess.run(argv, cwd=script.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_notebook(script: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the notebook of a script prints on stdout, its cells run one after the other in a kernel in its folder."""
    notebook: Any = jupytext.read(script)
    assert notebook.metadata.kernelspec.name == "python3"
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(scratch / "runtime"))
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager = KernelManager()
    manager._kernel_spec = KernelSpec(argv=argv, language="python")
    manager.start_kernel(cwd=str(script.parent), env={**os.environ, "IPYTHONDIR": str(scratch / "ipython")})
    client = manager.client()
    printed: list[str] = []

    def keep(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed.append(message["content"]["text"])

    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                reply = client.execute_interactive(cell.source, timeout=200, output_hook=keep)
                assert reply["content"]["status"] == "ok", (cell.source, reply["content"])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return "".join(printed)
