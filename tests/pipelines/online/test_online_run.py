"""`embtables online` on a real event log: every event is used once, and a killed run ends as one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import watchfiles

from embtables.errors import ConfigError, StateError
from embtables.events import open_log
from embtables.events.dead_letters import DeadLetters
from embtables.events.protocol import EventLog
from embtables.pipelines.config import RunConfig
from embtables.pipelines.online.run_online import DEAD_LETTERS, online, resume
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training.train import train
from embtables.schema import to_yaml
from embtables.state.folder.version_folder import StateFolder
from tests.pipelines.online.events_for_tests import BEGIN, SECOND, Event, batch, click, imp
from tests.state.versions_for_tests import rows_of

Make = Callable[..., RunConfig]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"folder://{tmp_path}/events?partitions=2"


@pytest.fixture
def make(make_config: Make, uri: str, tmp_path: Path) -> Make:
    def made(runs: str = "runs", **changes: Any) -> RunConfig:
        events = {"log": uri, "item": "item", "window_seconds": 100, "late_window_seconds": 200}
        return make_config(
            **{
                "labels": [{"column": "label"}],
                "event_time": {"column": "time"},
                "dense": [{"column": "price", "fill_null": 0.0}],
                "data.split": None,
                "data.shuffle": None,
                "train.epochs": 1,
                "train.batch_size": 20,
                "train.runs_dir": str(tmp_path / runs),
                "model": {"kind": "fm"},
                "publish": {"keep": 1000},
                "online": {"events": events, "sync_seconds": 10},
            }
            | changes
        )

    return made


def request(number: int) -> tuple[list[Event], Event]:
    """The impressions of a request, one a second, and a click on one of them, which is late half of the time."""
    rng = random.Random(number)
    shown = [
        imp(f"r{number}", f"item-{item}", number, user=rng.randrange(40), price=rng.random(), tags=[rng.randrange(9)])
        for item in rng.sample(range(30), 4)
    ]
    clicked = rng.choice(shown)
    return shown, click(clicked.request or "", clicked.item or "", number + rng.choice([5, 150]))


def fill(uri: str, requests: int, *, first: int = 0) -> dict[str, int]:
    """What happens while so many requests come; returns what there is of each kind."""
    log = open_log(uri)
    for now in range(first, first + requests):
        append(log, now, request(now)[0])
        for before in (now - 5, now - 150):
            if before >= 0 and request(before)[1].at == now:
                append(log, before, [request(before)[1]])
    log.close()
    return {"impressions": 4 * requests, "clicked": requests}


def append(log: EventLog, number: int, events: Sequence[Event]) -> None:
    stored = batch(events)
    log.append(number % 2, stored.append_column("time", stored.column("event_time")))


def pass_time(uri: str, seconds: float, requests: int) -> None:
    """Nothing is shown any more after so many requests; clicks still come, and time goes by."""
    log = open_log(uri)
    clicks = [(request(number)[1], number) for number in range(requests)]
    for clicked, number in sorted(clicks, key=lambda each: (each[0].at, each[1])):
        if clicked.at >= requests:
            append(log, number, [clicked])
    for partition in range(2):
        for step in (seconds / 2, seconds):
            log.append(partition, batch([Event("tick", None, None, step)]))
    log.close()


def newest_rows(run: RunDir, purpose: Any) -> dict[str, dict[int, bytes]]:
    state = StateFolder(run.checkpoints)
    return rows_of(state, f"{purpose}-{state.sequences(purpose)[-1]}")


def test_every_impression_is_trained_on_once_and_every_late_click_again(make: Make, uri: str) -> None:
    made = fill(uri, 100)
    pass_time(uri, 4000, 100)
    report = online(make(), "events", drains=True, shown=False)
    counts = report["events"]
    assert counts["impressions"] == made["impressions"] == counts["positives"] + counts["negatives"]
    assert counts["positives"] + counts["late_positives"] == made["clicked"]
    assert min(counts["late_positives"], counts["positives"]) > 20
    assert report["rows"] == report["evaluated_rows"] == made["impressions"] + counts["late_positives"]
    run = RunDir(Path(report["run_dir"]))
    assert newest_rows(run, "serving") == newest_rows(run, "resume")
    assert report["intervals"] > 3


def test_it_goes_on_where_it_stood_and_drains_what_came_since(make: Make, uri: str) -> None:
    fill(uri, 60)
    first = online(make(), "events", drains=True, shown=False)
    run = RunDir(Path(first["run_dir"]))
    fill(uri, 60, first=60)
    pass_time(uri, 4000, 120)
    report = resume(run, drains=True, shown=False)
    whole = online(make("others"), "events", drains=True, shown=False)
    assert report["events"] == whole["events"]
    assert report["rows"] == whole["rows"]
    assert first["rows"] < report["rows"]


class Trainer:
    """`embtables online` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "embtables", "online", *arguments]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        self._said = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self._said = self.process.stderr.read()

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join()
        return status, self._said


