"""Online runs of several ranks: a replay is that of one process, and any number of ranks uses every event once."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embtables.events import open_log
from embtables.events.dead_letters import DeadLetters
from embtables.pipelines.config import RunConfig
from embtables.pipelines.online.run_online import dead_letters_of, online, resume
from embtables.pipelines.run_dir import RunDir
from embtables.state.folder.version_folder import StateFolder
from tests.pipelines.distributed.test_train_ranks import CHANGES, WORKER, assert_near, learned
from tests.pipelines.online.events_for_tests import Event, batch, click, imp
from tests.shard.groups_for_tests import Group

Make = Callable[..., RunConfig]
Ranks = Callable[[int], Group]
HOUR = 3600
PARTITIONS = 4
SAME = ("rows", "steps", "intervals", "evaluated_rows")


def published(run: RunDir) -> list[int]:
    """The step of each version for servers, without those that are the former one as a snapshot."""
    state = StateFolder(run.checkpoints)
    versions = [state.manifest("serving", number) for number in state.sequences("serving")]
    return [version.content["published"]["step"] for version in versions if version.same_as is None]


def periods(run: RunDir) -> list[dict[str, Any]]:
    return [line for line in run.history() if line["part"] == "online" and "drift" not in line]


class TestReplay:
    @pytest.fixture
    def make(self, make_config: Make) -> Make:
        drift = {"window_rows": 240, "least_calibration": 0.97, "greatest_calibration": 1.03, "greatest_entropy": 5.0}
        online = {"sync_seconds": 2 * HOUR, "report_seconds": 6 * HOUR}
        in_order = {"data.split": None, "data.shuffle": None, "train.epochs": 1, "train.batch_size": 31}
        slices = {"slices": [{"name": "many", "where": ["user < 20"]}]}

        def made(*, watched: bool) -> RunConfig:
            of = {**online, "drift": drift} if watched else online
            return make_config(**CHANGES, **in_order, evaluate=slices, publish={"keep": 100}, online=of)

        return made

    def test_it_is_that_of_one_process(self, make: Make, group: Ranks) -> None:
        config = make(watched=True)
        whole = online(config, "replay", shown=False)
        alone, run = RunDir(Path(whole["run_dir"])), RunDir.create(config)
        report = group(2).run(f"{WORKER}:online", config, str(run.path), "replay")[0]
        assert {name: report[name] for name in SAME} == {name: whole[name] for name in SAME}
        assert published(run) == published(alone)
        assert len(published(run)) < report["intervals"]  # the drift watch has decided the same at all ranks
        assert report["log_loss"] == pytest.approx(whole["log_loss"], abs=1e-4)
        assert report["slices"]["many"]["rows"] == whole["slices"]["many"]["rows"]
        assert_near(learned(run), learned(alone))
        assert [(of["from"], of["rows"]) for of in periods(run)] == [(of["from"], of["rows"]) for of in periods(alone)]

    @pytest.mark.parametrize("after", [1, 3])
    def test_it_is_stopped_and_goes_on_with_another_number(self, after: int, make: Make, group: Ranks) -> None:
        config = make(watched=False)
        whole = online(config, "replay", shown=False)
        run = RunDir.create(config)
        said = group(2).run(f"{WORKER}:online_until_asked_to_stop", config, str(run.path), 23)
        assert "stopped by SIGTERM at step 25" in said[1]
        assert "stopped by another rank at step 25" in said[0]
        if after == 1:
            report = resume(run, shown=False)
        else:
            report = group(after).run(f"{WORKER}:resume_online", str(run.path))[0]
        assert (report["rows"], report["steps"]) == (whole["rows"], whole["steps"])
        assert published(run) == published(RunDir(Path(whole["run_dir"])))
        assert_near(learned(run), learned(RunDir(Path(whole["run_dir"]))))


class TestEvents:
    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return f"folder://{tmp_path}/events?partitions={PARTITIONS}"

    @pytest.fixture
    def make(self, make_config: Make, uri: str) -> Make:
        def made(**changes: Any) -> RunConfig:
            events = {"log": uri, "item": "item", "window_seconds": 100, "late_window_seconds": 200}
            return make_config(
                **{
                    **CHANGES,
                    "labels": [{"column": "label"}],
                    "dense": [{"column": "price", "fill_null": 0.0}],
                    "data.split": None,
                    "data.shuffle": None,
                    "train.epochs": 1,
                    "train.batch_size": 21,
                    "train.checkpoint_every_steps": None,
                    "publish": {"keep": 1000},
                    "online": {"events": {**events, "batch_seconds": 0.05}, "sync_seconds": 60, "report_seconds": 120},
                }
                | changes
            )

        return made

    @pytest.mark.parametrize("size", [2, 5])
    def test_each_event_is_used_once(self, size: int, make: Make, uri: str, group: Ranks) -> None:
        made = fill(uri, 50)
        pass_time(uri, 1000)
        config, whole = make(), online(make(), "events", drains=True, shown=False)
        run = RunDir.create(config)
        reports = group(size).run(f"{WORKER}:online", config, str(run.path), "events")
        counts = reports[0]["events"]
        assert counts["impressions"] == made["impressions"] == counts["positives"] + counts["negatives"]
        assert counts["positives"] + counts["late_positives"] == made["clicked"]
        assert counts["late_positives"] > 5
        assert reports[0]["rows"] == reports[0]["evaluated_rows"] == made["impressions"] + counts["late_positives"]
        assert [report["events"] for report in reports] == [counts] * size
        assert counts == whole["events"]
        assert {name: of["rows"] for name, of in reports[0]["tables"].items()} == {
            name: of["rows"] for name, of in whole["tables"].items()
        }
        warned = [text for text in reports[0]["warnings"] if "workers read nothing" in text]
        assert warned == (["the event log has 4 partitions, so 1 of 5 workers read nothing"] if size == 5 else [])

    @pytest.mark.parametrize("after", [1, 3])
    def test_all_ranks_are_killed_and_others_go_on(self, after: int, make: Make, uri: str, group: Ranks) -> None:
        fill(uri, 60)
        config = make()
        run = RunDir.create(config)
        killed = Group(2)
        with pytest.raises((EOFError, ConnectionResetError)):
            killed.run(f"{WORKER}:online_until_all_are_killed", config, str(run.path), 8)
        killed.close()
        assert StateFolder(run.checkpoints).sequences("resume")
        made = fill(uri, 60, first=60)
        pass_time(uri, 1700)
        if after == 1:
            report = resume(run, drains=True, shown=False)
        else:
            report = group(after).run(f"{WORKER}:resume_online", str(run.path))[0]
        counts = report["events"]
        assert counts["impressions"] == 2 * made["impressions"] == counts["positives"] + counts["negatives"]
        assert counts["positives"] + counts["late_positives"] == 2 * made["clicked"]
        assert report["rows"] == 2 * made["impressions"] + counts["late_positives"]
        assert {name: count for name, count in counts.items() if name.startswith("duplicate") and count} == {}

    def test_each_rank_keeps_what_it_sets_aside(self, make: Make, uri: str, group: Ranks) -> None:
        fill(uri, 30)
        log = open_log(uri)
        for partition in range(PARTITIONS):
            log.append(partition, batch([click("nobody", f"item-{partition}", 440)]))
        log.append(3, batch([imp("r", "item-1", 440, user=1, price=float("nan"), tags=[1]), click("r", "item-1", 441)]))
        log.close()
        pass_time(uri, 3000)
        config = make(**{"data.on_bad_row": "quarantine"})
        run = RunDir.create(config)
        report = group(2).run(f"{WORKER}:online", config, str(run.path), "events")[0]
        kept = []
        for rank in range(2):
            letters = DeadLetters(run.path / dead_letters_of(rank))
            kept.append(sorted(row["item"] for each in letters.pending() for row in each.to_pylist()))
            letters.close()
        assert kept == [["item-0", "item-2"], ["item-1", "item-1", "item-3"]]
        assert report["events"]["orphans"] == PARTITIONS
        assert report["quarantined_rows"] == 1


def fill(uri: str, requests: int, *, first: int = 0) -> dict[str, int]:
    """Impressions and clicks of requests, in the order of their times; returns how many there are."""
    rng, entries = random.Random(first), []
    for number in range(first, first + requests):
        shown: list[Event] = []
        for item in rng.sample(range(30), 4):
            values = {"user": rng.randrange(40), "price": rng.random(), "tags": [rng.randrange(9)]}
            shown.append(imp(f"r{number}", f"item-{item}", 10 * number, **values))
        clicked = rng.choice(shown)
        at = clicked.at + rng.choice([5, 150])
        entries += [(10 * number, number, shown), (at, number, [click(f"r{number}", clicked.item or "", at)])]
    log = open_log(uri)
    for _, number, events in sorted(entries, key=lambda entry: entry[:2]):
        stored = batch(events)
        log.append(number % PARTITIONS, stored.append_column("time", stored.column("event_time")))
    log.close()
    return {"impressions": 4 * requests, "clicked": requests}


def pass_time(uri: str, seconds: float) -> None:
    """Nothing is shown any more, and time goes by."""
    log = open_log(uri)
    for partition in range(PARTITIONS):
        log.append(partition, batch([Event("tick", None, None, seconds)]))
    log.close()
