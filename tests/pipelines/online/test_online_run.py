"""`embtables online` on a real event log: every event is used once, and a killed run ends as one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from embtables.errors import ConfigError, StateError
from embtables.events import open_log
from embtables.events.dead_letters import DeadLetters
from embtables.pipelines.config import RunConfig
from embtables.pipelines.online.run_online import DEAD_LETTERS, online, resume
from embtables.pipelines.run_dir import RunDir
from embtables.schema import to_yaml
from embtables.state.folder.version_folder import StateFolder
from tests.pipelines.online.events_for_tests import Event, batch, click, imp
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


def fill(uri: str, requests: int, *, first: int = 0) -> dict[str, int]:
    """Impressions and clicks of requests, one a second; returns what there is of each kind."""
    rng, log, made = random.Random(first), open_log(uri), {"impressions": 0, "clicked": 0}
    for number in range(first, first + requests):
        shown: list[Event] = []
        for item in rng.sample(range(30), 4):
            values = {"user": rng.randrange(40), "price": rng.random(), "tags": [rng.randrange(9)]}
            shown.append(imp(f"r{number}", f"item-{item}", number, **values))
        clicked = [click(e.request or "", e.item or "", e.at + rng.choice([5, 150])) for e in rng.sample(shown, 1)]
        partition = number % 2
        for events in (shown, clicked):
            stored = batch(events)
            log.append(partition, stored.append_column("time", stored.column("event_time")))
        made["impressions"] += len(shown)
        made["clicked"] += len(clicked)
    log.close()
    return made


def pass_time(uri: str, seconds: float) -> None:
    """Nothing is shown any more, and time goes by."""
    log = open_log(uri)
    for partition in range(2):
        for step in (seconds / 2, seconds):
            log.append(partition, batch([Event("tick", None, None, step)]))
    log.close()


def newest_rows(run: RunDir, purpose: Any) -> dict[str, dict[int, bytes]]:
    state = StateFolder(run.checkpoints)
    return rows_of(state, f"{purpose}-{state.sequences(purpose)[-1]}")


def test_every_impression_is_trained_on_once_and_every_late_click_again(make: Make, uri: str) -> None:
    made = fill(uri, 100)
    pass_time(uri, 4000)
    report = online(make(), "events", drains=True, shown=False)
    counts = report["events"]
    assert counts["impressions"] == made["impressions"] == counts["positives"] + counts["negatives"]
    assert counts["positives"] + counts["late_positives"] == made["clicked"]
    assert counts["late_positives"] > 20
    assert report["rows"] == report["evaluated_rows"] == made["impressions"] + counts["late_positives"]
    run = RunDir(Path(report["run_dir"]))
    assert newest_rows(run, "serving") == newest_rows(run, "resume")
    assert report["intervals"] > 3


def test_it_goes_on_where_it_stood_and_drains_what_came_since(make: Make, uri: str) -> None:
    fill(uri, 60)
    first = online(make(), "events", drains=True, shown=False)
    run = RunDir(Path(first["run_dir"]))
    fill(uri, 60, first=60)
    pass_time(uri, 4000)
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
    pass_time(uri, 4000)
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
    pass_time(uri, 4000)
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