def versions(runs: Path, least: int, trainer: Trainer, *, what: str = "serving") -> Path:
    """The folder of the only run, once it has written so many versions."""
    runs.mkdir(exist_ok=True)
    for _ in watchfiles.watch(runs, rust_timeout=100, yield_on_timeout=True, step=20):
        if len(list(runs.glob(f"*/checkpoints/manifests/{what}-*.json"))) >= least:
            return next(runs.iterdir())
        assert trainer.process.poll() is None, trainer.end(signal.SIGTERM)
    raise AssertionError("the watch ended")


@pytest.fixture
def live(tmp_path: Path, make: Make) -> Iterator[Callable[..., Trainer]]:
    started: list[Trainer] = []

    def start(*arguments: str) -> Trainer:
        if not arguments:
            file = tmp_path / "my.yaml"
            file.write_text(to_yaml(make("live")))
            arguments = (str(file),)
        started.append(Trainer(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


def test_a_trainer_that_is_killed_again_and_again_ends_as_one_that_is_not(
    make: Make, uri: str, tmp_path: Path, live: Callable[..., Trainer]
) -> None:
    fill(uri, 80)
    trainer, folder = live(), None
    for turn, number in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)):
        before = 0 if folder is None else len(list(folder.glob("checkpoints/manifests/resume-*.json")))
        folder = versions(tmp_path / "live", before + 1, trainer, what="resume")
        trainer.end(number)
        fill(uri, 80, first=80 * (turn + 1))
        trainer = live("--resume", str(folder))
    assert folder is not None
    versions(
        tmp_path / "live", len(list(folder.glob("checkpoints/manifests/resume-*.json"))) + 1, trainer, what="resume"
    )
    trainer.end(signal.SIGKILL)
    pass_time(uri, 4000, 320)
    report = resume(RunDir(folder), drains=True, shown=False)
    whole = online(make("others"), "events", drains=True, shown=False)
    # Batches of a live run end where the log had no more, so rows of tables differ; what was used does not.
    assert report["events"] == whole["events"]
    assert report["rows"] == whole["rows"]
    assert newest_rows(RunDir(folder), "serving") == newest_rows(RunDir(folder), "resume")


def test_events_without_an_impression_are_kept_aside(make: Make, uri: str) -> None:
    fill(uri, 30)
    log = open_log(uri)
    log.append(0, batch([click("nobody", "item-1", 10), click("nobody", "item-2", 11)]))
    log.close()
    pass_time(uri, 4000, 30)
    report = online(make(), "events", drains=True, shown=False)
    letters = DeadLetters(Path(report["run_dir"]) / DEAD_LETTERS)
    kept = [row for each in letters.pending() for row in each.to_pylist()]
    letters.close()
    assert sorted(row["item"] for row in kept) == ["item-1", "item-2"]
    assert len({row["dead_reason"] for row in kept}) == 1


def test_a_run_without_an_event_log_says_so(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"set online\.events, or replay the log's files with --replay"):
        online(make(online=None), "events", shown=False)


