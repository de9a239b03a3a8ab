"""Resume over a log that has changed since: each row is trained on once, or the run is refused with the difference.

A row's id is its number, and a table has a row for every id that was trained on: a run over n rows whose table then
holds n has trained on each exactly once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest

from embtables.pipelines.training.loop import TrainLoop
from tests.cases.case import embtables, train
from tests.cases.log import Folder, clicks, config

ROWS, FILES = 400, 10
SHUFFLED = "shuffle: {seed: 1, buffer_rows: 1000}, block_rows: 400"
IN_ORDER = "block_rows: 400"


def day(folder: Folder, number: int, rows: int = ROWS) -> Path:
    """The file of a day; its ids are of no other."""
    columns = clicks(rows, seed=number)
    return folder.write(f"{number:02}.parquet", {**columns, "u": pa.array(number * 100_000 + np.arange(rows))})


def stopped_run(folder: Folder, data: str, at: int = 20) -> Path:
    """A run over ten files that was asked to stop at a step."""
    for number in range(1, FILES + 1):
        day(folder, number)
    text = config(data=data).replace("batch_size: 256", "batch_size: 100")
    step, steps = TrainLoop._step, []

    def stopping(loop: TrainLoop, *arguments: Any) -> Any:
        steps.append(step(loop, *arguments))
        if len(steps) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return steps[-1]

    with mock.patch.object(TrainLoop, "_step", stopping):
        assert train(folder, text).status != 0
    (run,) = (folder.root / "runs").iterdir()
    return run


def resumed(run: Path) -> tuple[int, int, str]:
    """Rows of the report, rows of the table (0, 0 if it was refused), and what was said."""
    done = embtables("train", "--resume", run, "--json")
    if done.status:
        return 0, 0, done.errors
    return done.report["rows"], done.report["tables"]["t"]["rows"], done.errors


@pytest.mark.parametrize("data", [SHUFFLED, IN_ORDER])
def test_an_unchanged_log(tmp_path: Path, data: str) -> None:
    run = stopped_run(Folder(tmp_path), data)
    assert resumed(run)[:2] == (ROWS * FILES, ROWS * FILES)


def add_first(folder: Folder) -> None:
    day(folder, 0)


def add_last(folder: Folder) -> None:
    day(folder, 99)


def remove_read(folder: Folder) -> None:
    folder.path("log/01.parquet").unlink()


def remove_unread(folder: Folder) -> None:
    folder.path("log/10.parquet").unlink()


def grow(folder: Folder) -> None:
    day(folder, 1, rows=2 * ROWS)


def shrink(folder: Folder) -> None:
    day(folder, 10, rows=ROWS // 2)


def other_row_groups(folder: Folder) -> None:
    columns = clicks(ROWS, seed=5)
    ids = pa.array(5 * 100_000 + np.arange(ROWS))
    folder.write("05.parquet", {**columns, "u": ids}, row_group_size=100)


LEFT, TAKEN = "this epoch goes on without them", "are read at the end of this epoch"


@pytest.mark.parametrize("data", [SHUFFLED, IN_ORDER], ids=["shuffled", "in order"])
@pytest.mark.parametrize(("add", "name"), [(add_first, "00.parquet"), (add_last, "99.parquet")])
def test_files_that_were_added(tmp_path: Path, add: Callable[[Folder], None], name: str, data: str) -> None:
    folder = Folder(tmp_path)
    run = stopped_run(folder, data)
    add(folder)
    is_taken = add is add_last and data == IN_ORDER
    rows, ids, said = resumed(run)
    assert rows == ids == ROWS * (FILES + is_taken)
    assert (TAKEN if is_taken else LEFT) in said
    assert name in said


@pytest.mark.parametrize("data", [SHUFFLED, IN_ORDER], ids=["shuffled", "in order"])
@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (remove_read, "01.parquet is gone (it had 400 rows)"),
        (remove_unread, "10.parquet is gone (it had 400 rows)"),
        (grow, "and has 800 rows"),
        (shrink, "and has 200 rows"),
        (other_row_groups, "and has the same number of rows, but other bytes"),
    ],
)
def test_files_that_are_not_what_was_read_are_refused(
    tmp_path: Path, change: Callable[[Folder], None], difference: str, data: str
) -> None:
    folder = Folder(tmp_path)
    run = stopped_run(folder, data)
    change(folder)
    rows, _, said = resumed(run)
    assert rows == 0
    assert difference in said


@pytest.mark.parametrize("data", [SHUFFLED, IN_ORDER], ids=["shuffled", "in order"])
def test_the_same_bytes_in_new_files(tmp_path: Path, data: str) -> None:
    """As a copy or a checkout leaves them: other times, the same rows."""
    folder = Folder(tmp_path)
    run = stopped_run(folder, data)
    for path in sorted((tmp_path / "log").iterdir()):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert resumed(run)[:2] == (ROWS * FILES, ROWS * FILES)
