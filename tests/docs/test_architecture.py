"""The paths that docs/architecture.md draws are the ones that calls take: no room is entered twice on the way."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from embtables.models.scorer import Scorer
from embtables.pipelines.config import load_config
from embtables.pipelines.training.train import train
from tests.docs.quick_start import make_log_and_configuration

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
DEEPEST = ("HostRowStore.train_pooled", "HostRowStore.pooled", "HostRowStore.draw_cut", "HostRowStore.apply")
DEEPEST += ("FeatureTransform.columns", "HostCapture.streamed")


def room(frame: FrameType) -> str | None:
    module = frame.f_globals.get("__name__", "")
    if not module.startswith("embtables.") or module == "embtables.rows.exclusive":  # the lock, around each method
        return None
    first, *rest = module.split(".")[1:]
    return f"{first}/{rest[0]}" if first in ("pipelines", "state") else first


def rooms_of(frame: FrameType | None) -> tuple[str, ...]:
    """Whose functions are being called, the outermost first."""
    found: list[str] = []
    while frame is not None:
        name = room(frame)
        if name is not None and found[-1:] != [name]:
            found.append(name)
        frame = frame.f_back
    return tuple(reversed(found))


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, ...]]]:
    """For each of DEEPEST, through which rooms calls come to it: in training with checkpoints, and in scoring."""
    folder = tmp_path_factory.mktemp("run")
    found: dict[str, set[tuple[str, ...]]] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_qualname in DEEPEST:
            found.setdefault(frame.f_code.co_qualname, set()).add(rooms_of(frame))

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_log_and_configuration(folder)
        config = load_config(Path("my.yaml"), ["train.max_steps=4", "train.checkpoint_every_steps=2"])
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            report = train(config, shown=False)
            Scorer.from_version(report["run_dir"], "last").score({"user": [7, 8], "item": [0, 99]})
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
    return found


def drawn(heading: str) -> list[str]:
    """The rooms of a path in the page, in their order."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}")[1].split("## ")[0]
    return [name.removeprefix("embtables/") for name in re.findall(r"^ \d  (\S+)", section, re.MULTILINE)]


def test_a_batch_goes_through_each_room_once(ways: dict[str, set[tuple[str, ...]]]) -> None:
    down = drawn("The path of a batch, from log to row")
    assert len(down) == len(set(down)) <= 8
    alone = [name for name in down if name != "shard"]
    assert ways["FeatureTransform.columns"] >= {("pipelines/sources", "inputs")}
    assert ways["HostRowStore.train_pooled"] == {tuple(alone[2:])}
    assert ("models", "lookup", "tables", "rows") in ways["HostRowStore.pooled"]
    assert all(way[-4:] == tuple(alone[3:]) for way in ways["HostRowStore.pooled"])


def test_a_version_goes_through_each_room_once(ways: dict[str, set[tuple[str, ...]]]) -> None:
    path = drawn("The path of a version, from writer to restore")
    down, up = path[:5], path[5:]
    assert len({*down, *up}) <= 8
    assert len(set(down)) == len(down)
    assert len(set(up)) == len(up)
    assert ways["HostRowStore.draw_cut"] == {("pipelines/training", *reversed(down[:3]))}
    assert ways["HostCapture.streamed"] == {tuple(reversed(down[:3]))}
    assert all(way[-3:] == ("state/read", *up[3:]) for way in ways["HostRowStore.apply"])
