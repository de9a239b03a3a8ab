"""What a run of events goes on from: the state of its last checkpoint, also where nothing was trained on yet."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import watchfiles

from embtables.events import open_log
from embtables.pipelines.config import load_config
from embtables.pipelines.online.run_online import online, resume
from embtables.pipelines.run_dir import RunDir
from tests.faults import forked
from tests.faults.online import drains, world
from tests.faults.run_tables import tables_of


def test_a_run_goes_on_from_what_its_last_checkpoint_knows(tmp_path: Path) -> None:
    uri = f"folder://{tmp_path}/events"
    events = world.in_order(world.visits(5, 5.0, 60.0))
    with closing(open_log(f"{uri}?partitions=2")) as log:
        config = load_config(world.prepare(tmp_path, uri))
        parts, run = [(0.0, 25.0), (25.0, 45.0), (45.0, 1000.0)], None
        for begin, until in parts:
            world.append(log, [event for event in events if begin <= event.at < until])
            if until == 1000.0:
                world.end(log)
            if run is None:
                report = online(config, "events", drains=True, shown=False)
                run = RunDir(Path(report["run_dir"]))
                assert report["intervals"] > 2  # each with a checkpoint
            else:
                report = resume(run, drains=True, shown=False)
        assert run is not None
        drains.assert_used_once(drains.Drained(run.path, report, 0, 0.0), log)


def test_a_run_that_is_killed_before_it_has_trained_goes_on(tmp_path: Path) -> None:
    uri = f"folder://{tmp_path}/events"
    with closing(open_log(f"{uri}?partitions=2")) as log:
        config = world.prepare(tmp_path, uri)
        trainer = forked.command(tmp_path / "said", "online", str(config))
        (tmp_path / "runs").mkdir()
        for _ in watchfiles.watch(tmp_path / "runs", rust_timeout=100, yield_on_timeout=True, step=20):
            # Servers follow the run from here on.
            if list((tmp_path / "runs").glob("*/checkpoints/manifests/serving-*.json")):
                break
            assert trainer.is_alive(), (tmp_path / "said").read_text()
        trainer.kill()
        trainer.join()
        assert trainer.exitcode == -signal.SIGKILL
        (folder,) = (tmp_path / "runs").iterdir()
        world.append(log, world.in_order(world.visits(5, 5.0, 20.0)))
        world.end(log)
        report = resume(RunDir.open(folder), drains=True, shown=False)
        (tmp_path / "other").mkdir()
        whole = online(load_config(world.prepare(tmp_path / "other", uri)), "events", drains=True, shown=False)
    assert report["rows"] == whole["rows"] > 400
    assert tables_of(folder) == tables_of(Path(whole["run_dir"]))
