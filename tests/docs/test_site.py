"""The docs as a site: generated pages that are fresh, a strict build, links that lead somewhere, lines that fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "site"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=SITE, capture_output=True, text=True, check=False)


def test_the_site_builds_and_its_generated_pages_and_links_are_right(tmp_path: Path) -> None:
    done = run("build.py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "site" / "index.html").exists()
    assert (tmp_path / "site" / "docs" / "options.html").exists()


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<a href='b.html#here'>1</a><a href='b.html#gone'>2</a><img src='none.png'>")
    (tmp_path / "b.html").write_text("<h2 id='here'>x</h2><a href='https://example.org/x'>3</a><a href='a.html'>4</a>")
    code = "import build, pathlib, sys; print(*build.broken_links(pathlib.Path(sys.argv[1])), sep='\\n')"
    done = run("-c", code, tmp_path)
    assert done.stdout.splitlines() == ["a.html: there is no heading for b.html#gone", "a.html: there is no none.png"]


def test_every_option_has_a_meaning() -> None:
    rows = [line for line in (ROOT / "docs" / "options.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert not [row for row in rows if row.endswith("|  |")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_lines_fit(page: Path) -> None:
    """120 characters, but for tables and code."""
    code, long = False, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        code ^= line.startswith("```")
        if len(line) > 120 and not code and not line.startswith("|"):
            long.append(number)
    assert not long, f"{page.name}: lines {long} have more than 120 characters"
