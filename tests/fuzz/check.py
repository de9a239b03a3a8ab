"""One case: drawn, read by the package and by the oracle, compared."""

from __future__ import annotations

import io
import shutil
import traceback
from collections import Counter
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from embtables.errors import EmbtablesError
from embtables.pipelines.call import runs
from embtables.pipelines.config import load_config
from embtables.pipelines.prepare.log_splits import with_absolute_joins
from embtables.pipelines.sources.parquet import Log, ParquetReader
from tests.fuzz.draw import draw
from tests.fuzz.oracle import Oracle, Reading, Row
from tests.fuzz.values import Unreadable

FAULTS = ("traceback", "wrong rows", "needless refusal", "unclear message", "memory", "hang", "died")
_FLOOR = 96 << 20
_TRAINED_SHARE = 8


@dataclass(frozen=True)
class Verdict:
    """What a case ended with: `trained`, `refused`, or one of FAULTS with what was found."""

    kind: str
    detail: str = ""


class WrongRowsError(Exception):
    """The package's rows are not the oracle's."""


def check(seed: int, number: int, folder: Path) -> Verdict:
    """The verdict of a case; `folder` is made for it, and removed."""
    folder.mkdir(parents=True)
    try:
        case = draw(seed, number, folder)
        if "none" in case["writers"]:  # no writer can store it, so that nobody has such a log
            return Verdict("trained")
        before = _begin_of_peak()
        verdict = _judged(case, folder, trains=number % _TRAINED_SHARE == 0)
        used = _peak() - before
        arrow = sum(pq.ParquetFile(path).read().nbytes for path in (folder / "log").rglob("*.parquet"))
        if used > 2 * arrow + _FLOOR and verdict.kind not in FAULTS:
            return Verdict("memory", f"{used >> 20} MB for a log of {arrow:,} bytes")
        return verdict
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judged(case: dict[str, Any], folder: Path, *, trains: bool) -> Verdict:
    try:
        wanted: Reading | str = Oracle(case, folder).read()
    except Unreadable as verdict:
        wanted = str(verdict)
    try:
        with redirect_stderr(io.StringIO()):
            return _train(case, folder, wanted) if trains else _read(case, folder, wanted)
    except EmbtablesError as error:
        return _refused(error, case, wanted)
    except WrongRowsError as error:
        return Verdict("wrong rows", str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)
        ours = [f for f in last if "embtables" in f.filename and "site-packages" not in f.filename] or last[-1:]
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return Verdict("traceback", f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:150]}")


def _refused(error: EmbtablesError, case: dict[str, Any], wanted: Reading | str) -> Verdict:
    message = " ".join(str(error).split())
    if not error.message.strip() or len(message) > 1500 or " object at 0x" in message:
        return Verdict("unclear message", message[:300])
    if isinstance(wanted, str):
        return Verdict("refused", message)
    place = (error.path.get("file"), error.path.get("row"))
    if place in wanted.bad:
        if case["data"].get("on_bad_row") == "quarantine":
            return Verdict("needless refusal", f"under quarantine: {message[:200]}")
        named = error.path.get("column") in wanted.bad[place]  # type: ignore[index]
        return Verdict("refused", message) if named else Verdict("unclear message", f"another column: {message[:200]}")
    # A small log may have a part without rows, of one class, or without a weight.
    if any(words in message for words in ("no rows", "bad", "holds only the label", "all sample weights")):
        return Verdict("refused", message)
    return Verdict("needless refusal", message[:250])


def _train(case: dict[str, Any], folder: Path, wanted: Reading | str) -> Verdict:
    report = runs.train(folder / "config.yaml", runs_dir=folder / "runs", shown=False).report()
    if isinstance(wanted, str):
        if wanted.startswith("null_id"):
            return Verdict("trained")
        raise WrongRowsError(f"trained {report['rows']} rows, but {wanted}")
    split = case["data"].get("split")
    if split is None or split["kind"] != "hash":
        rows = [row for row in wanted.rows if row.part in (None, "train")]
        _need("rows trained", report["rows"], len(rows))
    if split is None:
        _need("rows set aside", report["quarantined_rows"], len(wanted.bad))
    return Verdict("trained")


