"""docs/quick-start.md, block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.docs.quick_start import blocks, make_log_and_configuration, run_block


def test_the_quick_start_runs_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_log_and_configuration(tmp_path)
    names: dict[str, Any] = {}
    for code in blocks("python"):
        capsys.readouterr()
        run_block(code, names)
        promised = [line.split("  # ")[1] for line in code.splitlines() if line.startswith("print") and "  # " in line]
        assert not promised or capsys.readouterr().out.splitlines() == promised
    assert names["run"].metrics["auc"] > 0.75
