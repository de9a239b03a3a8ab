"""What the CTR benchmarks share: training an example in a process of its own, and a table over seeds."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._harness import measure


def data_folder(*logs: str) -> Path:
    """The folder of logs that may not be shipped, which EMBTABLES_DATA names; ends the process if it is not set."""
    folder = os.environ.get("EMBTABLES_DATA")
    if folder is None:
        sys.exit(f"EMBTABLES_DATA is not set: it names a folder with {' and '.join(f'{log}/' for log in logs)}")
    return Path(folder).resolve()


def train_command(config: str, runs: Path | None, *overrides: str) -> list[str]:
    """The command line that trains an example and prints its report as JSON.

    Args:
        runs: folder of runs; None: the one that the configuration or an override names.
    """
    settings = [*([] if runs is None else [f"train.runs_dir={runs}"]), *overrides]
    options = [option for setting in settings for option in ("--set", setting)]
    return [sys.executable, "-W", "ignore", "-m", "embtables", "train", config, "--json", *options]


def seeds_table(reports: Mapping[str, Sequence[dict[str, Any]]], names: Sequence[str]) -> str:
    """One row a contender: mean and range over seeds of each figure (dotted names reach into the report)."""
    rows = []
    for contender, runs in reports.items():
        cells = [contender]
        for name in names:
            values = [_reach(run, name) for run in runs]
            cells.append(f"{sum(values) / len(values):.4f} ({min(values):.4f}-{max(values):.4f})")
        rates = measure.Spread.of([run["rows_per_second"] for run in runs])
        rows.append([*cells, f"{rates.median:,.0f} ({rates.low:,.0f}-{rates.high:,.0f})"])
    return measure.table(["model", *names, "training rows/s"], rows)


def mean(runs: Sequence[dict[str, Any]], name: str) -> float:
    """Mean of one figure over runs."""
    return sum(_reach(run, name) for run in runs) / len(runs)


def _reach(report: dict[str, Any], name: str) -> float:
    value: Any = report
    for part in name.split("."):
        value = value[part]
    return float(value)
