"""Scores of a log, of the same rows in other widths and encodings, and of them in memory: the same for every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embtables.errors import EmbtablesError
from embtables.pipelines.call import runs
from embtables.pipelines.trained.run import Run
from tests.fuzz.drawn.encode import encoded
from tests.fuzz.oracle.log import Oracle
from tests.fuzz.oracle.values import Unreadable
from tests.fuzz.trials.case import Case, Verdict, WrongRowsError, need


def predict(case: Case) -> Verdict:
    """Trains, and scores the rows that it was trained on."""
    run = runs.train(case.folder / "config.yaml", max_steps=3, shown=False)
    # Every row has a score, whatever conditions and parts there are; so every row must be one.
    log = {"path": "log", **_kept(case.data)}
    try:
        oracle = Oracle({**_scored(case.config), "data": log}, case.folder)
        reading = oracle.read()
    except Unreadable as verdict:
        _refuses(run, case, str(verdict))
    tables = _again(case, oracle)
    if tables is None:
        return Verdict("trained")
    others = case.folder / "others"
    others.mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, others / f"{number}.parquet")
    on_bad_row = str(case.rng.choice(["null", "error"]))
    scores = [_scores(run, path, on_bad_row, case.folder) for path in (case.folder / "log", others)]
    _need_alike("in other types", *scores)
    if len(tables) == 1:
        _need_alike(
            "in memory", scores[1], _scores(run, pq.ParquetFile(others / "0.parquet").read(), on_bad_row, case.folder)
        )
    if isinstance(scores[0], EmbtablesError):
        if not reading.bad:
            raise WrongRowsError(f"no row is bad, but {scores[0]}")
        return Verdict("refused", str(scores[0]))
    bad = [place in reading.bad for place in oracle.places]
    need("rows without a score", [score is None for score in scores[0]], bad)
    _need_carried(run, case, oracle, on_bad_row)
    return Verdict("trained")


def _scored(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without what a prediction does not read."""
    left_out = ("sample_weight", "event_time", "evaluate")
    return {**{name: value for name, value in config.items() if name not in left_out}, "labels": []}


def _kept(data: dict[str, Any]) -> dict[str, Any]:
    """What a prediction takes of the data section."""
    found: dict[str, Any] = {name: data[name] for name in ("join", "on_missing_column", "partitions") if name in data}
    if "join" in found and "parts" in data:
        found["join"] = [{**join, "path": f"../{join['path']}"} for join in found["join"]]
    return found


def _refuses(run: Run, case: Case, why: str) -> None:
    run.predict(case.folder / "log", case.folder / "scores.parquet", on_bad_row="null", shown=False)
    raise WrongRowsError(f"scored, but {why}")


def _names(config: dict[str, Any], oracle: Oracle) -> dict[str, bool]:
    """The stored columns that a prediction reads, and whether they hold ids."""
    found: dict[str, bool] = {}
    for feature in config["features"]:
        for name in feature.get("cross") or [feature.get("column") or feature["name"]]:
            found[name] = found.get(name, False) or "num_buckets" not in feature
        if "weights_column" in feature:
            found.setdefault(feature["weights_column"], False)
    found |= {spec["column"]: found.get(spec["column"], False) for spec in config.get("dense", [])}
    found |= {join["key"]: True for join in config["data"].get("join", [])}
    return {name: ids for name, ids in found.items() if name not in oracle.side}


def _again(case: Case, oracle: Oracle) -> list[pa.Table] | None:
    """The rows in one file or two, each column in a random type of its family; None if a column has no other type."""
    rows = len(oracle.places)
    cut = int(case.rng.integers(1, rows)) if rows > 1 and case.rng.integers(2) else rows
    found = []
    for start, stop in ((0, cut), (cut, rows)) if cut < rows else ((0, rows),):
        columns: dict[str, pa.Array] = {}
        for name, ids in _names(case.config, oracle).items():
            try:
                column = oracle.column(name, ids=ids)
            except Unreadable:
                return None
            array = encoded(case.rng, column.family, column.values[start:stop])
            if array is None:
                return None
            top, _, inner = name.partition(".")
            columns[top] = pa.StructArray.from_arrays([array], names=[inner]) if inner else array
        found.append(pa.table(columns))
    return found


def _scores(run: Run, rows: Path | pa.Table, on_bad_row: Any, folder: Path) -> list[Any] | EmbtablesError:
    try:
        if isinstance(rows, pa.Table):
            scored = run.predict(rows, columns=[], on_bad_row=on_bad_row, shown=False)
            return list(scored.column("score").to_pylist())
        run.predict(rows, folder / "scores.parquet", columns=[], on_bad_row=on_bad_row, shown=False)
        return list(pq.ParquetFile(folder / "scores.parquet").read().column("score").to_pylist())
    except EmbtablesError as error:
        return error


def _need_alike(what: str, one: list[Any] | EmbtablesError, other: list[Any] | EmbtablesError) -> None:
    refused = [isinstance(each, EmbtablesError) for each in (one, other)]
    if any(refused):
        if not all(refused):
            raise WrongRowsError(f"{what} refused: {refused}; {one if refused[0] else other}"[:300])
        return
    if repr(one) != repr(other):
        place = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if repr(a) != repr(b)), -1)  # type: ignore[arg-type]
        raise WrongRowsError(f"{what}: the scores differ at row {place}")


def _need_carried(run: Run, case: Case, oracle: Oracle, on_bad_row: Any) -> None:
    """Columns that are carried over have their values, in the order of the log."""
    folder = case.folder / "carried"
    folder.mkdir()
    try:
        run.predict(case.folder / "log", folder / "0.parquet", on_bad_row=on_bad_row, shown=False)
    except EmbtablesError as error:
        if "--columns" in str(error):  # what cannot be one column of the output is named
            return
        raise
    carried = Oracle({**case.config, "data": {"path": "carried"}}, case.folder)
    for name in _names(case.config, oracle):
        # As numbers, because what is no id in all files together is one beside the label.
        one, other = oracle.column(name, ids=False), carried.column(name, ids=False)
        if repr([_plain(v) for v in one.values]) != repr([_plain(v) for v in other.values]):
            raise WrongRowsError(f"the carried column {name} has other values")


def _plain(value: Any) -> Any:
    """Numbers as float64, because int and float meet in it."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bytes) else float(value)
