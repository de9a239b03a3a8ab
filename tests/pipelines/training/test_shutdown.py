"""An error that ends training is reported while the version in writing is still on its way; Ctrl-C waits for none."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import DataError
from embtables.pipelines.config import RunConfig
from embtables.pipelines.training import shutdown
from embtables.pipelines.training.hooks import stop
from embtables.pipelines.training.hooks.hook import StepDone
from embtables.pipelines.training.run_content import RunState
from embtables.pipelines.training.train import train
from embtables.state.folder.version_folder import StateFolder
from embtables.state.write.version_writer import VersionWriter

Make = Callable[..., RunConfig]
# One version is begun, at step 6, before the log's end.
CHANGES = {"train.checkpoint_every_steps": 6, "train.epochs": 1, "data.shuffle": None}


class SlowDisk:
    """The disk takes what a version's thread gives it when it may."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked, self.may = threading.Event(), threading.Event()
        write = os.write

        def slow(handle: int, content: memoryview) -> int:
            if threading.current_thread().name.startswith("state"):
                self.asked.set()
                assert self.may.wait(60)
            return write(handle, content)

        patch.setattr(os, "write", slow)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    made = SlowDisk(monkeypatch)
    yield made
    made.may.set()


class Said:
    """What the command said to the user, and when."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.came = threading.Event()
        for module in (shutdown, stop):
            patch.setattr(module, "say", self._say)

    def _say(self, text: str) -> None:
        self.lines.append(text)
        if "gives it up" in text:
            self.came.set()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    return Said(monkeypatch)


@pytest.fixture
def bad_row(log_dir: Path) -> None:
    """Near the end of the log there is a row that ends training."""
    path = log_dir / "part-2.parquet"
    table = pq.read_table(path)
    labels = table.column("label").to_pylist()
    labels[550] = 7
    at = table.schema.get_field_index("label")
    pq.write_table(table.set_column(at, "label", pa.array(labels, pa.int8())), path, row_group_size=150)


def state(tmp_path: Path) -> StateFolder:
    (run,) = (tmp_path / "runs").iterdir()
    return StateFolder(run / "checkpoints")


@pytest.mark.usefixtures("bad_row")
def test_an_error_is_reported_before_the_version_is_waited_for_which_is_kept(
    make_config: Make, tmp_path: Path, disk: SlowDisk, said: Said
) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(train, make_config(**CHANGES), shown=False)
        assert said.came.wait(60)
        assert disk.asked.is_set() and not running.done()
        (line,) = said.lines
        assert "holds the label 7" in line and "row 550" in line
        assert state(tmp_path).sequences("resume") == []
        disk.may.set()
        with pytest.raises(DataError, match="holds the label 7"):
            running.result(60)
    written = state(tmp_path).manifest("resume", 1)
    state(tmp_path).verify(written)
    assert written.content["state"]["step"] == 6
    assert len(said.lines) == 1


def free_once_abandoned(disk: SlowDisk, patch: pytest.MonkeyPatch) -> None:
    abandon = VersionWriter.abandon

    def called(chain: VersionWriter) -> None:
        abandon(chain)
        disk.may.set()

    patch.setattr(VersionWriter, "abandon", called)


def interrupt_after(event: threading.Event) -> threading.Thread:
    """Ctrl-C after this event."""

    def run() -> None:
        assert event.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def interrupt_at_step(step: int, disk: SlowDisk, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after this step, while the disk has a version to write: not so late that the log is at its end."""
    after_step = stop.StopWhenAsked.after_step

    def asked(hook: stop.StopWhenAsked, state: RunState, done: StepDone) -> None:
        if state.step == step:
            assert disk.asked.wait(60)
            signal.raise_signal(signal.SIGINT)
        after_step(hook, state, done)

    patch.setattr(stop.StopWhenAsked, "after_step", asked)


def assert_given_up(tmp_path: Path, said: Said) -> None:
    assert state(tmp_path).sequences("resume") == []
    assert state(tmp_path).folder.names("versions") == []
    assert "the version that was being written was given up" in said.lines[-1]
    assert "training goes on" not in said.lines[-1]


@pytest.mark.usefixtures("bad_row")
def test_ctrl_c_while_it_is_waited_for_gives_the_version_up(
    make_config: Make, tmp_path: Path, disk: SlowDisk, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_once_abandoned(disk, monkeypatch)
    thread = interrupt_after(said.came)
    with pytest.raises(DataError, match="holds the label 7"):
        train(make_config(**CHANGES), shown=False)
    thread.join()
    assert_given_up(tmp_path, said)


def test_a_second_ctrl_c_gives_up_what_the_first_would_save(
    make_config: Make, tmp_path: Path, disk: SlowDisk, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_once_abandoned(disk, monkeypatch)
    interrupt_at_step(7, disk, monkeypatch)
    thread = interrupt_after(said.came)
    with pytest.raises(KeyboardInterrupt):
        train(make_config(**CHANGES))
    thread.join()
    assert "SIGINT: saving what was learned" in said.lines[0]
    assert_given_up(tmp_path, said)
