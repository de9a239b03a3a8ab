"""Versions for servers that training writes: which, of what, and that a follower has the trainer's rows after kills."""

from __future__ import annotations

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
import torch

from embtables.errors import ConfigError, DataError, StateError
from embtables.models.scorer import Scorer
from embtables.models.served import served_tables
from embtables.models.side_tables import read_side_table
from embtables.models.version_content import scoring_content
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.run_place import RunInMemory
from embtables.pipelines.training.start.try_publication import _few_rows
from embtables.pipelines.training.train import resume, train
from embtables.rows.content import TableContent
from embtables.rows.stored_table import StoredTable
from embtables.schema import to_yaml
from embtables.state.folder.memory_folder import MemoryFolder
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.side_file import side_files_of
from embtables.state.format.version import DENSE_FILE
from embtables.state.read.follower import Follower
from embtables.state.read.serve import load_served
from embtables.state.read.version_reader import read_version
from embtables.tables.table_set import Tables
from tests.state.versions_for_tests import rows_of

Make = Callable[..., RunConfig]
Rows = dict[str, dict[int, bytes]]
GROWS = {
    "kind": "collisionless",
    "name": "user",
    "dim": 8,
    "optimizer": {"kind": "adam", "learning_rate": 0.1},
    "max_rows": 30,  # rows are evicted again and again: tombstones
}

