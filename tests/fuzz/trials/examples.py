"""`data.prepare`: every example beside what the earlier lines of the log say of it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pyarrow.parquet as pq

from embtables.errors import EmbtablesError
from embtables.pipelines.call import runs
from tests.fuzz.oracle.arrow import family, one_array, python_values
from tests.fuzz.oracle.log import Oracle
from tests.fuzz.oracle.purchases import Line, derived, lines_of
from tests.fuzz.oracle.values import DAY, Column, Unreadable, plain_ids
from tests.fuzz.trials.case import Case, Verdict, WrongRowsError, need


def examples(case: Case) -> Verdict:
    """Trains on the examples, and reads them."""
    prepare = case.data["prepare"]
    try:
        lines: list[Line] | str = lines_of(_oracle(case), prepare)
    except Unreadable as verdict:
        lines = str(verdict)
    try:
        runs.train(case.folder / "config.yaml", runs_dir=case.folder / "runs", max_steps=2, shown=False)
    except EmbtablesError as error:
        small = ("leaves no examples", "leaves no positives", "no rows")
        if isinstance(lines, str) or any(words in str(error) for words in small) or error.path.get("column") == "price":
            return Verdict("refused", str(error))
        raise WrongRowsError(f"needless refusal: {error}") from error
    if isinstance(lines, str):
        raise WrongRowsError(f"prepared, but {lines}")
    written = (case.folder / "runs" / "prepared").rglob("*.parquet")
    (file,) = (each for each in written if "_past" not in each.parts)  # beside the past as of the log's end
    table = pq.ParquetFile(file).read()
    found = {name: python_values(one_array(table.column(name))) for name in table.column_names}
    for name in ("item", "user", "invoice"):
        column = Column(family(table.schema.field(name).type), found[name])
        found[name] = [plain_ids({"name": name}, name, column, value)[0][0] for value in column.values]
    _compare(found, lines, prepare)
    return Verdict("trained")


def _oracle(case: Case) -> Oracle:
    return Oracle({"features": [], "labels": [], "data": {"path": "log"}}, case.folder)


def _compare(found: dict[str, list[Any]], lines: list[Line], prepare: dict[str, Any]) -> None:
    positives = Counter((line.item, line.user, line.invoice, line.time) for line in lines)
    bought = {(line.invoice, line.item) for line in lines}
    for row, label in enumerate(found["label"]):
        item, user, invoice, time = (found[name][row] for name in ("item", "user", "invoice", "at"))
        pool = {line.item for line in lines if 0 < time // DAY - line.time // DAY <= prepare["pool_days"]}
        if item not in pool:
            raise WrongRowsError(f"row {row}: item {item} was not sold on the days before")
        if label == 1:
            positives[item, user, invoice, time] -= 1
        elif (invoice, item) in bought:
            raise WrongRowsError(f"row {row}: a negative is an item of the same invoice")
        for name, value in derived(lines, item, user, time, prepare["history_length"]).items():
            ours = found[name][row]
            if name == "history":
                need(f"items of the history in row {row}", len(ours), len(value))
            elif not math.isclose(ours, value, rel_tol=1e-5):
                raise WrongRowsError(f"row {row}: {name} is {ours} instead of {value}")
        if "price" in prepare:
            _check_price(found["last_price"][row], lines, item, time, row)
    if min(positives.values(), default=0) < 0:
        raise WrongRowsError("a positive is there twice")


def _check_price(ours: float | None, lines: list[Line], item: int, time: int, row: int) -> None:
    """The price of one of the item's sales at the last moment before."""
    earlier = [line for line in lines if line.item == item and line.time < time]
    last = max((line.time for line in earlier), default=None)
    prices = [line.price for line in earlier if line.time == last] or [None]
    there = [price for price in prices if price is not None and not math.isnan(price)]
    near = len(there) < len(prices) if ours is None else any(math.isclose(ours, p, rel_tol=1e-5) for p in there)
    if not near:
        raise WrongRowsError(f"row {row}: last_price is {ours} instead of one of {prices}")
