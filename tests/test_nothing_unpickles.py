"""No file or request is ever unpickled: nothing in the packages names what would."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORBIDDEN = re.compile(
    r"\b(import|from) (c?pickle|dill|joblib|shelve|marshal)\b|\btorch\.(load|save)\b|"
    r"(gather|broadcast|scatter|send|recv)_object\w*\(|allow_pickle=True|(?<![.\w])(eval|exec)\("
)


def test_nothing_unpickles() -> None:
    files = [f for package in ("embtables", "models", "pipelines", "serving") for f in (ROOT / package).rglob("*.py")]
    assert len(files) > 80
    found = []
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if FORBIDDEN.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
    assert FORBIDDEN.search("x = torch.load(path)")
    assert FORBIDDEN.search("import pickle")
