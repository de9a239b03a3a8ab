"""What is shipped, built once: the sdist, the wheel made from it, and an environment that has the wheel."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# Only a folder on the path: its .pth files, and so the finder of the editable install, are not read.
DEPENDENCIES = [path for path in sys.path if Path(path).name == "site-packages"]


def call(*argv: object, folder: Path, stdin: str = "", **environment: str) -> str:
    """Runs a command in a folder and returns its stdout; a failure shows all that it printed."""
    done = subprocess.run(
        list(map(str, argv)),
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **environment},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "packages"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def wheel(shared: Path) -> Path:
    """The wheel, built from the sdist, which lies beside it."""
    with _locked(shared / "build.lock"):
        if not list(shared.glob("*.whl")):
            # Without --wheel: the sdist first, and the wheel from what it holds.
            strict = "-Ccmake.define.CMAKE_COMPILE_WARNING_AS_ERROR=ON"
            call(sys.executable, "-m", "build", "--no-isolation", "--outdir", shared, ROOT, strict, folder=shared)
    (built,) = shared.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def python_of_wheel(wheel: Path, shared: Path) -> Path:
    """The interpreter of an environment that has the wheel, and behind it the packages it depends on."""
    home = shared / "environment"
    python = home / "bin" / "python"
    with _locked(shared / "environment.lock"):
        if not home.exists():
            venv.create(home, symlinks=True)
            (site,) = home.glob("lib/python*/site-packages")
            # pip first: once it sees the editable install it takes the wheel for installed.
            call(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, folder=shared)
            (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in DEPENDENCIES))
    return python
