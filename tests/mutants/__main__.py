"""Makes each change of mutants.toml in a copy of the tree, builds it, and expects the tests it names to fail.

The unchanged copy is tested first: what fails there proves nothing.
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
from tests.mutants.changes import Mutant, all_mutants

ROOT = Path(__file__).parents[2]
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
                shutil.copytree(item, self.source / name, ignore=ignored, symlinks=True)
            else:
                shutil.copy2(item, self.source / name)
        shutil.copytree(ROOT / "tests", self._tests / "tests", ignore=ignored)
        shutil.copy2(ROOT / "pyproject.toml", self._tests / "pyproject.toml")
        # For tests that compile a part of it. Python imports what `build` installs, which comes first in its path.
        (self._tests / "embtables").symlink_to(self.source / "embtables")

    def build(self) -> None:
        """Installs the copy into a folder of its own; only what changed is compiled anew."""
        shutil.rmtree(self._site, ignore_errors=True)
        bin_folder = Path(sys.executable).parent
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
        command += ["--target", str(self._site), f"--config-settings=build-dir={self._build}", str(self.source)]
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


def main() -> None:
    known = all_mutants()
    wanted = [m for m in known if len(sys.argv) == 1 or m.name in sys.argv[1:]]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        tree.build()
        for selection in dict.fromkeys(m.tests for m in wanted):
            if not tree.tests_pass(list(selection)):
                sys.exit(f"these fail without any change: {selection}")
        for mutant in wanted:
            start = time.monotonic()
            with mutant.in_place(tree.source):
                tree.build()
                survived = tree.tests_pass(list(mutant.tests))
            found = "SURVIVED" if survived else "noticed"
            print(f"{found}  {mutant.name}: {mutant.invariant} ({time.monotonic() - start:.0f} s)", flush=True)
            survivors += [mutant.name] if survived else []
    if survivors:
        sys.exit(f"{len(survivors)} of {len(wanted)} mutants were not noticed: {', '.join(survivors)}")
    print(f"all {len(wanted)} mutants were noticed")
    if len(wanted) == len(known):
        _record(wanted)


def _record(mutants: list[Mutant]) -> None:
    where = _harness.machine()
    rows = [[m.name.replace("_", " "), m.invariant] for m in mutants]
    about = f"`make mutants` on {where['cpu']}, commit {where['commit']}, {where['date']}: each made a test fail."
    table = _harness.table(["broken on purpose", "invariant"], rows)
    _harness.write_section("mutants", f"## Mutants\n\n{about}\n\n{table}\n")


if __name__ == "__main__":
    main()
