"""The README's Python runs as it stands, and its last line prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_first_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    lines = snippet.strip().splitlines()
    assert len([line for line in lines if line]) <= 15
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == lines[-1].split("# ")[1].split(":")[0]


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
