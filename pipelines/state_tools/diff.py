"""`embtables state diff`: two versions compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table as Shown
from rich.text import Text

from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.version import DENSE_FILE, TABLES_FILE, dense_version
from embtables.state.read.merge import MergedTable
from embtables.state.read.saved_version import find_version
from embtables.state.read.version_reader import artifact_digests, read_tensors
from embtables.state.tools.compare import TableDifference, compare_content, compare_rows, compare_tensors

_Chain = tuple[StateFolder, Sequence[Manifest]]
_PATHS = 100  # that are listed; all are counted
_LINES = 12  # of each kind that people are shown


def diff(state_a: StateFolder, a: str, state_b: StateFolder, b: str) -> dict[str, Any]:
    """Everything in which version A and version B differ, as JSON.

    Raises:
        ConfigError: a name is not that of a version.
        StateError: there is no such version, or one of its files is missing or damaged.
    """
    found = find_version(state_a, a), find_version(state_b, b)
    versions, chains = [v.manifest for v in found], [v.chain for v in found]
    tables = {
        name: _table(name, (state_a, chains[0]), (state_b, chains[1]))
        for name in versions[0].tables
        if name in versions[1].tables
    }
    tensors: dict[str, Any] = {}
    dense = [dense_version(chain) for chain in chains]
    for file, (of_a, of_b) in ((TABLES_FILE, versions), (DENSE_FILE, dense)):
        tensors |= compare_tensors(read_tensors(state_a, of_a, file), read_tensors(state_b, of_b, file))
    data = [artifact_digests(chain[0]) for chain in chains]
    paths = list(compare_content(versions[0].content, versions[1].content))
    return {
        "a": versions[0].name,
        "b": versions[1].name,
        "tables": tables,
        "tables_only_in_a": sorted(versions[0].tables.keys() - versions[1].tables.keys()),
        "tables_only_in_b": sorted(versions[1].tables.keys() - versions[0].tables.keys()),
        "tensors": tensors,
        "artifacts": sorted(f for f in data[0].keys() | data[1].keys() if data[0].get(f) != data[1].get(f)),
        "content": paths[:_PATHS],
        "content_differences": len(paths),
    }


def _table(name: str, a: _Chain, b: _Chain) -> dict[str, Any]:
    with MergedTable(*a, name) as rows_a, MergedTable(*b, name) as rows_b:
        found = compare_rows(rows_a, rows_b)
        rows = rows_a.rows, rows_b.rows
    entries = a[1][-1].tables[name], b[1][-1].tables[name]
    lasts = a[1][-1], b[1][-1]
    waiting = [v.rows_of(name, "waiting") for v in lasts]
    sketches = [[v.files[file].xxh3 for file in v.files_of(name, "sketch")] for v in lasts]
    beside = {field: [getattr(e, field) for e in entries] for field in ("now", "steps", "updates")}
    summary = {"rows": list(rows), "waiting": waiting, "same_sketch": sketches[0] == sketches[1], **beside}
    if found is None:
        return summary | {"not_compared": "the tables have different seeds, so that the same keys have other rows"}
    return summary | _rows(found)


def _rows(found: TableDifference) -> dict[str, Any]:
    return {
        "only_a": found.only[0],
        "only_b": found.only[1],
        "same": found.same,
        "changed": found.changed,
        "differs": found.differs,
        # JSON cannot express a number that is not finite.
        "largest": [{"key": k, "l2": norm if math.isfinite(norm) else None} for k, norm in found.largest],
        "layout": found.layout,
    }


def shown(report: dict[str, Any]) -> Group:
    """The report for people, narrow enough for 80 columns."""
    table = Shown(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=f"A {report['a']}, B {report['b']}")
    table.add_column("table", overflow="ellipsis", no_wrap=True, max_width=18)
    for column in ("rows A", "rows B", "only A", "only B", "same", "changed"):
        table.add_column(column, justify="right", no_wrap=True)
    lines: list[str] = []
    for name, found in report["tables"].items():
        if "not_compared" in found:
            table.add_row(name, *(f"{n:,}" for n in found["rows"]))
            lines.append(f"{name}: not compared: {found['not_compared']}")
            continue
        counts = [*found["rows"], *(found[n] for n in ("only_a", "only_b", "same", "changed"))]
        table.add_row(name, *(f"{n:,}" for n in counts))
        lines += _table_lines(name, found)
    for which in ("a", "b"):
        lines += [f"{name}: only in {which.upper()}" for name in report[f"tables_only_in_{which}"]]
    lines += [f"feature {name}: its encoder has other data" for name in report["artifacts"]]
    tensors = [f"tensor {name}: {_tensor(value)}" for name, value in report["tensors"].items()]
    lines += _some(tensors, len(tensors)) + _some(report["content"], report["content_differences"])
    return Group(table, *(Text(line) for line in lines))


def _table_lines(name: str, found: dict[str, Any]) -> list[str]:
    lines = [f"{name}: {text}" for text in found["layout"]]
    differs = ", ".join(f"{column} {count:,}" for column, count in found["differs"].items() if count)
    lines += [f"{name}: rows that differ, by column: {differs}"] if differs else []
    lines += [
        f"{name}: {what} {a:,} in A, {b:,} in B"
        for what in ("waiting", "now", "steps")
        for a, b in [found[what]]
        if a != b
    ]
    if found["largest"]:
        lines.append(f"{name}: largest changes of weights, L2 norm by key:")
        lines += [
            f"  {c['key']:>20}  {'not finite' if c['l2'] is None else format(c['l2'], '.6g')}" for c in found["largest"]
        ]
    return lines


def _tensor(value: str | float | None) -> str:
    if isinstance(value, str):
        return value
    return "differs in values that are not finite" if value is None else f"differs by at most {value:.6g}"


def _some(lines: Sequence[str], count: int) -> list[str]:
    shown = list(lines[:_LINES])
    return [*shown, f"... and {count - len(shown):,} more: --json"] if count > len(shown) else shown