def _read(case: dict[str, Any], folder: Path, wanted: Reading | str) -> Verdict:
    config = with_absolute_joins(load_config(folder / "config.yaml"))
    log = Log(config, config.data)
    fitted = log.fit_transforms(0)
    split = case["data"].get("split")
    parts: list[Any] = ["train"] if split is None else ["train", "validation", "test"]
    seed = 3 if "shuffle" in case["data"] else None
    found, aside = {}, Counter[str]()
    for part in parts:
        reader = ParquetReader(
            log, part, batch_size=config.train.batch_size, fitted=fitted, seed=seed if part == "train" else None
        )
        names = [feature["name"] for feature in case["features"]]
        found[part] = [row for item in reader for row in _rows(item.batch, names)]
        aside += reader.quarantine.counts
    if isinstance(wanted, str):
        read = sum(map(len, found.values()))
        if not read or wanted.startswith("null_id"):  # what no row has is not looked at
            return Verdict("trained")
        raise WrongRowsError(f"read {read} rows, but {wanted}")
    if wanted.bad and case["data"].get("on_bad_row") != "quarantine" and _is_read(wanted, parts, split):
        raise WrongRowsError(f"no fault was found in {next(iter(wanted.bad.items()))}")
    if split is not None and split["kind"] == "hash":
        _compare(case, [row for rows in found.values() for row in rows], wanted.rows, ordered=False)
        return Verdict("trained")
    for part in parts:
        rows = [row for row in wanted.rows if row.part in (None, part)]
        _compare(case, found[part], rows, ordered=seed is None or part != "train")
    if split is None:
        _need("rows set aside", sum(aside.values()), len(wanted.bad))
    return Verdict("trained")


def _is_read(wanted: Reading, parts: list[Any], split: Any) -> bool:
    return split is None or any(part is None or part in parts for part in wanted.bad_parts.values())


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


def _compare(case: dict[str, Any], found: list[tuple[Any, ...]], wanted: list[Row], *, ordered: bool) -> None:
    _need("rows", len(found), len(wanted))
    alike = {f["name"]: _Alike(f) for f in case["features"]}
    theirs = [_shown(row, (row.ids, row.dense, row.labels, row.weight, row.time), case) for row in wanted]
    ours = [_shown(None, row, case) for row in found]
    if not ordered:
        # Rows are told apart by what is exact in them; what is not is compared after that.
        ours, theirs = (sorted(rows, key=lambda row: _exact(row, case)) for rows in (ours, theirs))
    for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        where = f"row {place}" if not ordered else f"{wanted[place].place}"
        for feature, a, b in zip(case["features"], one[0], other[0], strict=True):
            alike[feature["name"]].add(where, a, b, exact=ordered)
        if one[1:] != other[1:]:
            raise WrongRowsError(f"{where}: {one[1:]} instead of {other[1:]}")


def _shown(row: Row | None, values: tuple[Any, ...], case: dict[str, Any]) -> tuple[Any, ...]:
    """A row with its numbers as float32 shows them to six digits; weights only where the feature has some."""
    ids, dense, labels, weight, time = values
    shown = []
    for feature, (of_row, weights) in zip(case["features"], ids, strict=True):
        kept = weights if "weights_column" in feature else None
        shown.append((list(of_row), None if kept is None else [f"{np.float32(w):.6g}" for w in kept]))
    return (
        shown,
        [f"{np.float32(d) + np.float32(0):.6g}" for d in dense],
        [float(y) for y in labels],
        None if weight is None else f"{np.float32(weight):.6g}",
        time,
    )


def _exact(row: tuple[Any, ...], case: dict[str, Any]) -> str:
    features = zip(case["features"], row[0], strict=True)
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


def _need(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise WrongRowsError(f"{found} {what} instead of {wanted}")


def _begin_of_peak() -> int:
    """Begins a new peak of this process's memory; what it uses now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024