ITEM = {"name": "item", "num_rows": 64, "dim": 8, "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.1}}


def trained(config: RunConfig, **options: Any) -> tuple[StateFolder, Path]:
    report = train(config, shown=False, **options)
    path = Path(report["run_dir"])
    return StateFolder(path / "checkpoints"), path


def published_steps(state: StateFolder) -> dict[int, int | None]:
    """By step the parent of its version; the numbers of versions have no gap."""
    numbers = state.sequences("serving")
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    versions = [state.manifest("serving", n) for n in numbers]
    return {v.content["published"]["step"]: v.parent for v in versions if v.same_as is None}


class Server:
    """Follows the serving chain of a run and keeps its rows, as a server does."""

    def __init__(self, state: StateFolder, config: RunConfig) -> None:
        stored = Tables(config.tables, config.features, seed=config.train.seed).stored
        self.state, self.rows, self.read = state, dict[str, dict[int, bytes]](), list[str]()
        self.follower = Follower(state, "serving", read=lambda s, m: read_version(s, m, stored))

    def take(self) -> None:
        for version in self.follower.poll():
            self.read.append(version.manifest.name)
            for name, content in version.content.tables.items():
                rows = self.rows.setdefault(name, {})
                if version.is_snapshot:
                    rows.clear()
                for key in content.tombstones.tolist():
                    rows.pop(key, None)
                rows.update(
                    {k: w.tobytes() for k, w in zip(content.keys.tolist(), content.columns["weight"], strict=True)}
                )


@pytest.fixture
def make(make_config: Make) -> Make:
    def made(**changes: Any) -> RunConfig:
        return make_config(**{"publish": {"every_steps": 4}, "tables": [GROWS, ITEM], **changes})

    return made


def test_versions_come_every_so_many_steps_and_at_the_end(make: Make) -> None:
    state, path = trained(make(**{"train.max_steps": 10}))
    assert published_steps(state) == {4: None, 8: 1, 10: 2}
    version = state.manifest("serving", 3)
    assert version.projection == "weights"
    assert "state" not in version.content
    assert version.content["published"] == {"run": path.name, "step": 10, "version": None}
    content, trained_content = scoring_content(version), scoring_content(state.latest("resume"))  # type: ignore[arg-type]
    assert content.model_dump(include={"trained", "seed", "transforms", "scoring"}) == trained_content.model_dump(
        include={"trained", "seed", "transforms", "scoring"}
    )
    assert rows_of(state, "serving-3") == rows_of(state, "resume-1")
    tensors = read_version_tensors(state, 3)
    assert all(name.startswith("dense/") for name in tensors)


def test_versions_with_a_budget_lag_and_the_last_one_has_everything(make: Make) -> None:
    publish = {"every_steps": 1, "keep": 100, "max_delta_bytes": 1024, "dense_every": 3}
    state, path = trained(make(publish=publish))
    manifests = [state.manifest("serving", number) for number in state.sequences("serving")]
    deltas = [version for version in manifests[1:-1] if version.parent is not None]
    row_bytes = {"user": 12 + 32, "item": 12 + 32}
    sizes = [sum(v.rows_of(table, "rows") * size for table, size in row_bytes.items()) for v in deltas]
    assert max(sizes) <= 1024
    assert sum(any(t.figures.get("held_back") for t in version.tables.values()) for version in deltas) > 5
    assert rows_of(state, manifests[-1].name) == rows_of(state, state.latest("resume").name)  # type: ignore[union-attr]
    # New dense weights come with every third version, and the last; a snapshot that a chain became has them, too.
    with_dense = [v.sequence for v in manifests if DENSE_FILE in v.files and v.same_as is None]
    steps = [int(manifest.content["published"]["step"]) for manifest in manifests if manifest.sequence in with_dense]
    assert steps[:3] == [1, 4, 7]
    assert steps[-1] == manifests[-1].content["published"]["step"]
    again = resume(RunDir.open(path), ("train.epochs=3",), shown=False)
    assert rows_of(state, state.latest("serving").name) == rows_of(state, state.latest("resume").name)  # type: ignore[union-attr]
    assert again["rows"] > 0


def read_version_tensors(state: StateFolder, number: int) -> dict[str, Any]:
    from embtables.state.read.version_reader import read_tensors

    return read_tensors(state, state.manifest("serving", number), DENSE_FILE)


def test_without_an_interval_one_version_is_published_at_the_end(make: Make) -> None:
    state, _ = trained(make(publish={}, **{"train.max_steps": 5}))
    assert published_steps(state) == {5: None}
    without, _ = trained(make(publish=None, **{"train.max_steps": 5}))
    assert without.sequences("serving") == []


def test_seconds_between_versions(make: Make) -> None:
    state, _ = trained(make(publish={"every_seconds": 1e-6}, **{"train.max_steps": 6}))
    steps = list(published_steps(state))
    assert steps[0] == 1  # the first one that is due
    assert steps[-1] == 6
    late, _ = trained(make(publish={"every_seconds": 3_600.0}, **{"train.max_steps": 6}))
    assert list(published_steps(late)) == [6]


def test_an_interval_is_given_in_one_way() -> None:
    with pytest.raises(ConfigError, match="give every_steps or every_seconds, not both"):
        from embtables.pipelines.config import Publish

        Publish(every_steps=3, every_seconds=1.0)


def test_fp16_does_not_go_with_dense_decay(make: Make) -> None:
    decays = {**GROWS, "optimizer": {**GROWS["optimizer"], "weight_decay": {"kind": "dense", "rate": 0.1}}}  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"publish\.dtype: table 'user': fp16 does not go with weight_decay"):
        make(publish={"dtype": "fp16"}, **{"tables": [decays, ITEM]})


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_a_server_scores_as_the_trainer_does(dtype: str, make: Make, log_dir: Path) -> None:
    state, path = trained(make(publish={"every_steps": 4, "dtype": dtype}, **{"train.max_steps": 9}))
    chain = state.chain("serving", 3)
    tables = served_tables(state, chain)
    loaded = load_served(state, chain, tables)
    served = Scorer.of_content(scoring_content(chain[-1]), tables, loaded.tensors, chain[-1].name)
    own = Scorer.from_version(path, "last")
    rows = pq.read_table(log_dir / "part-0.parquet").slice(0, 100)
    difference = (served.score(rows) - own.score(rows)).abs().max()
    assert float(difference) <= (1e-6 if dtype == "fp32" else 0.02)
    assert (dtype != "fp32") == (float(difference) > 1e-6)


