"""A short part of `make fuzz` with a fixed seed, and the checks' own checks."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.fuzz import check as checks
from tests.fuzz.__main__ import fuzz
from tests.fuzz.check import FAULTS
from tests.fuzz.drawn.draw import draw
from tests.fuzz.table import BEGIN, END, PAGE, generated, with_table
from tests.fuzz.worker import Worker


@pytest.mark.slow
def test_random_logs_are_read_as_the_oracle_reads_them() -> None:
    counts = fuzz(seed=15, seconds=280, cases=250)
    assert {kind: counts[kind] for kind in FAULTS} == dict.fromkeys(FAULTS, 0)
    # Most draws must be read to the end: a generator that only draws what is refused proves nothing.
    assert counts["trained"] > 60


def test_a_case_is_drawn_alike_from_its_seed(tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        root = tmp_path / name
        root.mkdir()
        config = draw(5, 3, root)
        tables = [pq.ParquetFile(path).read() for path in sorted((root / "log").rglob("*.parquet"))]
        drawn.append((config, [(table.schema, table.num_rows, table.nbytes) for table in tables]))
    assert drawn[0] == drawn[1]


def test_a_wrong_row_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an oracle that has one id for all values, what the package reads is wrong."""
    monkeypatch.setattr("tests.fuzz.oracle.values.one_id", lambda *_: 12_345)
    kinds = [checks.check(1, number, tmp_path / str(number)).kind for number in range(1, 8)]
    assert "wrong rows" in kinds


def test_a_hang_and_the_end_of_a_process_are_told(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    assert worker.check(1, 1, 0.0).kind == "hang"
    worker._process.kill()
    worker._process.join()
    assert worker.check(1, 1, 60).kind == "died"
    assert worker.check(1, 1, 60).kind in ("trained", "refused")
    worker.stop()


@pytest.mark.slow
def test_the_table_of_types_and_roles_is_what_the_reader_does() -> None:
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert page == with_table(page, generated()), "run `make docs`"
