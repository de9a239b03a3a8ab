"""The `warm_start` section of a run: rows that its tables begin with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from embtables.pipelines.config import WarmStart
from embtables.pipelines.progress import RowProgress, say
from embtables.tables.table_set import Tables
from embtables.warm_start import from_parquet, from_safetensors, parquet, state_dict


def warm(tables: Tables, section: WarmStart, *, shown: bool = True) -> dict[str, Any]:
    """Sets the rows that one entry of the section names; returns what was done, for the run's report.

    Raises:
        ConfigError, DataError: see embtables.warm_start.
    """
    count = state_dict.num_rows if section.is_state_dict else parquet.num_rows
    with RowProgress(f"warm start {section.table or ''}".strip(), count(section.path), shown=shown) as progress:
        if section.is_state_dict:
            found = from_safetensors(tables, section.path, on_rows=progress.advance)
            report = {"path": section.path, **asdict(found)}
        else:
            assert section.table is not None
            assert section.id is not None
            assert section.vector is not None
            done = from_parquet(
                tables,
                section.table,
                section.path,
                id_column=section.id,
                vector_column=section.vector,
                feature=section.feature,
                on_rows=progress.advance,
            )
            report = {"path": section.path, "warmed": [asdict(done)]}
    if shown:
        _say(report)
    return report


def _say(report: dict[str, Any]) -> None:
    for table in report["warmed"]:
        twice = f", {table['duplicates']:,} vectors replaced by later ones" if table["duplicates"] else ""
        say(f"table {table['table']}: {table['rows']:,} rows set from {report['path']}{twice}")
    if report.get("not_here"):
        say(f"not used, because there are no such tables here: {', '.join(report['not_here'])}")
    if report.get("not_there"):
        say(f"unchanged, because {report['path']} has no weights of them: {', '.join(report['not_there'])}")
