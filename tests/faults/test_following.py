"""A server's side killed while it takes versions over starts again at a whole one, not before one it has shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.faults import following

SAMPLE = 5  # kills in `make test`; `make crash` makes a hundred


def test_killed_while_rows_are_applied_it_starts_at_a_whole_version(tmp_path: Path) -> None:
    folder = tmp_path / "versions"
    following.write_versions(folder)
    points = following.points(folder)
    assert points >= 100
    chosen = np.linspace(20, points, SAMPLE).astype(int).tolist()
    begun = [following.survive(folder, nth) for nth in chosen]
    assert begun == sorted(begun)
    assert len(set(begun)) >= 3
