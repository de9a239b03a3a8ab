"""A run that stops within its epoch and goes on after its log was changed: each row once, or a refusal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embtables.errors import EmbtablesError
from embtables.pipelines.call import runs
from embtables.pipelines.trained.run import Run
from tests.fuzz.trials.case import Case, Verdict, WrongRowsError
from tests.fuzz.trials.runs import rows_of

_LONG = 1_000_000


def resume(case: Case) -> Verdict:
    """Compares with a run over the log as it was, or as it has become, that never stopped."""
    config = case.folder / "config.yaml"
    before = runs.train(config, runs_dir=case.folder / "before", shown=False)
    steps = before.report()["steps"]
    if steps < 2:
        return Verdict("trained")
    stop = int(case.rng.integers(1, steps))
    stopped = runs.train(config, runs_dir=case.folder / "runs", max_steps=stop, shown=False)
    name = str(case.rng.choice(list(_CHANGES)))
    change, outcome = _CHANGES[name]
    if not change(case.folder / "log"):
        return Verdict("trained")
    if outcome == "grown" and ("shuffle" in case.data or _is_fitted(case)):
        outcome = "before" if "shuffle" in case.data else "more rows"
    assert stopped.path is not None
    try:
        went_on = runs.resume(stopped.path, overrides=[f"train.max_steps={_LONG}"], shown=False)
    except EmbtablesError as error:
        if outcome != "refused":
            raise WrongRowsError(f"{name} at step {stop} of {steps}: {error}") from error
        return Verdict("refused", str(error))
    if outcome == "refused":
        raise WrongRowsError(f"{name} at step {stop} of {steps}: it goes on")
    _compare(name, stop, went_on, before, outcome, case)
    return Verdict("trained")


def _compare(name: str, stop: int, went_on: Run, before: Run, outcome: str, case: Case) -> None:
    whole = before
    if outcome in ("grown", "more rows"):
        whole = runs.train(case.folder / "config.yaml", runs_dir=case.folder / "after", shown=False)
    for what in ("rows", "steps", "quarantined_rows"):
        one, other = went_on.report()[what], whole.report()[what]
        if one != other:
            raise WrongRowsError(f"{name} at step {stop}: {one} {what} instead of {other}")
    if outcome != "more rows" and not _last(went_on).equals(_last(whole)):
        raise WrongRowsError(f"{name} at step {stop}: the rows of the tables differ")


def _last(run: Run) -> pa.Table:
    assert run.path is not None
    return rows_of(runs.load(run.path, checkpoint="last"))


def _is_fitted(case: Case) -> bool:
    return any("num_buckets" in feature for feature in case.config["features"])


def _files(log: Path) -> list[Path]:
    return sorted(log.rglob("*.parquet"), key=lambda file: file.relative_to(log).as_posix())


def _nothing(log: Path) -> bool:
    return True


def _touch(log: Path) -> bool:
    for file in _files(log):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    return True


def _append(log: Path) -> bool:
    files = _files(log)
    largest = max(files, key=lambda file: (pq.ParquetFile(file).metadata.num_rows, file.name))
    shutil.copy(largest, files[-1].with_name("9.parquet"))
    return _files(log)[-1].name == "9.parquet"


def _put_before(log: Path) -> bool:
    first = _files(log)[0]
    shutil.copy(first, first.with_name("!.parquet"))
    return _files(log)[0].name == "!.parquet" and pq.ParquetFile(first).metadata.num_rows > 0


def _remove(log: Path) -> bool:
    files = _files(log)
    if len(files) < 2:
        return False
    files[-1].unlink()
    return True


def _shorten(log: Path) -> bool:
    file = _files(log)[-1]
    table = pq.ParquetFile(file).read()
    if table.num_rows < 2:
        return False
    pq.write_table(table.slice(1), file)
    return True


def _rename(log: Path) -> bool:
    file = _files(log)[0]
    file.rename(file.with_name("9.parquet"))
    return True


def _damage(log: Path) -> bool:
    file = _files(log)[-1]
    file.write_bytes(file.read_bytes()[:-9])
    return True


# What is done to the log, and which run the one that goes on must equal.
_CHANGES: dict[str, tuple[Callable[[Path], bool], str]] = {
    "nothing": (_nothing, "before"),
    "touched": (_touch, "before"),
    "appended": (_append, "grown"),
    "put before": (_put_before, "before"),
    "removed": (_remove, "refused"),
    "shortened": (_shorten, "refused"),
    "renamed": (_rename, "refused"),
    "damaged": (_damage, "refused"),
}
