"""A run that was stopped and goes on reports what one that was not would have."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training.loop import TrainLoop
from embtables.pipelines.training.signals import InterruptedRunError
from embtables.pipelines.training.train import resume, train

Make = Callable[..., RunConfig]
CHANGES: dict[str, Any] = {"data.on_bad_row": "quarantine", "train.epochs": 2, "train.batch_size": 100}


@pytest.fixture
def bad_rows(log_dir: Path) -> int:
    """Rows of every file without a price; how many there are."""
    for path in log_dir.iterdir():
        table = pq.read_table(path)
        prices = table.column("price").to_pylist()
        prices[::40] = [float("nan")] * len(prices[::40])
        at = table.schema.get_field_index("price")
        pq.write_table(table.set_column(at, "price", pa.array(prices)), path, row_group_size=150)
    return 3 * 15


def stopped(monkeypatch: pytest.MonkeyPatch, config: RunConfig, stop_at: int) -> RunDir:
    """A run that was asked to stop at a step."""
    step = TrainLoop._step

    def stopping(loop: TrainLoop, item: Any, of_all: Any) -> torch.Tensor:
        loss = step(loop, item, of_all)
        if loop.state.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    monkeypatch.setattr(TrainLoop, "_step", stopping)
    with pytest.raises(InterruptedRunError) as raised:
        train(config, shown=False)
    monkeypatch.undo()
    return RunDir.open(Path(str(raised.value).rsplit(" ", 1)[1]))


def quarantined(report: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (Path(report["run_dir"]) / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "quarantined" in line]


@pytest.mark.parametrize("stop_at", [1, 6, 17])
@pytest.mark.usefixtures("bad_rows")
def test_rows_set_aside_before_a_stop_are_counted(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    config = make_config(**CHANGES)
    whole = train(config, shown=False)
    report = resume(stopped(monkeypatch, config, stop_at), shown=False)
    passing = {"train_seconds", "rows_per_second", "run_dir"}
    assert {k: v for k, v in report.items() if k not in passing} == {k: v for k, v in whole.items() if k not in passing}
    assert report["quarantined_rows"] > 20
    assert quarantined(report) == quarantined(whole)


def test_rows_set_aside_by_a_run_that_ends_within_an_epoch_are_counted(make_config: Make, bad_rows: int) -> None:
    report = train(make_config(**{**CHANGES, "data.split": None, "train.max_steps": 17}), shown=False)
    assert report["epochs"] == 0
    assert 0 < report["quarantined_rows"] <= bad_rows
    assert sum(sum(line["quarantined"].values()) for line in quarantined(report)) == report["quarantined_rows"]


def test_a_file_that_was_set_aside_before_a_stop_is_named(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, log_dir: Path
) -> None:
    path = log_dir / "part-0.parquet"
    raw = bytearray(path.read_bytes())
    footer = pq.read_metadata(path).row_group(0).column(1)
    start = footer.dictionary_page_offset or footer.data_page_offset
    raw[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(raw))
    changes = {"data.on_bad_file": "quarantine", "data.shuffle": None, "data.split": None, "train.epochs": 1}
    config = make_config(**changes)
    whole = train(config, shown=False)
    assert whole["quarantined_files"] == [str(path)]
    run = stopped(monkeypatch, config, 5)
    assert resume(run, shown=False)["quarantined_files"] == [str(path)]


OF_TABLE: dict[str, Any] = {"dim": 8, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}}
COUNTING = [
    {"name": "user", **OF_TABLE, "ttl_seconds": 7_200, "admission": {"kind": "min_count", "count": 2}},
    {"name": "item", **OF_TABLE, "max_rows": 20, "admission": {"kind": "probability", "probability": 0.5}},
]


@pytest.mark.parametrize("stop_at", [1, 9])
def test_what_tables_have_done_is_counted_over_a_stop(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    changes: dict[str, Any] = {"tables": COUNTING, "data.shuffle": None, "train.epochs": 1, "train.batch_size": 50}
    config = make_config(**changes, **{"train.evaluate_every_steps": 7})
    whole = train(config, shown=False)["tables"]
    report = resume(stopped(monkeypatch, config, stop_at), shown=False)["tables"]
    for table in (*whole.values(), *report.values()):
        del table["bytes"]  # memory holds what is past its ttl until the sweep comes, a version does not
    assert report == whole
    assert whole["user"]["expired"] > 0
    assert whole["item"]["evicted"] > 0
    assert all(table["admitted"] > 0 for table in whole.values())