def test_a_version_that_lost_the_reader_s_tables_is_refused(make: Make, uri: str) -> None:
    fill(uri, 30)
    run = RunDir(Path(online(make(), "events", drains=True, shown=False)["run_dir"]))
    for file in run.checkpoints.glob("**/side.0.arrow"):
        file.unlink()
    with pytest.raises(StateError, match=r"side\.0\.arrow"):
        resume(run, drains=True, shown=False)


def backfill(uri: str, file: Path, until: float) -> int:
    """A log of the impressions up to a second, as parquet; returns how many there are."""
    log, tables = open_log(uri), []
    for partition in range(2):
        for entry in log.read(partition, None, max_entries=10_000):
            table = pa.table(entry.events)
            tables.append(table.filter(pc.equal(table.column("kind"), "impression")))
    log.close()
    whole = pa.concat_tables(tables, promote_options="default")
    whole = whole.filter(
        pc.less_equal(whole.column("time"), pa.scalar(BEGIN + int(until * SECOND), pa.timestamp("us")))
    )
    file.parent.mkdir()
    labels = pa.array([number % 2 for number in range(whole.num_rows)], pa.float32())
    pq.write_table(whole.append_column("label", labels), file)
    return whole.num_rows


def test_a_run_from_a_backfill_trains_on_what_came_after_it_and_on_nothing_twice(
    make: Make, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = fill(uri, 100)
    pass_time(uri, 4000, 100)
    rows = backfill(uri, tmp_path / "days" / "log.parquet", until=59.0)
    days = train(make("days-runs", **{"data.path": str(tmp_path / "days")}), shown=False)
    assert days["rows"] == rows == 60 * 4
    report = online(make(), "events", former=RunDir(Path(days["run_dir"])), drains=True)
    counts = report["events"]
    assert counts["positives"] + counts["negatives"] == made["impressions"]
    # Late clicks of the last 40 requests alone are samples again: about half of them are late.
    assert report["rows"] == made["impressions"] + counts["late_positives"] - counts["before_begin"]
    assert rows + 15 < counts["before_begin"] < rows + 45
    assert 40 * 4 + 8 < report["rows"] < 40 * 4 + 32
    assert "impressions after 2023-11-14T22:14:19.000000Z give samples" in capsys.readouterr().err
    # What is named goes before what the former run says.
    events = dict(make().model_dump(mode="json")["online"]["events"], begin_after="2023-11-14T22:13:29Z")
    named = make("named", online={"events": events, "sync_seconds": 10})
    again = online(named, "events", former=RunDir(Path(days["run_dir"])), drains=True, shown=False)
    assert again["rows"] > report["rows"]


def test_a_run_from_a_run_on_the_same_events_goes_on_where_that_one_stood(make: Make, uri: str) -> None:
    fill(uri, 60)
    first = online(make(), "events", drains=True, shown=False)
    fill(uri, 60, first=60)
    pass_time(uri, 4000, 120)
    changed = make("changed", **{"model": {"kind": "dcnv2", "num_cross_layers": 1, "hidden_sizes": [8]}})
    report = online(changed, "events", former=RunDir(Path(first["run_dir"])), drains=True, shown=False)
    whole = online(make("others"), "events", drains=True, shown=False)
    assert report["events"] == whole["events"]
    assert first["rows"] + report["rows"] == whole["rows"]


def test_a_backfill_with_a_row_of_the_future_says_so(make: Make, tmp_path: Path, uri: str) -> None:
    fill(uri, 10)
    backfill(uri, tmp_path / "days" / "log.parquet", until=59.0)
    table = pq.read_table(tmp_path / "days" / "log.parquet")
    times = [*table.column("time").to_pylist()[:-1], datetime(2200, 1, 1)]
    place = table.schema.get_field_index("time")
    stray = table.set_column(place, "time", pa.array(times, pa.timestamp("us")))
    pq.write_table(stray, tmp_path / "days" / "log.parquet")
    days = train(make("days-runs", **{"data.path": str(tmp_path / "days")}), shown=False)
    with pytest.raises(ConfigError, match=r"2200-01-01T.*set online\.events\.begin_after"):
        online(make(), "events", former=RunDir(Path(days["run_dir"])), drains=True, shown=False)
