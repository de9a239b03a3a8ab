"""The README's Python runs as it stands, and its last line fails with the error it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from embtables.errors import DataError

README = Path(__file__).parents[1] / "README.md"


def test_the_first_snippet_runs() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    lines = snippet.strip().splitlines()
    assert len([line for line in lines if line]) <= 15
    with pytest.raises(DataError, match=r"feature seen: id 1000 is outside 0\.\.999") as raised:
        exec(compile(snippet, "README.md", "exec"), {})
    assert lines[-1].removeprefix("# embtables.errors.DataError: ").removesuffix("...").strip() in str(raised.value)


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
