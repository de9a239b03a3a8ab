"""A report for people: a rich table on stderr."""

from __future__ import annotations

import sys
from typing import Any

from embtables.pipelines.json_text import json_text


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """The report as one JSON line on stdout, or as a table on stderr."""
    if as_json:
        sys.stdout.write(json_text(report) + "\n")
    else:
        show(report)


def show(report: dict[str, Any]) -> None:
    """Prints the report's figures; slices, baselines and tables have rows of their own. Warnings were said before."""
    from rich.table import Table

    from embtables.pipelines.progress import console

    table = Table(show_header=False, box=None, pad_edge=False)
    elsewhere = ("tables", "warm_start", "from", "warnings")
    for name, value in _flat({key: value for key, value in report.items() if key not in elsewhere}, ""):
        table.add_row(name.replace("_", " "), _text(value))
    for name, counts in report.get("tables", {}).items():
        shown = {key: value for key, value in counts.items() if value or key == "rows"}
        figures = (f"{key.replace('_', ' ')} {_text(value)}" for key, value in shown.items())
        table.add_row(f"table {name}", ", ".join(figures))
    console().print(table)


def _flat(content: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in content.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}: ")
        else:
            rows.append((prefix + key, value))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)
