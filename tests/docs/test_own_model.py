"""docs/own-model.md, block by block, in a process of its own: what it registers stays there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.quick_start import PAGE, blocks, make_log_and_configuration


def test_the_blocks_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_log_and_configuration(tmp_path)
    (tmp_path / "own.py").write_text("\n".join(blocks("python", PAGE.with_name("own-model.md"))))
    done = subprocess.run([sys.executable, "own.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Tower\ntorch.Size([1, 1])\nTrue\nTrue 3\n"
    assert "nanobind" not in done.stderr, "a loss that is alive at the end of the process is no fault"
