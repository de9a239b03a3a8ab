"""Applies each patch to a copy of the tree, builds it, and expects the tests it names to fail.

The first lines of a patch say which invariant it breaks (`invariant:`) and what must notice (`tests:`, as pytest takes
it). The unchanged copy is tested first: what fails there proves nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from benchmarks import _harness

ROOT = Path(__file__).parents[2]
PATCHES = sorted(Path(__file__).parent.glob("*.patch"))
COPIED = ("embtables", "models", "pipelines", "serving", "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE")


class Tree:
    """A copy of the sources, what was built of it, and a folder with the tests alone to run them from."""

    def __init__(self, folder: Path) -> None:
        self.source, self._build, self._site, self._tests = (folder / n for n in ("source", "build", "site", "tests"))
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        self.source.mkdir()
        for name in COPIED:
            item = ROOT / name
            if item.is_dir():
                shutil.copytree(item, self.source / name, ignore=ignored)
            else:
                shutil.copy2(item, self.source / name)
        shutil.copytree(ROOT / "tests", self._tests / "tests", ignore=ignored)
        shutil.copy2(ROOT / "pyproject.toml", self._tests / "pyproject.toml")

    def build(self) -> None:
        """Installs the copy into a folder of its own; only what changed is compiled anew."""
        shutil.rmtree(self._site, ignore_errors=True)
        bin_folder = Path(sys.executable).parent
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
        command += ["--target", str(self._site), f"-Cbuild-dir={self._build}", str(self.source)]
        environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"the copy does not build:\n{done.stdout}\n{done.stderr}")

    def tests_pass(self, selection: list[str]) -> bool:
        """Runs tests against the copy. Without `site`, the finder of an editable install stays away."""
        purelib = sysconfig.get_path("purelib")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self._site), str(self._tests), purelib])}
        command = [sys.executable, "-S", "-P", "-m", "pytest", "-q", "-x", "--import-mode=append", *selection]
        done = subprocess.run(
            command, cwd=self._tests, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode not in (0, 1):
            sys.exit(f"pytest could not run {selection}:\n{done.stdout}\n{done.stderr}")
        return done.returncode == 0

    def patch(self, patch: Path, *, reverse: bool = False) -> None:
        """Applies a patch, or takes it back."""
        direction = ["-R"] if reverse else []
        subprocess.run(["git", "apply", *direction, str(patch)], cwd=self.source, check=True)


def header(patch: Path, name: str) -> str:
    """A line of the patch's head."""
    return next(line.split(":", 1)[1].strip() for line in patch.read_text().splitlines() if line.startswith(f"{name}:"))


def main() -> None:
    wanted = [p for p in PATCHES if len(sys.argv) == 1 or p.stem in sys.argv[1:]]
    selections = {patch: header(patch, "tests").split(" | ") for patch in wanted}
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        tree.build()
        for selection in {tuple(s) for s in selections.values()}:
            if not tree.tests_pass(list(selection)):
                sys.exit(f"these fail without any patch: {selection}")
        for patch, selection in selections.items():
            start = time.monotonic()
            tree.patch(patch)
            tree.build()
            survived = tree.tests_pass(selection)
            tree.patch(patch, reverse=True)
            told = "SURVIVED" if survived else "noticed"
            print(f"{told}  {patch.stem}: {header(patch, 'invariant')} ({time.monotonic() - start:.0f} s)", flush=True)
            survivors += [patch.stem] if survived else []
    if survivors:
        sys.exit(f"{len(survivors)} of {len(wanted)} mutants were not noticed: {', '.join(survivors)}")
    print(f"all {len(wanted)} mutants were noticed")
    if len(wanted) == len(PATCHES):
        _record(wanted)


def _record(patches: list[Path]) -> None:
    where = _harness.machine()
    rows = [[patch.stem.replace("_", " "), header(patch, "invariant")] for patch in patches]
    about = f"`make mutants` on {where['cpu']}, commit {where['commit']}, {where['date']}: each made a test fail."
    table = _harness.table(["broken on purpose", "invariant"], rows)
    _harness.write_section("mutants", f"## Mutants\n\n{about}\n\n{table}\n")


if __name__ == "__main__":
    main()
