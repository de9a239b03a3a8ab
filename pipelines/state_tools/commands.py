"""What `embtables state` shows and does: versions of a run or of any state folder."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.table import Table as Shown

from embtables.errors import ConfigError, StateError
from embtables.models.version_content import step_of
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.manifest import PURPOSES, Purpose
from embtables.state.read.rows import read_rows
from embtables.state.read.saved_version import find_version, list_versions
from embtables.state.tools.compact import compact as compact_chain


def listing(state: StateFolder) -> list[dict[str, Any]]:
    """Every version: what it is, what it holds, how large it is."""
    pins = {pin: state.pinned(pin) for pin in state.pins()}
    found = []
    for purpose in PURPOSES:
        for number in state.sequences(purpose):
            version = state.manifest(purpose, number)
            errors = {table: entry.error for table, entry in version.tables.items() if entry.error is not None}
            found.append(
                {
                    "version": version.name,
                    "kind": "snapshot" if version.parent is None else "delta",
                    "parent": version.parent,
                    "projection": version.projection,
                    "dtype": ", ".join(sorted({entry.dtype for entry in version.tables.values()})) or "fp32",
                    "errors": {table: error.model_dump() for table, error in errors.items()},
                    "written": version.written,
                    "step": step_of(version),
                    "rows": sum(version.rows_of(table, "rows") for table in version.tables),
                    "tombstones": sum(version.rows_of(table, "tombstones") for table in version.tables),
                    "bytes": sum(f.bytes for f in version.files.values()),
                    "pins": [pin for pin, pinned in pins.items() if pinned == (purpose, number)],
                }
            )
    return found


def shown(versions: list[dict[str, Any]]) -> Shown:
    """The listing as a table for people, narrow enough for 80 columns."""
    columns = ("version", "kind", "written", "step", "rows", "gone", "size", "pins")
    table = Shown(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in ("step", "rows", "gone", "size") else "left"
        table.add_column(column, justify=justify, no_wrap=column != "pins", overflow="fold")
    for version in versions:
        written = str(version["written"]).replace("T", " ")[:16]
        counts = [_short(version[name]) for name in ("step", "rows", "tombstones", "bytes")]
        kind = version["kind"] if version["projection"] == "full" else f"{version['kind']}, {version['dtype']}"
        table.add_row(version["version"], kind, written, *counts, ", ".join(version["pins"]))
    return table


def _short(count: int | None) -> str:
    if count is None:
        return ""
    for unit, name in ((1_000_000_000, "G"), (1_000_000, "M")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:,}"


def verify(state: StateFolder, name: str | None) -> dict[str, Any]:
    """Reads every file that a version depends on; without a name, every version there is.

    Raises:
        StateError: naming the first file that is not as it was written.
    """
    names = list_versions(state) if name is None else [name]
    chained = {m.name: m for each in names for m in find_version(state, each).chain}
    for version in chained.values():
        state.verify(version)
    files = [f for m in chained.values() for f in m.files.values()]
    return {"versions": len(chained), "files": len(files), "bytes": sum(f.bytes for f in files)}


def collect(state: StateFolder, keep: int) -> dict[str, Any]:
    """Removes versions beyond the last `keep` of each purpose that nothing needs, and garbage."""
    kept: dict[Purpose, int] = dict.fromkeys(PURPOSES, keep)
    with LeaseHolder(state) as holder:
        freed = holder.collect(kept)
    return {"freed_bytes": freed, "versions": sum(len(state.sequences(purpose)) for purpose in PURPOSES)}


def export(state: StateFolder, table: str, output: Path, name: str | None) -> dict[str, Any]:
    """A table's rows as a version has them, to a parquet file that appears completely or not at all; in bounded memory.

    Raises:
        ConfigError: the output is not the name of a file.
        StateError: there is no such table or version, one of its files is damaged, or the output cannot be written.
    """
    if not output.name or output.name == ".." or output.is_dir():
        raise ConfigError(f"cannot write to '{output}': give the name of a parquet file")
    version = find_version(state, name)
    batches = read_rows(version, table)
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}")
    try:
        rows = _write_parquet(batches, temporary)
        temporary.replace(output)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StateError(f"cannot be written: {reason}", file=output) from error
    finally:
        temporary.unlink(missing_ok=True)
    return {"rows": rows, "version": version.name, "table": table, "output": str(output)}


def _write_parquet(batches: Iterator[pa.RecordBatch], path: Path) -> int:
    """Writes each batch as a row group; returns how many rows there are."""
    first = next(batches)
    rows = int(first.num_rows)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def compact(state: StateFolder, purpose: str | None, keep: int) -> dict[str, Any]:
    """Compacts the newest version of a purpose (by default `resume`, if there is one) and its chain to a snapshot.

    Raises:
        ConfigError: there is no such purpose.
        StateError: as `embtables.state.tools.compact.compact`; or another process writes here.
    """
    if purpose is not None and purpose not in PURPOSES:
        raise ConfigError(f"'{purpose}' is not a purpose: give {' or '.join(PURPOSES)}")
    chosen: Purpose = (
        find_version(state).manifest.purpose if purpose is None else "resume" if purpose == "resume" else "serving"
    )
    with LeaseHolder(state) as holder:
        done = compact_chain(holder, chosen, keep=keep)
    rows = {table: done.version.rows_of(table, "rows") for table in done.version.tables}
    return {
        "version": done.version.name,
        "from": done.chain[-1].name,
        "compacted_versions": len(done.chain),
        "rows": rows,
        "bytes": sum(f.bytes for f in done.version.files.values()),
        "freed_bytes": done.freed_bytes,
        "pins_of_older_versions": done.pins,
    }


def pin(state: StateFolder, name: str, version: str) -> dict[str, Any]:
    """Makes a pin keep a version.

    Raises:
        ConfigError: the pin looks like a version's name or cannot be a file's name, or the version's name is wrong.
        StateError: there is no such version, it is damaged, or another process writes here.
    """
    if re.fullmatch(r"(?!(resume|serving)-\d+$|tmp-)[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}", name) is None:
        raise ConfigError(f"'{name}' cannot be a pin: give letters, digits, _ - and ., and not a version's name")
    with LeaseHolder(state) as holder:
        pinned = find_version(state, version)
        holder.pin(name, pinned.manifest)
    return {"pin": name, "version": pinned.name}
