"""No file or request is ever unpickled: nothing in the packages names what would.

One place does, of what this process itself sends to the ranks that it starts: the code of a user's own model.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TO_RANKS = "pipelines/distributed/model_code.py"
FORBIDDEN = re.compile(
    r"\b(import|from) (c?pickle|dill|joblib|shelve|marshal)\b|\btorch\.(load|save)\b|"
    r"\bcloudpickle\b|(gather|broadcast|scatter|send|recv)_object\w*\(|allow_pickle=True|(?<![.\w])(eval|exec)\("
)


def test_nothing_unpickles() -> None:
    files = [f for package in ("embtables", "models", "pipelines", "serving") for f in (ROOT / package).rglob("*.py")]
    assert len(files) > 80
    found = []
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if FORBIDDEN.search(line) and not file.resolve().match(TO_RANKS):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
    assert FORBIDDEN.search("x = torch.load(path)")
    assert FORBIDDEN.search("import pickle")
    assert FORBIDDEN.search("from ray import cloudpickle")
    assert "open(" not in (ROOT / TO_RANKS).read_text()
