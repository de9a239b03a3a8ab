"""The mutants: what each changes in which file, and what must notice. `mutants.toml` lists them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LIST = Path(__file__).with_name("mutants.toml")


@dataclass(frozen=True, slots=True)
class Change:
    """In a file, relative to the tree, one text becomes another. The text stands there exactly once."""

    file: str
    text: str
    replacement: str

    def applied(self, content: str) -> str:
        """The file's content, changed. Raises ValueError where the text does not stand there exactly once."""
        count = content.count(self.text)
        if count != 1:
            raise ValueError(f"{self.file} has this text {count} times, expected once: {self.text!r}")
        return content.replace(self.text, self.replacement)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One invariant broken on purpose.

    Attributes:
        invariant: which one.
        tests: what must fail, as arguments of pytest.
    """

    name: str
    invariant: str
    tests: tuple[str, ...]
    changes: tuple[Change, ...]

    @contextmanager
    def in_place(self, tree: Path) -> Iterator[None]:
        """The changes are made below `tree`, and taken back in the end. Raises ValueError as Change.applied."""
        before: dict[Path, str] = {}
        try:
            for change in self.changes:
                path = tree / change.file
                content = path.read_text()
                before.setdefault(path, content)
                path.write_text(change.applied(content))
            yield
        finally:
            for path, content in before.items():
                path.write_text(content)


def all_mutants() -> list[Mutant]:
    """All of them, by name."""
    listed = tomllib.loads(_LIST.read_text())["mutant"]
    return [
        Mutant(m["name"], m["invariant"], tuple(m["tests"]), tuple(Change(**c) for c in m["change"])) for m in listed
    ]