def test_a_run_in_memory_publishes_nothing(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunInMemory()
    train(make(**{"train.max_steps": 3}), run=run, shown=True)
    assert "publish: a run in memory writes no versions for servers; give runs_dir" in capsys.readouterr().err


@pytest.fixture
def joined(make: Make, tmp_path: Path) -> Callable[..., RunConfig]:
    """The log with a side table of items, `weight` of which a dense column reads."""
    items = pa.table({"item": [f"item-{i}" for i in range(30)], "weight": [float(i) for i in range(30)]})
    pq.write_table(items, tmp_path / "items.parquet")

    def made(**changes: Any) -> RunConfig:
        join = {"path": str(tmp_path / "items.parquet"), "key": "item", "columns": ["weight"]}
        dense = [{"column": "price", "transforms": ["log1p", "standardise"]}, {"column": "weight"}]
        return make(**{"data.join": [join], "dense": dense, **changes})

    return made


def side_table(state: StateFolder, number: int) -> tuple[str, pa.Table]:
    """The checksum and the content of the only one."""
    (of,) = scoring_content(state.manifest("serving", number)).side_tables
    version = side_files_of(state.chain("serving", number))[of.file]
    assert of.name.endswith("items.parquet")
    return version.files[of.file].xxh3, read_side_table(state, version, of)


def test_side_tables_are_published_and_again_where_they_have_changed(
    joined: Callable[..., RunConfig], tmp_path: Path
) -> None:
    state, path = trained(joined(**{"train.max_steps": 8}))
    assert [sorted(state.manifest("serving", n).files).count("side.0.arrow") for n in (1, 2)] == [1, 0]
    checksum, table = side_table(state, 2)
    assert table.sort_by("item")["weight"].to_pylist() == [float(f"{i}") for i in sorted(range(30), key=str)]
    assert checksum == state.manifest("serving", 1).files["side.0.arrow"].xxh3
    content = scoring_content(state.manifest("serving", 2))
    assert content.side_tables[0].keys == ("item",)
    assert content.candidate_key == "item"
    # The same step, but another side table: that alone is a new version.
    items = pq.read_table(tmp_path / "items.parquet")
    pq.write_table(items.set_column(1, "weight", pa.array([1.5] * 30)), tmp_path / "items.parquet")
    resume(RunDir.open(path), shown=False)
    assert state.manifest("serving", 3).parent == 2
    new = side_table(state, 3)[1]
    assert set(new["weight"].to_pylist()) == {1.5}
    # Another process wrote this version than the checkpoint: it may not be of its state, and all comes once more.
    resume(RunDir.open(path), shown=False)
    assert published_steps(state) == {4: None, 8: None}
    assert state.sequences("serving") == [1, 2, 3, 4]
    assert side_table(state, 4)[1].equals(new)
    assert rows_of(state, "serving-4") == rows_of(state, "serving-3")


def test_a_run_that_cannot_publish_ends_before_its_first_step(
    make: Make, joined: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(
        "embtables.pipelines.training.learner.Learner.train_step", lambda *_, **__: steps.append(1) or torch.zeros(())
    )
    with monkeypatch.context() as patch:
        patch.setattr("embtables.pipelines.training.start.try_publication.write_files", full_disk)
        with pytest.raises(StateError, match=r"publish: a version .* was tried before the first step, and"):
            train(make(), shown=False)
    with monkeypatch.context() as patch:
        patch.setattr(
            "embtables.pipelines.training.start.try_publication._few_rows", few_rows_one_of_which_is_no_number
        )
        with pytest.raises(StateError) as refused:
            train(make(), shown=False)
    assert str(refused.value).startswith(
        "table user: publish: a version for servers was tried before the first step, and failed: "
        "key 3 has a weight that is not finite"
    )
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(DataError) as missing:
        train(joined(), shown=False)
    assert str(missing.value).startswith(f"path {tmp_path / 'items.parquet'}: does not exist")
    assert steps == []
    assert not list((tmp_path / "runs").glob("*/checkpoints/versions/*"))


def full_disk(*_: Any) -> Any:
    raise OSError(28, "No space left on device")


def few_rows_one_of_which_is_no_number(table: StoredTable) -> TableContent:
    content = _few_rows(table)
    content.columns["weight"][content.keys == 3] = np.nan
    return content


def test_a_first_version_that_does_not_fit_on_the_disk_is_warned_of(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr("embtables.pipelines.training.start.try_publication.shutil.disk_usage", lambda _: Usage)
    report = train(make(**{"train.max_steps": 2}), shown=False)
    assert any("takes about" in text and "has 100 free" in text for text in report["warnings"])


def test_a_version_that_failed_is_reported_and_the_next_one_has_it_all(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish, failed = LeaseHolder.finish, list[str]()

    def sometimes(self: LeaseHolder, draft: Any, *rest: Any) -> Any:
        if draft.kind.purpose == "serving" and draft.kind.parent is not None and not failed:
            failed.append(draft.folder)
            self.abandon(draft)
            raise StateError("the disk is full")
        return finish(self, draft, *rest)

    monkeypatch.setattr(LeaseHolder, "finish", sometimes)
    state, _ = trained(make(**{"train.max_steps": 12}))
    assert published_steps(state) == {4: None, 12: 1}
    assert "warning: the disk is full" in capsys.readouterr().err
    assert rows_of(state, "serving-2") == rows_of(state, f"resume-{state.sequences('resume')[-1]}")


def test_a_last_version_that_cannot_be_written_ends_the_run_with_what_to_do(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = LeaseHolder.finish

    def never(self: LeaseHolder, draft: Any, *rest: Any) -> Any:
        if draft.kind.purpose == "serving" and not isinstance(self.state.folder, MemoryFolder):
            self.abandon(draft)
            raise StateError("the disk is full")
        return finish(self, draft, *rest)

    monkeypatch.setattr(LeaseHolder, "finish", never)
    with pytest.raises(StateError, match="last version for servers could not be written: the disk is full; publish it"):
        train(make(publish={}, **{"train.max_steps": 3}), shown=False)


def test_a_resumed_run_goes_on_with_the_chain_where_both_have_one_state(make: Make) -> None:
    config = make(**{"train.max_steps": 8})
    state, path = trained(config)
    server = Server(state, config)
    server.take()
    resume(RunDir.open(path), ("train.max_steps=14",), shown=False)
    assert published_steps(state) == {4: None, 8: 1, 12: 2, 14: 3}
    server.take()
    assert server.read == ["serving-1", "serving-2", "serving-3", "serving-4"]
    assert server.rows == rows_of(state, f"resume-{state.sequences('resume')[-1]}")
    resume(RunDir.open(path), shown=False)  # nothing is left to train: there is nothing new
    assert state.sequences("serving") == [1, 2, 3, 4]


def test_another_dtype_or_a_state_of_its_own_begins_a_new_chain(make: Make) -> None:
    state, path = trained(make(**{"train.max_steps": 8}))
    resume(RunDir.open(path), ("train.max_steps=9", "publish.dtype=bf16"), shown=False)
    assert published_steps(state)[9] is None
    # Life 3 does not publish; life 4 finds the version of another life at the step of its checkpoint.
    resume(RunDir.open(path), ("train.max_steps=11", "publish=null"), shown=False)
    resume(RunDir.open(path), ("train.max_steps=12", "publish.dtype=bf16"), shown=False)
    assert published_steps(state)[12] is None
    assert all(entry.dtype == "bf16" for entry in state.latest("serving").tables.values())  # type: ignore[union-attr]


KILLED = """
import os, signal, sys
from pathlib import Path
from embtables.pipelines.config import load_config
from embtables.pipelines.training.train import train
from embtables.state.folder.memory_folder import MemoryFolder
from embtables.state.folder.version_folder import LeaseHolder

file, purpose, number, when = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
finish, seen = LeaseHolder.finish, []

def killed(self, draft, *rest):
    is_it = draft.kind.purpose == purpose and not isinstance(self.state.folder, MemoryFolder)
    if is_it:
        seen.append(draft)
    if is_it and len(seen) == number and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    made = finish(self, draft, *rest)
    if is_it and len(seen) == number and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return made

LeaseHolder.finish = killed
train(load_config(file), shown=False)
"""


@pytest.mark.parametrize(
    ("purpose", "number", "when"),
    [("resume", 2, "after"), ("serving", 3, "before"), ("serving", 3, "after"), ("serving", 4, "after")],
)
def test_a_killed_trainer_never_gives_a_follower_a_wrong_row(
    purpose: str, number: int, when: str, make: Make, tmp_path: Path
) -> None:
    changes = {"train.max_steps": 16, "train.checkpoint_every_steps": 4, "train.evaluate_every_steps": 100}
    config = make(publish={"every_steps": 2}, **changes)
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", KILLED, str(file), purpose, str(number), when], check=False)
    assert done.returncode == -signal.SIGKILL
    (path,) = (tmp_path / "runs").iterdir()
    state = StateFolder(path / "checkpoints")
    server = Server(state, config)
    server.take()  # it has what the dead trainer published, some of which no checkpoint has
    # Other batches: rows that the dead trainer changed after its checkpoint are not all changed again.
    resume(RunDir.open(path), ("train.batch_size=3",), shown=False)
    server.take()
    assert server.rows == rows_of(state, f"resume-{state.sequences('resume')[-1]}")
    steps = published_steps(state)
    assert list(steps)[-1] == 16
    again = Server(state, config)
    again.take()
    assert again.rows == server.rows
