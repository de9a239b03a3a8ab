"""The model of online_retail, trained once below build/, and requests as a shop would send them: the rows of an invoice
of the test days, what its lines have in common as the context, the items as candidates.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import embtables
from benchmarks import _harness
from embtables.pipelines.prepare.log_splits import with_prepared_data
from embtables.pipelines.sources.open_log import open_log
from embtables.state.read.saved_version import list_versions, open_folder

RUNS = _harness.ROOT / "build" / "benchmarks" / "serving"
CONFIG = "examples/online_retail/dcnv2.yaml"
CONTEXT = ("customer_id", "country", "event_time", "history", "user_count")
GROUP = "invoice"


def trained(quick: bool) -> Path:
    """The folder of a run that has published versions for servers; trained where there is none yet."""
    runs = RUNS / ("quick" if quick else "whole")
    found = [run for run in sorted(runs.glob("online_retail-*")) if _has_versions(run)]
    if found:
        return found[-1]
    options = ["train.runs_dir=" + str(runs), "publish.every_steps=50", "publish.keep=2"]
    options += ["train.max_steps=60"] if quick else []
    command = [sys.executable, "-m", "embtables", "train", CONFIG]
    subprocess.run(
        [*command, *(text for option in options for text in ("--set", option))],
        cwd=_harness.ROOT,
        check=True,
        stdout=sys.stderr,
    )
    return sorted(runs.glob("online_retail-*"))[-1]


def _has_versions(run: Path) -> bool:
    try:
        return any(name.startswith("serving-") for name in list_versions(open_folder(run)))
    except embtables.EmbtablesError:
        return False


def tables(run: Path) -> Iterator[pa.Table]:
    """The test days' rows, with joined columns, as scoring reads them, and with their invoice."""
    config = embtables.load(run).config
    config = with_prepared_data(config, shown=False)
    log = open_log(config, config.data)
    scoring = embtables.FeatureTransform.for_scoring(config, embtables.FittedTransforms())
    for block in log.blocks(0, None):
        rows = log.rows(block, "test", (*scoring.columns, GROUP)).table.select([*scoring.columns, GROUP])
        if rows.num_rows:
            yield rows


def requests(run: Path, candidates: int, count: int) -> list[dict[str, Any]]:
    """Requests of a context and so many candidates each: `{"context": {...}, "candidates": [{...}, ...]}`.

    Raises:
        ValueError: the test days have fewer such invoices.
    """
    found: list[dict[str, Any]] = []
    for rows in tables(run):
        groups = rows[GROUP].combine_chunks().dictionary_encode()
        numbers = groups.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(numbers, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            if len(members) >= candidates:
                found.append(_request(rows.take(pa.array(members[:candidates]))))
            if len(found) == count:
                return found
    raise ValueError(f"the test days have {len(found)} invoices of {candidates} candidates, {count} are needed")


def _request(rows: pa.Table) -> dict[str, Any]:
    times = pc.strftime(rows["event_time"].cast(pa.timestamp("s")), format="%Y-%m-%dT%H:%M:%S")
    rows = rows.set_column(rows.schema.get_field_index("event_time"), "event_time", times)
    context = rows.select(CONTEXT).slice(0, 1).to_pylist()[0]
    return {"context": context, "candidates": rows.drop_columns([*CONTEXT, GROUP]).to_pylist()}


def as_rows(request: dict[str, Any]) -> pa.Table:
    """A request's rows as prediction takes them."""
    rows = pa.Table.from_pylist([{**request["context"], **candidate} for candidate in request["candidates"]])
    place = rows.schema.get_field_index("event_time")
    times = pc.strptime(rows["event_time"], format="%Y-%m-%dT%H:%M:%S", unit="us")
    return rows.set_column(place, "event_time", times)
