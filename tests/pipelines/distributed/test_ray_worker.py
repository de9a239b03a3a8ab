"""What is said reaches the user as it is, whatever the disk does meanwhile."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import StateError
from embtables.pipelines.config import load_config
from embtables.pipelines.distributed.worker import Lines, Settings, keeping_room
from embtables.pipelines.progress import say
from embtables.pipelines.run_dir import RunDir
from embtables.state.folder.version_folder import StateFolder
from tests.pipelines.distributed.ray_runs_for_tests import make_config
from tests.shard.groups_for_tests import Group


def test_what_could_not_be_written_comes_with_what_is_said_next(tmp_path: Path) -> None:
    log = tmp_path / "there" / "rank0.log"
    lines = Lines(log)
    print("one", file=lines)
    log.parent.mkdir()
    print("two", file=lines)
    print("three", file=lines)
    assert log.read_text() == "one\ntwo\nthree\n"


def test_what_is_said_is_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    text = "warning: [/gloo/transport/tcp/pair.cc:3] [bold] connection closed by peer :boom:"
    say(text)
    assert capsys.readouterr().err == text + "\n"


def test_a_mistake_of_one_rank_is_known_to_the_others_before_they_give_it_up(tmp_path: Path) -> None:
    """Rank 1 meets a row that it alone converts; its disk takes the version in writing when rank 0 waits no more."""
    config, log = make_config(tmp_path), pq.read_table(tmp_path / "log.parquet").to_pydict()
    log["click"][5_940] = 7
    pq.write_table(pa.table(log), tmp_path / "log.parquet", row_group_size=700)
    # One version is begun, at step 80 of the 120 of an epoch.
    changes = ["data.shuffle=null", "data.block_rows=400", "train.checkpoint_every_steps=80", "train.epochs=1"]
    run, may = RunDir.create(load_config(config, changes)), tmp_path / "may"
    settings = Settings(str(run.path), str(tmp_path), (), False, None, None, (), threads=1, token="0")
    os.mkfifo(may)
    group = Group(2, timeout_seconds=8)
    try:
        work = "tests.pipelines.distributed.ranks_for_tests:work_with_a_slow_disk"
        with keeping_room(settings, 2):
            assert group.run(work, settings.to_json(), str(may)) == [[True], []]
    finally:
        group.close()
    said = json.loads((run.path / "error-0.json").read_text())
    assert (said["kind"], said["rank"], said["path"]["row"]) == ("DataError", 1, "5940")
    log = (run.path / "rank0-0.log").read_text()
    assert "holds the label 7" in log and "waiting for the version that is being written" in log
    assert "started again" not in log
    state = StateFolder(run.checkpoints)
    assert state.manifest("resume", 1).content["state"]["step"] == 80


@pytest.mark.parametrize("before", ["version", "report"])
def test_a_disk_that_stays_full_is_reported_and_not_tried_again(tmp_path: Path, small_disk: Path, before: str) -> None:
    changes = [f"train.runs_dir={small_disk}", "train.max_steps=15", "train.checkpoint_every_steps=10"]
    run = RunDir.create(load_config(make_config(tmp_path), changes))
    settings = Settings(str(run.path), str(tmp_path), (), False, None, None, (), threads=1, token="0")
    group = Group(2)
    try:
        with keeping_room(settings, 2):
            work = "tests.pipelines.distributed.ranks_for_tests:work_on_a_disk_that_fills"
            group.run(work, settings.to_json(), str(small_disk / "ballast"), before)
    finally:
        group.close()
    said = json.loads((run.path / "error-0.json").read_text())
    assert said["kind"] == "StateError"
    versions = StateFolder(run.checkpoints).sequences("resume")
    if before == "report":
        assert (said["message"], said["path"]) == ("No space left on device", {"file": str(run.path)})
        assert len(versions) > 1
        return
    assert "cannot write version resume-2: No space left on device; earlier versions are intact" in said["message"]
    assert said["message"].endswith(f"go on from the last one with: embtables train --resume {run.path}")
    assert versions == [1]


def test_a_run_without_room_for_a_mistake_is_not_begun(tmp_path: Path, small_disk: Path) -> None:
    settings = Settings(str(small_disk), str(tmp_path), (), False, None, None, (), threads=1, token="0")
    with pytest.raises(StateError, match="cannot be written: No space left on device"), keeping_room(settings, 1_000):
        raise AssertionError("there is no such room")
    assert list(small_disk.iterdir()) == []
