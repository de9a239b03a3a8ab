"""The sdist and the wheel: what they hold, and the wheel used from outside the source tree."""

from __future__ import annotations

import json
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, call

GOLDEN = ROOT / "tests" / "golden" / "string_hash.json"
LINKED = ("models", "pipelines", "serving")

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


def tree_state() -> dict[Path, int]:
    """Every file of the tree's own build, and when it was last written."""
    folders = [ROOT / "build", ROOT / "dist", ROOT / "embtables" / "native"]
    files = [f for folder in folders for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    return {f: f.stat().st_mtime_ns for f in files}


def modules_of_tree() -> set[str]:
    """Every Python file of the package in the tree, as `embtables/...`."""
    found = set()
    for folder in ("embtables", *LINKED):
        for file in (ROOT / folder).rglob("*.py"):
            name = file.relative_to(ROOT).as_posix()
            found.add(f"embtables/{name}" if folder in LINKED else name)
    return found


@pytest.mark.slow
def test_the_wheel_works_outside_the_tree(python_of_wheel: Path, tmp_path: Path) -> None:
    strings: dict[str, int] = json.loads(GOLDEN.read_text())["strings"]
    out = call(python_of_wheel, "-c", USE, folder=tmp_path, stdin=json.dumps(list(strings)))
    files, hashes = json.loads(out)
    home = python_of_wheel.parents[1]
    assert all(Path(file).is_relative_to(home) for file in files), files
    assert [h % 2**64 for h in hashes] == list(strings.values())
    assert "train" in call(python_of_wheel.with_name("embtables"), "--help", folder=tmp_path)


@pytest.mark.slow
def test_the_wheel_holds_one_package_with_types_and_licence_and_no_sources(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"embtables/py.typed", "embtables/native/_core.pyi"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"embtables"}
    assert not [name for name in names if name.endswith((".cpp", ".h", ".o"))]
    assert {name for name in names if name.endswith(".py")} == modules_of_tree()


@pytest.mark.slow
def test_the_sdist_holds_each_module_once_as_a_file(wheel: Path) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = {member.name.split("/", 1)[1]: member for member in archive.getmembers() if "/" in member.name}
    assert modules_of_tree() <= members.keys()
    assert all(member.isfile() for name, member in members.items() if name.startswith("embtables/"))
    assert not [name for name in members if name.startswith(tuple(f"{folder}/" for folder in LINKED))]


@pytest.mark.slow
def test_a_wheel_made_from_the_tree_holds_the_same_modules_and_leaves_the_tree_alone(tmp_path: Path) -> None:
    before = tree_state()
    options = [f"-Cbuild-dir={tmp_path / 'build'}", "-Cwheel.cmake=false"]  # its modules in Python are looked at
    call(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        tmp_path,
        ROOT,
        *options,
        folder=tmp_path,
    )
    assert tree_state() == before, "building the wheel touched the tree"
    (built,) = tmp_path.glob("*.whl")
    assert {name for name in zipfile.ZipFile(built).namelist() if name.endswith(".py")} == modules_of_tree()
