"""The README's Python runs as it stands, and its last line prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.quick_start import make_log_and_configuration

README = Path(__file__).parents[1] / "README.md"


SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(
    snippet: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = snippet.strip().splitlines()
    assert len([line for line in lines if line]) <= 15
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == lines[-1].split("# ")[1].split(":")[0]
    assert list(tmp_path.iterdir()) == []


def test_there_are_a_call_and_a_module() -> None:
    assert [next(name for name in ("et.train(", "Tables(") if name in each) for each in SNIPPETS] == [
        "et.train(",
        "Tables(",
    ]


def test_the_error_is_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_log_and_configuration(tmp_path)
    ((command, shown),) = re.findall(r"```\n\$ (embtables .*)\n(error: .*)\n```", README.read_text())
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{shown}\n")


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
