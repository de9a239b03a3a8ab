"""The map of served keys, for readers beside a writer: faster without Python than any table that it drives."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ["tests/native/drive_map.cpp", "embtables/native/serve/served_map.cpp", "embtables/native/base/memory.cpp"]


def test_a_row_is_not_found_with_the_time_of_a_later_one(tmp_path: Path) -> None:
    drive = tmp_path / "drive_map"
    command = ["g++", "-std=c++20", "-O2", "-Iembtables/native", *SOURCES, "-lpthread", "-o", str(drive)]
    subprocess.run(command, cwd=ROOT, check=True)
    done = subprocess.run([drive], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
