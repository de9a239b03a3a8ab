"""Checkpoints of running features: whole or absent, with the position, the same bytes for the same events."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embtables.errors import StateError
from embtables.running import RunningFeatures, RunningState, read_checkpoint, write_checkpoint
from embtables.running.checkpoint import MANIFEST
from embtables.schema import RunningFeature, RunningOptions
from tests.embtables.running.oracle_for_tests import as_batch
from tests.embtables.running.test_running_features import COLUMNS, FEATURES, SECOND, assert_same_state

OPTIONS = RunningOptions(lateness_seconds=5)


def folded(batches: int = 5) -> RunningFeatures:
    rng = np.random.default_rng(0)
    fold = RunningFeatures(FEATURES, OPTIONS)
    for number in range(batches):
        rows = [
            {
                "item": f"i{int(rng.integers(0, 9))}",
                "user": int(rng.integers(0, 5)),
                "price": float(rng.integers(0, 9)),
                "event_time": (10 * number + int(rng.integers(0, 12))) * SECOND,
            }
            for _ in range(50)
        ]
        fold.fold(as_batch(rows, COLUMNS))
    return fold


def test_a_checkpoint_holds_the_state_and_the_position(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "none") is None
    fold, position = folded(), {"0": "3-17", "1": None}
    write_checkpoint(tmp_path / "running", folded(2).state(), {"0": "0-1"})
    write_checkpoint(tmp_path / "running", fold.state(), position)
    found = read_checkpoint(tmp_path / "running")
    assert found is not None
    assert found.position == position
    assert not found.of_reader
    other = RunningFeatures(FEATURES, OPTIONS)
    other.load(found.state)
    assert_same_state(other, fold)
    assert len(list((tmp_path / "running").iterdir())) == 2


def test_arrays_of_the_reader_come_back_with_the_state(tmp_path: Path) -> None:
    arrays = {"ids": np.array([3, -1, 2**62]), "none": np.empty(0, np.int64)}
    write_checkpoint(tmp_path, folded().state(), 0, arrays)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert {name: of.tolist() for name, of in found.of_reader.items()} == {"ids": [3, -1, 2**62], "none": []}
    other = RunningFeatures(FEATURES, OPTIONS)
    other.load(found.state)
    assert_same_state(other, folded())


def test_the_same_events_give_the_same_bytes(tmp_path: Path) -> None:
    quiet, asked = folded(), folded()
    asked.columns(as_batch([{"item": "i1", "user": 1, "event_time": 0}], COLUMNS))
    asked.state()
    for name, fold in (("quiet", quiet), ("asked", asked)):
        write_checkpoint(tmp_path / name, fold.state(), 1)
    arrays = [(tmp_path / name / "running-0.arrow").read_bytes() for name in ("quiet", "asked")]
    assert arrays[0] == arrays[1]


@pytest.mark.parametrize("dies_at", ["arrays", "manifest"])
def test_a_write_that_dies_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    write_checkpoint(tmp_path, folded(2).state(), "before")

    def die(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    method = "write" if dies_at == "arrays" else "replace"
    with monkeypatch.context() as patched:
        patched.setattr(f"embtables.running.checkpoint.LocalFolder.{method}", die)
        with pytest.raises(StateError, match="cannot write running features: No space left on device"):
            write_checkpoint(tmp_path, folded().state(), "after")
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.position == "before"
    write_checkpoint(tmp_path, folded().state(), "after")
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.position == "after"
    assert len(list(tmp_path.iterdir())) == 2


def test_damage_is_refused_with_the_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, folded().state(), 0)
    file, manifest = tmp_path / "running-0.arrow", tmp_path / MANIFEST
    whole, described = file.read_bytes(), manifest.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StateError, match=r"running-0\.arrow: is damaged"):
            read_checkpoint(tmp_path)
    for wrong in (whole[:-1], whole + b"x", b""):
        file.write_bytes(wrong)
        with pytest.raises(StateError, match=r"running-0\.arrow"):
            read_checkpoint(tmp_path)
    file.unlink()
    with pytest.raises(StateError, match=r"running-0\.arrow: is named by running\.json, but is not there"):
        read_checkpoint(tmp_path)
    file.write_bytes(whole)
    for key, value in {"file": "../x.arrow", "format": 2, "bytes": -1, "clock": "now", "counts": {}, "more": 1}.items():
        manifest.write_text(json.dumps({**json.loads(described), key: value}))
        with pytest.raises(StateError, match=r"running\.json: "):
            read_checkpoint(tmp_path)
    manifest.write_bytes(b"{")
    with pytest.raises(StateError, match=r"running\.json: cannot be read: is not JSON"):
        read_checkpoint(tmp_path)


def test_a_state_of_other_definitions_is_refused() -> None:
    state = folded().state()
    others = (
        RunningFeatures(FEATURES[:3], OPTIONS),
        RunningFeatures(FEATURES),
        RunningFeatures([RunningFeature(name="sales", count="events", by=("item",), window="4s")], OPTIONS),
    )
    for other in others:
        with pytest.raises(StateError, match="was made with other definitions or options"):
            other.load(state)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("keys", lambda a: a[::-1].copy(), "keys must rise"),
        ("keys", lambda a: a[:-1], "too short"),
        ("first", lambda a: a + 10**9, "first time|last time"),
        ("gone", lambda a: a - 1000, "needs an event"),
        ("last_gone", lambda a: a[:-1], "too short"),
        ("counts", lambda a: a + 1, "add up"),
        ("counts", lambda a: np.where(a > 0, 2**62, a), "add up"),
        ("counts", lambda a: -a, "add up"),
        ("times", lambda a: a[::-1].copy(), "earliest|fall"),
        ("times", lambda a: a[:-1], "add up"),
        ("track.0.values", lambda a: a[:-1], "as many values"),
        ("track.0.counts", lambda a: a * 2, "add up"),
        ("track.0.times", lambda a: np.arange(len(a), 0, -1), "fall"),
    ],
)
def test_arrays_that_no_fold_made_are_refused(name: str, change: Any, message: str) -> None:
    fold = folded()
    state = fold.state()
    changed = {**state.groups[0], name: change(state.groups[0][name])}
    damaged = replace(state, groups=(changed, *state.groups[1:]))
    with pytest.raises(StateError, match=f"damaged: .*({message})"):
        fold.load(damaged)
    missing = {key: of for key, of in state.groups[0].items() if key != name}
    with pytest.raises(StateError, match="an array is missing"):
        fold.load(replace(state, groups=(missing, *state.groups[1:])))
    with pytest.raises(StateError, match="groups of keys"):
        fold.load(replace(state, groups=state.groups[1:]))
    assert_same_state(fold, folded())


def test_arrays_of_another_type_are_refused() -> None:
    fold = folded()
    state: RunningState = fold.state()
    changed: dict[str, Any] = {**state.groups[0], "first": state.groups[0]["first"].astype(np.float64)}
    with pytest.raises(StateError, match="damaged"):
        fold.load(replace(state, groups=(changed, *state.groups[1:])))
