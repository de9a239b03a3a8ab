"""A model evaluated on each part and on all rows: counts, slices, and the figures of baseline columns."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from embtables.errors import EmbtablesError
from embtables.pipelines.call import runs
from tests.fuzz.oracle.figures import auc, gauc
from tests.fuzz.oracle.log import Oracle, Reading, Row
from tests.fuzz.oracle.values import EXACT, NUMBERS, BadValue, Column, Unreadable, check_role, plain_ids
from tests.fuzz.trials.case import Case, Verdict, WrongRowsError, need


def evaluate(case: Case) -> Verdict:
    """Trains a few steps, evaluates, and compares."""
    parts = {part: _wanted(case, part) for part in _parts(case)}
    refused = next((why for _, why in parts.values() if isinstance(why, str)), None)
    try:
        run = runs.train(case.folder / "config.yaml", max_steps=2, shown=False)
        reports = {part: run.evaluate(part, shown=False) for part in parts}  # type: ignore[arg-type]
    except EmbtablesError as error:
        if refused is not None:
            return Verdict("refused", str(error))
        raise
    if refused is not None:
        if refused.startswith("null_id"):  # what no row has is not looked at
            return Verdict("trained")
        raise WrongRowsError(f"evaluated, but {refused}")
    for part, (reading, wanted) in parts.items():
        if reading.bad and part == "all" and case.data.get("on_bad_row") != "quarantine":
            raise WrongRowsError(f"no fault was found in {next(iter(reading.bad.items()))}")
        _compare(part, reports[part], wanted)
    return Verdict("trained")


def _wanted(case: Case, part: str) -> tuple[Reading, Any]:
    """What the oracle reads of a part, and the figures of it, or why there are none."""
    # Rows of no part are rows of the whole log.
    of_all = {name: value for name, value in case.data.items() if name != "split"}
    reading = Reading()
    try:
        oracle = Oracle({**case.config, "data": of_all} if part == "all" else case.config, case.folder)
        reading = oracle.read()
        return reading, _figures(oracle, reading, part)
    except Unreadable as verdict:
        return reading, str(verdict)


def _parts(case: Case) -> list[str]:
    split = case.data.get("split")
    if "parts" in case.data:
        return [*case.data["parts"], "all"]
    if split is None or split["kind"] == "hash" or isinstance(case.wanted, str):
        return ["all"]
    return [*dict.fromkeys(str(row.part) for row in case.wanted.rows), "all"]


def _figures(oracle: Oracle, reading: Reading, part: str) -> dict[str, Any]:
    """What the report must say of a part."""
    section = oracle.config["evaluate"]
    places = {place: number for number, place in enumerate(oracle.places)}
    rows = [row for row in reading.rows if part in ("all", row.part)]
    numbers = [places[row.place] for row in rows]
    found: dict[str, Any] = {"rows": len(rows), "baselines": {}, "slices": {}}
    groups = _groups(oracle, section.get("group_column"), numbers)
    for name in section.get("baseline_columns", []):
        column = oracle.column(name, ids=False)
        found["baselines"][name] = _baseline(name, column, rows, numbers, groups)
    for one in section.get("slices", []):
        inside = oracle.satisfying(one["where"])
        kept = [place for place, number in enumerate(numbers) if inside[number]]
        some, their = [rows[place] for place in kept], [numbers[place] for place in kept]
        found["slices"][one["name"]] = {
            name: _baseline(name, oracle.column(name, ids=False), some, their, _picked(groups, kept))
            for name in section.get("baseline_columns", [])
        }
    return found


def _picked(groups: list[Any] | None, kept: list[int]) -> list[Any] | None:
    return None if groups is None else [groups[place] for place in kept]


def _groups(oracle: Oracle, name: str | None, numbers: list[int]) -> list[Any] | None:
    if name is None:
        return None
    column = oracle.column(name, ids=True)
    check_role({"name": name}, name, column.family)
    if column.family.startswith("list:"):
        raise Unreadable(f"{name} is {column.family}")
    found = []
    for number in numbers:
        value = column.values[number]
        try:
            found.append(None if value is None else plain_ids({"name": name}, name, column, value)[0][0])
        except BadValue as bad:
            raise Unreadable(str(bad)) from None
    return found


def _baseline(
    name: str, column: Column, rows: list[Row], numbers: list[int], groups: list[Any] | None
) -> dict[str, Any]:
    if column.family not in (*NUMBERS, "null"):
        raise Unreadable(f"{name} is {column.family}")
    by_group: dict[Any, list[Any]] = defaultdict(list)
    judged = []
    for place, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        value = column.values[number]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        exact = int(value) if column.family in EXACT and abs(int(value)) < 2**63 else float(value)
        judged.append((exact, row.labels[0], 1.0 if row.weight is None else row.weight))
        if groups is not None and groups[place] is not None:  # GAUC leaves out rows without a group
            by_group[groups[place]].append(judged[-1])
    grouped = None if groups is None else gauc(by_group)
    return {"auc": auc(judged), "gauc": grouped, "rows": len(judged), "null_rows": len(rows) - len(judged)}


def _compare(part: str, report: dict[str, Any], wanted: dict[str, Any]) -> None:
    need(f"rows of {part}", report["rows"], wanted["rows"])
    _alike(part, report.get("baselines", {}), wanted["baselines"])
    for name, baselines in wanted["slices"].items():
        _alike(f"{part}, slice {name}", report["slices"][name].get("baselines", {}), baselines)


def _alike(where: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, figures in wanted.items():
        for figure, value in figures.items():
            ours = found[name][figure]
            if value is None or ours is None or isinstance(value, int):
                need(f"{figure} of {name} in {where}", ours, value)
            elif not math.isclose(ours, value, rel_tol=1e-5, abs_tol=1e-6):
                raise WrongRowsError(f"{where}: {figure} of {name} is {ours} instead of {value}")
