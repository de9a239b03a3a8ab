"""docs/how-to-add.md, block by block, in a process of its own: what it registers stays there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.quick_start import PAGE, blocks, make_log_and_configuration


def test_what_the_page_adds_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_log_and_configuration(tmp_path)
    (tmp_path / "added.py").write_text("\n".join(blocks("python", PAGE.with_name("how-to-add.md"))))
    done = subprocess.run([sys.executable, "added.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["two_layer", "63", "63", "True", "True"]
