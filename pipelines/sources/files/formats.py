"""Folders that a table format manages: which of their files count is written in the format's log, not in the folder.

A Delta table is read through the `deltalake` library: its current files, and the columns of its partitions with their
types. Iceberg and Hudi tables are recognised and refused: files that they have replaced lie beside those that count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote, urlparse

from embtables.errors import DataError
from embtables.pipelines.sources.files.listing import Listing
from embtables.schema import PartitionType

_UNREAD = {"deletionVectors": "deletion vectors", "columnMapping": "column mapping"}
_TYPES: Mapping[str, PartitionType] = {
    **dict.fromkeys(("byte", "short", "integer", "long"), "int64"),
    **dict.fromkeys(("float", "double"), "float64"),
    "boolean": "bool",
    "date": "date",
    "timestamp": "timestamp",
    "timestamp_ntz": "timestamp",
}


@dataclass(frozen=True)
class TableFiles:
    """The files of a table that count, oldest first, with the values of their partitions as text."""

    paths: list[str]
    partitions: dict[str, dict[str, str | None]]
    types: dict[str, PartitionType]


def managed_files(listing: Listing, path: str) -> TableFiles | None:
    """What a table format says of the folder; None: it is a plain folder.

    Raises:
        DataError: the folder is, or holds, a table that cannot be read.
    """
    root = listing.root.rstrip("/")
    found = _found(listing)
    if found is None:
        return None
    folder, name = found
    if name != "Delta":
        raise DataError(
            f"is {name} table ('{_MARKERS[name]}' lies in it), which is not read: files that the table has replaced "
            "lie beside those that count; write its rows to a plain folder of parquet files and name that",
            path=folder,
        )
    if folder != root or "*" in path:
        raise DataError(f"is a Delta table below {path}; set data.path to the table's own folder", path=folder)
    return _delta(path)


_MARKERS = {"Delta": "_delta_log", "an Iceberg": "metadata/*.metadata.json", "a Hudi": ".hoodie"}


def _found(listing: Listing) -> tuple[str, str] | None:
    """(folder, format) of the first table among the files."""
    for entry in listing.others:
        folder, _, name = entry.rpartition("/")
        if name == "_delta_log":
            return folder, "Delta"
        if name == ".hoodie":
            return folder, "a Hudi"
        if name.endswith(".metadata.json") and folder.endswith("/metadata"):
            return folder.removesuffix("/metadata"), "an Iceberg"
    return None


def _delta(path: str) -> TableFiles:
    try:
        import deltalake
    except ImportError:
        raise DataError(
            "is a Delta table, which is read through the library deltalake: pip install deltalake", path=path
        ) from None
    try:
        table = deltalake.DeltaTable(path)
        features = set(table.protocol().reader_features or ())
        actions = _actions(table)
        fields = {field.name: field.type for field in table.schema().fields}
    except Exception as error:  # the library's errors have no common base that is public
        text = " ".join(str(error).split())
        raise DataError(f"is a Delta table that cannot be read: {text}", path=path) from error
    used = [words for feature, words in _UNREAD.items() if feature in features]
    if used:
        raise DataError(
            f"is a Delta table with {used[0]}, which are not read; rewrite it without them, or write its rows to a "
            "plain folder of parquet files",
            path=path,
        )
    names = list(actions[0]["partition"] or {}) if actions else []
    types: dict[str, PartitionType] = {name: _TYPES.get(str(fields[name].type), "string") for name in names}
    paths, partitions = [], {}
    for action, file in _in_order(actions, table.file_uris()):
        paths.append(file)
        partitions[file] = {name: _text(value) for name, value in (action["partition"] or {}).items()}
    return TableFiles(paths, partitions, types)


def _actions(table: Any) -> list[dict[str, Any]]:
    """One mapping for each file of a Delta table: path, modification_time, partition."""
    import pyarrow as pa

    actions = pa.table(table.get_add_actions(flatten=False))
    kept = [name for name in ("path", "modification_time", "partition") if name in actions.schema.names]
    rows: list[dict[str, Any]] = actions.select(kept).to_pylist()
    return [{"partition": None, **row} for row in rows]


def _in_order(actions: list[dict[str, Any]], uris: list[str]) -> list[tuple[dict[str, Any], str]]:
    """Each file's action and path, by time, so that files that are added later come last."""
    by_name = {uri.rsplit("/", 1)[-1]: uri for uri in uris}
    found = []
    for action in sorted(actions, key=lambda a: (a["modification_time"], a["path"])):
        uri = by_name.get(action["path"].rsplit("/", 1)[-1]) or by_name[unquote(action["path"]).rsplit("/", 1)[-1]]
        parsed = urlparse(uri)
        of_bucket = parsed.netloc + parsed.path
        found.append((action, of_bucket if parsed.scheme not in ("", "file") else parsed.path))
    return found


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime | date) else None if value is None else str(value)
