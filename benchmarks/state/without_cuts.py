"""A build of the core that keeps no cut numbers, to measure what they cost: its update leaves rows' bookkeeping of cuts
and last sights alone, and lists no touched rows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from benchmarks import _harness

_SOURCES = ("embtables", "models", "pipelines", "serving", "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE")
_KERNEL, _CALL = "embtables/native/rows/update_kernel.cpp", "        touch(g, row, counts);\n"


def build(folder: Path) -> Mapping[str, str]:
    """Builds it into the folder. Returns the environment in which `python -S -P` finds it."""
    source, site = folder / "source", folder / "site"
    source.mkdir(parents=True)
    for name in _SOURCES:
        item = _harness.ROOT / name
        if item.is_dir():
            shutil.copytree(item, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"), symlinks=True)
        else:
            shutil.copy2(item, source / name)
    kernel = source / _KERNEL
    text = kernel.read_text()
    assert text.count(_CALL) == 1, "the update kernel touches rows elsewhere now"
    kernel.write_text(text.replace(_CALL, ""))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([*command, str(source)], env={**os.environ, "PATH": path}, check=True)
    # The benchmarks come from here, everything else of the project from the copy.
    shutil.copytree(_harness.ROOT / "benchmarks", site / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), sysconfig.get_path("purelib")])}
