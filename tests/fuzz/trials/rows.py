"""Every batch of the reader beside the oracle's rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from embtables.pipelines.config import load_config
from embtables.pipelines.prepare.log_splits import with_absolute_joins
from embtables.pipelines.sources.parquet import Log, ParquetReader
from tests.fuzz.oracle.log import Reading, Row
from tests.fuzz.trials.case import Case, Verdict, WrongRowsError, need


def read(case: Case) -> Verdict:
    """See the module."""
    wanted = case.wanted
    config = with_absolute_joins(load_config(case.folder / "config.yaml"))
    log = Log(config, config.data)
    fitted = log.fit_transforms(0)
    split = case.data.get("split")
    divided = split is not None or "parts" in case.data
    parts: list[Any] = ["train"] if not divided else ["train", "validation", "test"]
    if "parts" in case.data:
        parts = list(case.data["parts"])
    seed = 3 if "shuffle" in case.data else None
    found, aside = {}, Counter[str]()
    for part in parts:
        reader = ParquetReader(
            log, part, batch_size=config.train.batch_size, fitted=fitted, seed=seed if part == "train" else None
        )
        names = [feature["name"] for feature in case.config["features"]]
        found[part] = [row for item in reader for row in _rows(item.batch, names)]
        aside += reader.quarantine.counts
    if isinstance(wanted, str):
        read = sum(map(len, found.values()))
        if not read or wanted.startswith("null_id"):  # what no row has is not looked at
            return Verdict("trained")
        raise WrongRowsError(f"read {read} rows, but {wanted}")
    if wanted.bad and case.data.get("on_bad_row") != "quarantine" and _is_read(wanted, parts, divided):
        raise WrongRowsError(f"no fault was found in {next(iter(wanted.bad.items()))}")
    if split is not None and split["kind"] == "hash":
        _compare(case, [row for rows in found.values() for row in rows], wanted.rows, ordered=False)
        return Verdict("trained")
    for part in parts:
        rows = [row for row in wanted.rows if row.part in (None, part)]
        _compare(case, found[part], rows, ordered=seed is None or part != "train")
    if not divided:
        need("rows set aside", sum(aside.values()), len(wanted.bad))
    return Verdict("trained")


def _is_read(wanted: Reading, parts: list[Any], divided: bool) -> bool:
    return not divided or any(part is None or part in parts for part in wanted.bad_parts.values())


def _rows(batch: Any, names: list[str]) -> list[tuple[Any, ...]]:
    """Each row of a batch as Python values."""
    ids = []
    for name in names:
        jagged = batch.ids[name]
        weights = (
            None if jagged.weights is None else [w.tolist() for w in jagged.weights.split(jagged.lengths.tolist())]
        )
        ids.append(([values.tolist() for values in jagged.rows()], weights))
    dense, labels = batch.dense.tolist(), batch.labels.tolist()
    weight = [None] * batch.num_rows if batch.weight is None else batch.weight.tolist()
    time = [None] * batch.num_rows if batch.event_time_us is None else batch.event_time_us.tolist()
    return [
        ([(values[r], None if w is None else w[r]) for values, w in ids], dense[r], labels[r], weight[r], time[r])
        for r in range(batch.num_rows)
    ]


def _compare(case: Case, found: list[tuple[Any, ...]], wanted: list[Row], *, ordered: bool) -> None:
    need("rows", len(found), len(wanted))
    alike = {f["name"]: _Alike(f) for f in case.config["features"]}
    theirs = [_shown(row, (row.ids, row.dense, row.labels, row.weight, row.time), case) for row in wanted]
    ours = [_shown(None, row, case) for row in found]
    if not ordered:
        # Rows are told apart by what is exact in them; what is not is compared after that.
        ours, theirs = (sorted(rows, key=lambda row: _exact(row, case)) for rows in (ours, theirs))
    for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        where = f"row {place}" if not ordered else f"{wanted[place].place}"
        for feature, a, b in zip(case.config["features"], one[0], other[0], strict=True):
            alike[feature["name"]].add(where, a, b, exact=ordered)
        if one[1:] != other[1:]:
            raise WrongRowsError(f"{where}: {one[1:]} instead of {other[1:]}")


def _shown(row: Row | None, values: tuple[Any, ...], case: Case) -> tuple[Any, ...]:
    """A row with its numbers as float32 shows them to six digits; weights only where the feature has some."""
    ids, dense, labels, weight, time = values
    shown = []
    for feature, (of_row, weights) in zip(case.config["features"], ids, strict=True):
        kept = weights if "weights_column" in feature else None
        shown.append((list(of_row), None if kept is None else [f"{np.float32(w):.6g}" for w in kept]))
    return (
        shown,
        [f"{np.float32(d) + np.float32(0):.6g}" for d in dense],
        [float(y) for y in labels],
        None if weight is None else f"{np.float32(weight):.6g}",
        time,
    )


def _exact(row: tuple[Any, ...], case: Case) -> str:
    features = zip(case.config["features"], row[0], strict=True)
    ids = [len(ids[0]) if "cross" in f or "num_buckets" in f else ids for f, ids in features]
    return repr((ids, row[1:]))


class _Alike:
    """Ids of a feature beside the oracle's. Buckets and crosses are some numbers: equal ones for equal values."""

    def __init__(self, feature: dict[str, Any]) -> None:
        self.feature = feature
        self.numbers: dict[Any, int] = {}
        self.buckets: list[tuple[float, int]] = []

    def add(self, where: str, found: Any, wanted: Any, *, exact: bool) -> None:
        name = self.feature["name"]
        (ids, weights), (theirs, their_weights) = found, wanted
        if len(ids) != len(theirs) or weights != their_weights:
            raise WrongRowsError(f"{where}, feature {name}: {found} instead of {wanted}")
        if not exact and ("cross" in self.feature or "num_buckets" in self.feature):
            return
        for one, other in zip(ids, theirs, strict=True):
            if "cross" in self.feature:
                if self.numbers.setdefault(other, one) != one:
                    raise WrongRowsError(f"{where}, feature {name}: {other} is {one} and {self.numbers[other]}")
            elif isinstance(other, tuple):
                self._bucket(where, one, other[1])
            elif one != other:
                raise WrongRowsError(f"{where}, feature {name}: {found} instead of {wanted}")

    def _bucket(self, where: str, bucket: int, value: float) -> None:
        if not 0 <= bucket < self.feature["num_buckets"]:
            raise WrongRowsError(f"{where}: there is no bucket {bucket}")
        for other, of_other in self.buckets:
            if (value < other and bucket > of_other) or (value == other and bucket != of_other):
                raise WrongRowsError(f"{where}: {value} is in bucket {bucket}, {other} in {of_other}")
        self.buckets.append((value, bucket))
