"""The docs as a site: generated pages, pages staged as they lie in the repository, zensical, and a check of every link.

    python docs/site/build.py --write          writes docs/options.md and docs/reference.md
    python docs/site/build.py FOLDER           builds FOLDER/site; exit status 1 where a generated page is stale or a
                                               link of the site leads nowhere

Pages link to each other by their places in the repository, so that the links work there too: README.md, docs/,
examples/ and benchmarks/RESULTS.md are staged side by side.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import options
import reference

ROOT = Path(__file__).parents[2]
GENERATED = {"docs/options.md": options.page, "docs/reference.md": reference.page}
_LINK = re.compile(r"\]\(([^)\s#]+)")


def stale() -> list[str]:
    """What is wrong with the generated pages."""
    found = [f"embtables.{name} is in no section of docs/site/reference.py" for name in reference.unlisted()]
    for name, page in GENERATED.items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != page():
            found.append(f"{name} is stale: run `make docs`")
    return found


def stage(folder: Path) -> None:
    """Copies the pages, and the files they link to, to where zensical looks for them."""
    pages = [ROOT / "README.md", ROOT / "benchmarks" / "RESULTS.md"]
    pages += [*ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md"), *ROOT.glob("examples/data/README.md")]
    linked = {
        (page.parent / target).resolve()
        for page in pages
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target
    }
    files = {*pages, *(path for path in linked if path.is_file() and path.is_relative_to(ROOT))}
    for file in files:
        target = folder / "pages" / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    shutil.copyfile(Path(__file__).with_name("mkdocs.yml"), folder / "mkdocs.yml")


class _Page(HTMLParser):
    """The anchors of a page and where it leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src"):
                self.links.append(value)


def broken_links(site: Path) -> Iterator[str]:
    """Links within the site to a file or an anchor that is not there."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in sorted(pages.items()):
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            where = path.relative_to(site)
            if not target.is_file():
                yield f"{where}: there is no {link}"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{where}: there is no heading for {link}"


def build(folder: Path) -> list[str]:
    """Builds the site; what is wrong with it."""
    shutil.rmtree(folder, ignore_errors=True)
    stage(folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(folder / "mkdocs.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        return [said.partition("Traceback")[0]]
    return list(broken_links((folder / "site").resolve()))


def main(arguments: list[str]) -> int:
    """See the module."""
    if arguments == ["--write"]:
        for name, page in GENERATED.items():
            (ROOT / name).write_text(page(), encoding="utf-8")
        return 0
    problems = [*stale(), *build(Path(arguments[0]).resolve())]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
