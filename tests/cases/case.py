"""Cases with what is right for each, and the check of one: the real command, in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from embtables.pipelines.cli.main import main
from embtables.pipelines.training.loop import TrainLoop
from tests.cases.log import Folder

Build = Callable[[Folder], str]


@dataclass(frozen=True)
class Trained:
    """The case trains. What is None is not looked at.

    Attributes:
        rows: rows trained on.
        ids: rows that table `t` then holds.
        evaluated: rows of the test part.
        quarantined: rows that were set aside.
        warns: parts of one warning.
    """

    rows: int | None
    ids: int | None = None
    evaluated: int | None = None
    quarantined: int | None = None
    warns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The case is one error that says all of this, before the first step unless `during` training."""

    says: tuple[str, ...]
    during: bool = False


@dataclass(frozen=True)
class Done:
    """What a command ended with: its JSON, what it wrote to stderr, and how many training steps it took."""

    status: int
    report: dict[str, Any]
    errors: str
    steps: int


@dataclass(frozen=True)
class Case:
    """A log and its configuration, and the outcome that is right."""

    name: str
    build: Build
    right: Trained | Refused

    def check(self, root: Path) -> None:
        folder = Folder(root)
        done = train(folder, self.build(folder))
        if isinstance(self.right, Refused):
            check_refusal(self.right, done)
        else:
            check_trained(self.right, done)


class Cases(list[Any]):
    """The cases of a file, in its order, as pytest's parameters."""

    def trains(self, rows: int | None, ids: int | None = None, **more: Any) -> Callable[[Build], Build]:
        """The function's case trains."""
        return self._with(Trained(rows, ids, **more))

    def refused(self, *says: str, during: bool = False) -> Callable[[Build], Build]:
        """The function's case is refused with a message that holds all of this."""
        return self._with(Refused(says, during))

    def _with(self, right: Trained | Refused) -> Callable[[Build], Build]:
        def add(build: Build) -> Build:
            self.append(pytest.param(Case(build.__name__, build, right), id=build.__name__))
            return build

        return add


def embtables(*arguments: object) -> Done:
    """Runs the command; its JSON must be JSON (no NaN). An exception that is no user's mistake passes through."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", ["embtables", *map(str, arguments)]),
        mock.patch.object(TrainLoop, "_step", autospec=True, side_effect=TrainLoop._step) as step,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    lines = out.getvalue().strip().splitlines()
    report = json.loads(lines[-1], parse_constant=_no_json) if lines and status == 0 else {}
    return Done(status, report, err.getvalue(), step.call_count)


def train(folder: Folder, config: str, *more: str) -> Done:
    """Trains under a configuration; the run lies in the folder's `runs/`."""
    path = folder.path("config.yaml")
    path.write_text(config)
    return embtables("train", path, "--set", f"train.runs_dir={folder.root / 'runs'}", "--json", *more)


def _no_json(name: str) -> None:
    raise AssertionError(f"the report holds {name}, which is no JSON")


def check_trained(right: Trained, done: Done) -> None:
    assert done.status == 0, done.errors[-400:]
    report = done.report
    found = {
        "rows": report["rows"],
        "ids": report["tables"]["t"]["rows"] if right.ids is not None else None,
        "evaluated": report["evaluated_rows"],
        "quarantined": report["quarantined_rows"],
    }
    wanted = {name: getattr(right, name) for name in found if getattr(right, name) is not None}
    assert {name: found[name] for name in wanted} == wanted
    if right.warns:
        text = " ".join(done.errors.split())
        assert "warning" in text.lower(), "no warning was given"
        assert all(part in text for part in right.warns), text[-400:]


def check_refusal(right: Refused, done: Done) -> None:
    assert done.status != 0, f"it trained on {done.report['rows']} rows"
    shown = " ".join(done.errors.split("error: ", 1)[-1].split())
    for part in right.says:
        assert part in shown, f"the message does not say {part!r}: {shown[:400]}"
    assert right.during or not done.steps, f"was said only after {done.steps} steps: {shown[:200]}"
