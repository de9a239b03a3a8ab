"""A replay: cut by event time, judged before it is trained on, published at every cut, resumed to the same bits."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import ConfigError
from embtables.models.scorer import Scorer
from embtables.models.served import served_tables
from embtables.models.version_content import scoring_content
from embtables.pipelines.config import RunConfig
from embtables.pipelines.online import log_flow
from embtables.pipelines.online.run_online import online, resume
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training.train import resume as resume_training
from embtables.pipelines.training.train import train
from embtables.schema import to_yaml
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.serve import load_served
from tests.state.versions_for_tests import rows_of

Make = Callable[..., RunConfig]
HOUR = 3600
ROWS = 1800  # one each minute: 30 hours
IN_ORDER = {"data.split": None, "data.shuffle": None, "train.epochs": 1, "train.batch_size": 30}


def replay(config: RunConfig, **options: Any) -> dict[str, Any]:
    return online(config, "replay", **options)


@pytest.fixture
def make(make_config: Make) -> Make:
    def made(**changes: Any) -> RunConfig:
        online = {"sync_seconds": 2 * HOUR, "report_seconds": 6 * HOUR, **changes.pop("online", {})}
        return make_config(**{**IN_ORDER, **changes}, online=online)

    return made


def run_of(report: dict[str, Any]) -> RunDir:
    return RunDir(Path(report["run_dir"]))


def published(run: RunDir) -> list[int]:
    """The step of each version for servers, without those that are the former one as a snapshot."""
    state = StateFolder(run.checkpoints)
    versions = [state.manifest("serving", number) for number in state.sequences("serving")]
    return [version.content["published"]["step"] for version in versions if version.same_as is None]


def newest_rows(run: RunDir, purpose: str) -> dict[str, dict[int, bytes]]:
    state = StateFolder(run.checkpoints)
    return rows_of(state, f"{purpose}-{state.sequences(purpose)[-1]}")  # type: ignore[arg-type]


def test_it_trains_what_one_epoch_in_order_trains(make: Make) -> None:
    config = make(publish={"keep": 100})
    online, batch = replay(config, shown=False), train(config, shown=False)
    assert (online["rows"], online["steps"]) == (batch["rows"], batch["steps"]) == (ROWS, ROWS // 30)
    assert newest_rows(run_of(online), "resume") == newest_rows(run_of(batch), "resume")


def test_a_version_is_published_at_every_multiple_of_the_interval(make: Make) -> None:
    # A batch is half an hour, and its median time decides: the fifth is the first beyond two hours.
    assert published(run_of(replay(make(publish={"keep": 100}), shown=False))) == [0, *range(5, 60, 4), 60]
    by_rows = replay(make(publish={"keep": 100}, online={"sync_rows": 300, "sync_seconds": None}), shown=False)
    assert published(run_of(by_rows)) == list(range(0, 61, 10))


def scorer_of(run: RunDir, number: int) -> Scorer:
    """What a server with a version scores by."""
    state = StateFolder(run.checkpoints)
    chain = state.chain("serving", number)
    tables = served_tables(state, chain)
    loaded = load_served(state, chain, tables)
    return Scorer.of_content(scoring_content(chain[-1]), tables, loaded.tensors, chain[-1].name)


def test_rows_are_judged_by_what_was_published_before_they_came(make: Make, log_dir: Path) -> None:
    config = make(
        publish={"keep": 100},
        online={"sync_seconds": 5 * HOUR, "report_seconds": 5 * HOUR},
        evaluate={"slices": [{"name": "many", "where": ["user < 20"]}]},
    )
    report = replay(config, shown=False)
    run, rows = run_of(report), pa.concat_tables([pq.read_table(f) for f in sorted(log_dir.glob("*.parquet"))])
    steps = published(run)
    loss = np.zeros(ROWS)
    for number, (begin, end) in enumerate(itertools.pairwise(steps)):
        part = rows.slice(30 * begin, 30 * (end - begin))
        scorer = scorer_of(run, number + 1)
        p, y = scorer.score(part)[:, 0].double().numpy(), part["label"].to_numpy()
        loss[30 * begin : 30 * end] = -np.where(y == 1, np.log(p), np.log1p(-p))
    assert report["log_loss"] == pytest.approx(loss.mean(), abs=1e-6)
    inside = rows["user"].to_numpy() < 20
    assert report["slices"]["many"]["log_loss"] == pytest.approx(loss[inside].mean(), abs=1e-6)
    assert report["slices"]["many"]["rows"] == inside.sum()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    periods = [line for line in lines if line["part"] == "online"]
    assert sum(line["rows"] for line in periods) == report["evaluated_rows"] == ROWS
    whole = sum(line["rows"] * line["log_loss"] for line in periods) / ROWS
    assert whole == pytest.approx(report["log_loss"], abs=1e-9)
    sizes = [(line["table_rows"], line["table_bytes"]) for line in periods]
    assert sizes == sorted(sizes)
    assert sizes[0][0] > 0
    assert sizes[-1] == tuple(sum(table[of] for table in report["tables"].values()) for of in ("rows", "bytes"))
    assert [line["from"] for line in periods] == [
        f"1970-01-{1 + h // 24:02}T{h % 24:02}:00:00Z" for h in range(0, 30, 5)
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(make: Make, tmp_path: Path, number: signal.Signals) -> None:
    config = make(publish={"keep": 100}, online={"sync_seconds": HOUR})
    whole = run_of(replay(config, shown=False))
    file = tmp_path / "my.yaml"
    file.write_text(to_yaml(config.model_copy(update={"train": config.train.model_copy(update={"runs_dir": "cut"})})))
    command = [sys.executable, "-m", "embtables", "online", str(file), "--replay", "--speed", "7200"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    folder = wait_for_versions(tmp_path / "cut", process, 3)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert "go on with: embtables online --resume" in said, said
    assert process.returncode != 0
    run = RunDir(folder)
    assert len(published(run)) < len(published(whole))
    resume(run, shown=False)
    assert newest_rows(run, "resume") == newest_rows(whole, "resume")
    assert newest_rows(run, "serving") == newest_rows(whole, "serving")
    assert published(run) == published(whole), said


def wait_for_versions(runs: Path, process: subprocess.Popen[str], count: int) -> Path:
    """The folder of the only run, once it has published so many versions."""
    import watchfiles

    runs.mkdir(exist_ok=True)
    for _ in watchfiles.watch(runs, rust_timeout=200, yield_on_timeout=True, step=20):
        assert process.poll() is None, process.communicate()[1]
        found = list(runs.glob("*/checkpoints/manifests/serving-*.json"))
        if len(found) >= count:
            return next(iter(runs.iterdir()))
    raise AssertionError("the watch ended")


def test_a_stray_time_ends_no_interval(make: Make, log_dir: Path) -> None:
    config = make(publish={"keep": 100})
    before = published(run_of(replay(config, shown=False)))
    for number, days in enumerate((90, -90)):
        file = sorted(log_dir.glob("*.parquet"))[number]
        table = pq.read_table(file)
        times = table["time"].cast(pa.timestamp("s")).to_numpy().copy()
        times[77] += np.timedelta64(days, "D")
        pq.write_table(table.set_column(table.schema.get_field_index("time"), "time", pa.array(times)), file)
    assert published(run_of(replay(config, shown=False))) == before


def test_what_scores_badly_is_not_published_until_it_scores_well(
    make: Make, log_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drift = {"window_rows": 240, "least_calibration": 0.5, "greatest_calibration": 1.6, "greatest_entropy": 5.0}
    config = make(publish={"keep": 100}, online={"drift": drift, "sync_seconds": HOUR}, **{"train.batch_size": 60})
    file = sorted(log_dir.glob("*.parquet"))[1]
    table = pq.read_table(file)  # of 600 rows nothing is clicked any more
    zeros = pa.array(np.zeros(600, np.int8))
    pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", zeros), file)
    steps = published(run_of(report := replay(config)))
    assert report["steps"] == ROWS // 60  # training goes on
    missing = set(range(steps[1], 31)) - set(steps)
    assert missing
    assert min(missing) > 10  # nothing is wrong with the first file
    said = " ".join(capsys.readouterr().err.split())
    assert "calibration of the last" in said
    assert "nothing is published" in said
    assert 30 in steps
    assert "publishing goes on" in said


def test_it_begins_with_a_run_and_replays_a_part(make: Make, make_config: Make) -> None:
    split = {"kind": "time", "test_from": "1970-01-01T20:00:00"}
    batch = train(make(**{"data.split": split}), shown=False)
    config = make(online={"part": "test"}, **{"data.split": split})
    report = replay(config, former=run_of(batch), shown=False)
    assert report["rows"] == report["evaluated_rows"] == ROWS - 20 * 60
    frozen = batch["log_loss"]
    assert report["log_loss"] < frozen  # it is the same rows, and learned from
    assert report["from"]["run"] == batch["run_dir"]


def test_a_speed_holds_batches_back_until_their_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(log_flow.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(log_flow.time, "sleep", sleep)
    replay(make(), speed=3600.0, shown=False)
    # From the middle of the first half hour to that of the last one: 29.5 hours, an hour each second.
    assert now[0] - 100.0 == pytest.approx(29.5, abs=1e-6)
    assert max(slept) <= 0.2  # a stop is seen soon


def test_mistakes_are_named(make: Make, make_config: Make) -> None:
    with pytest.raises(ConfigError, match="an online run needs event_time"):
        replay(make_config(**IN_ORDER, event_time=None), shown=False)
    with pytest.raises(ConfigError, match="give sync_seconds or sync_rows, not both"):
        make(online={"sync_rows": 5})
    with pytest.raises(ConfigError, match="must be below 'greatest_calibration'"):
        make(online={"drift": {"least_calibration": 3.0}})
    batch = run_of(train(make_config(**IN_ORDER, **{"train.max_steps": 2}), shown=False))
    with pytest.raises(ConfigError, match="it is no online run; go on with: embtables train --resume"):
        resume(batch, shown=False)
    online = run_of(replay(make(**{"train.max_steps": 3}), shown=False))
    with pytest.raises(ConfigError, match="it is an online run; go on with: embtables online --resume"):
        resume_training(online, shown=False)
