"""`embtables replay`: nothing differs where nothing is different; what is different is named by its feature."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from embtables.errors import DataError
from embtables.pipelines.cli.main import app
from embtables.serving import wire
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.trust.fingerprints import served_fingerprints
from embtables.serving.trust.replay import replay
from embtables.serving.versions.load import load
from embtables.state.read.saved_version import SavedVersion, find_version, open_folder
from tests.serving.scoring.served_for_tests import rows_table

Lines = Callable[..., Path]


@pytest.fixture(scope="module")
def version(run_of: Callable[[str], Path]) -> SavedVersion:
    return find_version(open_folder(run_of("dcnv2")))


@pytest.fixture(scope="module")
def scorer(version: SavedVersion) -> RequestScorer:
    return RequestScorer(load(version.folder, version.chain).served)


@pytest.fixture
def log(tmp_path: Path, scorer: RequestScorer, version: SavedVersion) -> Lines:
    """A log of requests as a server writes it; `change` gets every line before it is written."""

    def write(*requests: wire.ScoreRequest, change: Callable[[dict[str, Any]], Any] = lambda line: None) -> Path:
        path = tmp_path / "requests.jsonl"
        with path.open("wb") as file:
            for number, request in enumerate(requests):
                (found,) = scorer.score_all([request])
                assert not isinstance(found, BaseException), found
                scores = {label: found.of.scores[:, place].tolist() for place, label in enumerate(scorer.labels)}
                versions = wire.Versions(version.name, version.name)
                features = served_fingerprints(scorer, request)
                logged = wire.LoggedRequest(f"r-{number}", time.time(), versions, 1, scores, request, features)
                line = msgspec.to_builtins(logged)
                change(line)
                file.write(msgspec.json.encode(line) + b"\n")
        return path

    return write


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if name == "time" else value for name, value in row.items()}


ROWS = [as_json(row) for row in rows_table(9, seed=5).drop_columns(["click"]).to_pylist()]
WHOLE = wire.ScoreRequest(rows=ROWS)
OTHERS = {name: value for name, value in ROWS[0].items() if name != "item"}
ONE = wire.ScoreRequest(context=OTHERS, candidates=[{"item": "item-5"}, {"item": "no such item"}])


def test_nothing_differs(log: Lines, version: SavedVersion) -> None:
    found = replay(log(WHOLE, ONE), version)
    assert (found.compared, found.differences) == (2, [])
    assert found.greatest_score_difference <= 1e-6


def test_a_request_without_a_time_is_scored_at_the_time_that_it_had(log: Lines, version: SavedVersion) -> None:
    timeless = wire.ScoreRequest(rows=[{k: v for k, v in ROWS[0].items() if k != "time"}])
    now = log(timeless)
    assert not replay(now, version).differences

    def twelve_hours_ago(line: dict[str, Any]) -> None:
        line["at"] -= 12 * 3600

    (difference,) = replay(log(timeless, change=twelve_hours_ago), version).differences
    assert difference.feature == "hour"


@pytest.mark.parametrize(
    ("column", "value", "feature"),
    [("shop", 4, "shop"), ("past", ["item-1"], "past"), ("age", 99.0, "dense/age"), ("near_weight", None, "near")],
)
def test_the_first_feature_that_differs_is_named(
    log: Lines, version: SavedVersion, column: str, value: Any, feature: str
) -> None:
    row = {**ROWS[0], "near": [3, 4], "near_weight": [0.5, 0.25], "shop": 2}

    def change(line: dict[str, Any]) -> None:
        line["request"]["rows"][0][column] = [0.5, 0.5] if value is None else value

    found = replay(log(wire.ScoreRequest(rows=[row]), change=change), version)
    (difference,) = found.differences
    assert (difference.request_id, difference.line, difference.feature) == ("r-0", 1, feature)
    assert difference.score is not None
    assert difference.score > 1e-6


def test_equal_rows_and_another_score_is_no_feature(log: Lines, version: SavedVersion) -> None:
    def change(line: dict[str, Any]) -> None:
        line["scores"]["click"][0] += 1e-3

    (difference,) = replay(log(WHOLE, change=change), version).differences
    assert (difference.feature, difference.score) == (None, pytest.approx(1e-3, rel=1e-3))
    assert not replay(log(WHOLE, change=change), version, tolerance=0.01).differences


def test_a_request_that_cannot_be_scored_any_more_differs(log: Lines, version: SavedVersion) -> None:
    def change(line: dict[str, Any]) -> None:
        del line["request"]["rows"][0]["shop"]

    (difference,) = replay(log(wire.ScoreRequest(rows=ROWS[:1]), change=change), version).differences
    assert "cannot be scored: column 'shop' is missing" in difference.reason


def test_what_says_nothing_of_the_version_is_passed_over_and_counted(log: Lines, version: SavedVersion) -> None:
    def change(line: dict[str, Any]) -> None:
        if line["request_id"] == "r-0":
            del line["request"]
        if line["request_id"] == "r-1":
            line["versions"]["rows"] = "serving-99"
        if line["request_id"] == "r-2":
            del line["features"]

    path = log(ONE, ONE, ONE, ONE, change=change)
    found = replay(path, version)
    assert (found.requests, found.compared, sorted(found.skipped.values())) == (4, 1, [1, 1, 1])
    assert replay(path, version, every_version=True).compared == 3


def test_nothing_to_compare_is_an_error(log: Lines, version: SavedVersion) -> None:
    with pytest.raises(DataError, match=rf"no request .* with {version.name}: 2 without what was asked"):
        replay(log(ONE, ONE, change=lambda line: line.pop("request")), version)
    with pytest.raises(DataError, match="is no file"):
        replay(Path("no such log"), version)


def test_a_line_that_is_no_request_is_named_and_one_being_written_is_not(log: Lines, version: SavedVersion) -> None:
    path = log(ONE)
    with path.open("a") as file:
        file.write('{"request_id": "r-7", "at": 1')
    assert replay(path, version).compared == 1
    with path.open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"line 2: is no logged request"):
        replay(path, version)


def test_the_command_says_it_and_fails(log: Lines, version: SavedVersion) -> None:
    arguments = ["replay", str(log(WHOLE)), "--folder", str(version.folder.folder.root), "--version", version.name]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (0, "nothing differs")

    def change(line: dict[str, Any]) -> None:
        line["request"]["rows"][3]["shop"] = 17

    log(WHOLE, change=change)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "line 1, request r-0: feature shop differs first; a score differs by" in done.stderr
    report = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (report["compared"], report["differing"], report["first_feature"]) == (1, 1, {"shop": 1})
