"""The built wheel, installed into a folder of its own and used from outside the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
GOLDEN = ROOT / "tests" / "golden" / "string_hash.json"

# Run by an interpreter that starts without `site`, because the finder of an editable install comes before any path.
ALONE = (sys.executable, "-S")
DEPENDENCIES = sysconfig.get_path("purelib")
# Prints where each module lies, and hashes the strings it is given.
USE = """
import json, sys
import pyarrow as pa
import embtables, embtables.native._core, embtables.models, embtables.pipelines, embtables.serving
from embtables.ids.strings import hash_strings

words = json.load(sys.stdin)
modules = [embtables, embtables.native._core, embtables.models, embtables.pipelines, embtables.serving]
print(json.dumps([[m.__file__ for m in modules], hash_strings(pa.array(words)).tolist()]))
"""


def call(*argv: str, folder: Path, stdin: str = "", **environment: str) -> str:
    done = subprocess.run(
        argv, cwd=folder, env={**os.environ, **environment}, input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tree_state() -> dict[Path, int]:
    """Every file of the tree's own build, and when it was last written."""
    folders = [ROOT / "build", ROOT / "dist", ROOT / "embtables" / "native"]
    files = [f for folder in folders for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    return {f: f.stat().st_mtime_ns for f in files}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("wheel")
    before = tree_state()
    # fmt: off
    call(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), str(ROOT),
        f"-Cbuild-dir={work / 'build'}", "-Ccmake.define.CMAKE_COMPILE_WARNING_AS_ERROR=ON",
        folder=work, PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
    )
    # fmt: on
    assert tree_state() == before, "building the wheel touched the tree"
    (built,) = work.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_works_outside_the_tree(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    call(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel), folder=elsewhere
    )
    path = f"{target}{os.pathsep}{DEPENDENCIES}"
    strings: dict[str, int] = json.loads(GOLDEN.read_text())["strings"]
    out = call(*ALONE, "-c", USE, folder=elsewhere, stdin=json.dumps(list(strings)), PYTHONPATH=path)
    files, hashes = json.loads(out)
    assert all(Path(f).is_relative_to(target) for f in files), files
    assert [h % 2**64 for h in hashes] == list(strings.values())
    assert "train" in call(*ALONE, str(target / "bin" / "embtables"), "--help", folder=elsewhere, PYTHONPATH=path)


@pytest.mark.slow
def test_the_wheel_holds_types_and_licence_and_no_sources(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"embtables/py.typed", "embtables/native/_core.pyi"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"embtables"}
    assert not [name for name in names if name.endswith((".cpp", ".h", ".o"))]
