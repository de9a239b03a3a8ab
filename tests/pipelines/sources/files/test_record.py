"""A run that goes on reads the files that its epoch began with: each row once, or a refusal that says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from embtables.errors import StateError
from embtables.inputs.features import Needs
from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.epochs import LogEpochs
from embtables.pipelines.sources.files.record import FilesRecord
from embtables.pipelines.sources.log import Log
from embtables.shard.world import SingleRank
from tests.pipelines.conftest import make_table

Make = Callable[..., RunConfig]


def add(folder: Path, name: str, first: int, rows: int = 600) -> None:
    pq.write_table(make_table(rows, seed=first, first=first), folder / name, row_group_size=150)


class Run:
    """An epoch that stops after some batches and goes on, over a log that may change meanwhile."""

    def __init__(self, make_config: Make, folder: Path, *, shuffled: bool) -> None:
        shuffle = {"buffer_rows": 500} if shuffled else None
        self.config = make_config(**{"dense": [{"column": "row"}], "data.split": None, "data.shuffle": shuffle})
        self.folder = folder
        self.seen: list[int] = []
        self.position: dict[str, Any] | None = None

    def go(self, steps: int | None = None, epoch: int = 0) -> None:
        log = Log(self.config, self.config.data)
        source = LogEpochs(
            log,
            log.fit_transforms(0),
            self.config.train,
            SingleRank(),
            needs=Needs(),
            epoch_rows=None,
            quarantine_dir=self.folder / "quarantine",
            record=FilesRecord(self.folder / "files"),
        )
        stretch = source.stretch(epoch, self.position)
        assert stretch is not None
        for number, item in enumerate(stretch):
            self.seen += item.batch.dense[:, 0].int().tolist()
            self.position = item.position.to_json()
            if number + 1 == steps:
                return
        self.position = None


@pytest.fixture(params=[False, True], ids=["in order", "shuffled"])
def run(request: pytest.FixtureRequest, make_config: Make, tmp_path: Path) -> Run:
    return Run(make_config, tmp_path, shuffled=request.param)


def test_an_unchanged_log_goes_on(run: Run) -> None:
    run.go(7)
    run.go(3)
    run.go()
    assert Counter(run.seen) == Counter(range(1800))


def test_files_that_come_after_the_others_are_read_once(
    run: Run, log_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.go(7)
    add(log_dir, "part-9.parquet", 5_000)
    run.go(2)
    add(log_dir, "part-99.parquet", 6_000)
    run.go()
    told = capsys.readouterr().err
    in_order = run.config.data.shuffle is None
    added = [*range(5_000, 5_600), *range(6_000, 6_600)]
    assert Counter(run.seen) == Counter([*range(1800), *(added if in_order else ())])
    assert ("read at the end of this epoch: part-9.parquet" in told) == in_order
    assert ("goes on without them, because rows come in shuffled order" in told) == (not in_order)
    run.seen.clear()
    run.go(epoch=1)
    assert Counter(run.seen) == Counter([*range(1800), *added])


def test_files_that_come_before_others_wait_for_the_next_epoch(
    run: Run, log_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.go(7)
    add(log_dir, "part-00.parquet", 5_000)
    run.go()
    assert Counter(run.seen) == Counter(range(1800))
    assert "part-00.parquet" in capsys.readouterr().err
    run.seen.clear()
    run.go(epoch=1)
    assert Counter(run.seen) == Counter([*range(1800), *range(5_000, 5_600)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: (log / "part-1.parquet").unlink(), r"part-1\.parquet is gone \(it had 600 rows\)"),
        (lambda log: (log / "part-1.parquet").rename(log / "part-7.parquet"), r"part-1\.parquet is gone"),
        (lambda log: add(log, "part-1.parquet", 600, rows=900), r"part-1\.parquet had 600 rows in .* and has 900 rows"),
        (lambda log: add(log, "part-1.parquet", 9_000), r"part-1\.parquet had 600 rows .* but other bytes"),
    ],
)
def test_files_that_are_not_what_they_were_are_refused(
    run: Run, log_dir: Path, change: Callable[[Path], object], message: str
) -> None:
    run.go(7)
    change(log_dir)
    with pytest.raises(StateError, match=message):
        run.go()


def test_the_next_epoch_takes_the_log_as_it_is(run: Run, log_dir: Path) -> None:
    run.go()
    (log_dir / "part-1.parquet").unlink()
    run.seen.clear()
    run.go(epoch=1)
    assert Counter(run.seen) == Counter([*range(600), *range(1200, 1800)])


def test_a_log_may_move_with_all_its_files(run: Run, log_dir: Path) -> None:
    run.go(7)
    moved = log_dir.rename(log_dir.with_name("elsewhere"))
    run.config = run.config.model_copy(update={"data": run.config.data.model_copy(update={"path": str(moved)})})
    run.go()
    assert Counter(run.seen) == Counter(range(1800))


def test_a_damaged_or_missing_record_is_refused(run: Run, log_dir: Path) -> None:
    run.go(7)
    add(log_dir, "part-9.parquet", 5_000)
    (record,) = (run.folder / "files").glob("*.json")
    raw = record.read_bytes()
    record.write_bytes(raw.replace(b"150", b"151"))
    with pytest.raises(StateError, match="its checksum differs"):
        run.go()
    record.unlink()
    with pytest.raises(StateError, match="cannot be read"):
        run.go()


def test_a_position_of_a_version_without_a_record_goes_on(run: Run) -> None:
    run.go(7)
    assert run.position is not None
    del run.position["files"]
    run.go()
    assert Counter(run.seen) == Counter(range(1800))
