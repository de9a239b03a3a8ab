"""The rows that a schema is suggested from: all of a table in memory, row groups spread over a log's files."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from embtables.arrow.one_type import cast, one_type
from embtables.arrow.types import plain_type, take_column
from embtables.errors import ConfigError, DataError
from embtables.frames.table import Frame, as_table
from embtables.given import as_path

SAMPLE_ROWS = 1_000_000


@dataclass(frozen=True)
class Sample:
    """Rows of a log.

    Attributes:
        table: the rows.
        total_rows: how many the log has.
        files: how many they come from; 0: from memory.
        left_out: files of the folder that lack the label and were not looked at: side tables, perhaps.
        lacking: columns that some of the files lack.
        clashing: columns that are not in the table, because their types in two files have none in common; with the
            reason.
    """

    table: pa.Table
    total_rows: int
    files: int = 0
    left_out: tuple[str, ...] = ()
    lacking: frozenset[str] = frozenset()
    clashing: Mapping[str, str] = field(default_factory=dict)


def sample_of(data: Frame | Path | str, labels: Sequence[str] = (), most_rows: int = SAMPLE_ROWS) -> Sample:
    """At most `most_rows` rows, the same ones every time.

    Of a folder the files that have the labels are the log; without labels, all files have to have the same columns.

    Args:
        data: a table as `as_table` takes it, or a parquet file, a folder, a glob or a URI.

    Raises:
        DataError: there is no parquet file or no row, or one cannot be read.
        ConfigError: the folder holds several tables and nothing says which is the log.
    """
    if isinstance(data, str | Path):
        as_path(data, "data")
    else:
        table = as_table(data)
        if not table.num_rows:
            raise DataError("holds no rows", table="data")
        return Sample(_every_kth(table, most_rows), table.num_rows)
    try:
        return _of_files(str(data), labels, most_rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(error, str(data)) from error


def _unreadable(error: Exception, path: str) -> DataError:
    text = " ".join(str(error).split()).rstrip(".")
    return DataError(f"cannot be read as parquet: {text}; replace the file that it names, or take it away", path=path)


def largest_table(path: str) -> str:
    """The path if its files are one table; else the path of a file of the one with the most rows.

    Raises:
        DataError: as `sample_of`.
    """
    try:
        rows: Counter[frozenset[str]] = Counter()
        files: dict[frozenset[str], str] = {}
        for fragment in _dataset(path).get_fragments():
            columns = frozenset(fragment.physical_schema.names)
            rows[columns] += fragment.count_rows()
            files.setdefault(columns, fragment.path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(error, path) from error
    widest = max(rows, key=len, default=frozenset[str]())
    return path if all(columns <= widest for columns in rows) else files[rows.most_common(1)[0][0]]


def _every_kth(table: pa.Table, most_rows: int) -> pa.Table:
    """Slices of 1,000 rows, evenly spread."""
    if table.num_rows <= most_rows:
        return table
    slices = max(1, most_rows // 1_000)
    step = table.num_rows / slices
    return pa.concat_tables([table.slice(int(number * step), 1_000) for number in range(slices)])


def _of_files(path: str, labels: Sequence[str], most_rows: int) -> Sample:
    dataset = _dataset(path)
    fragments = list(dataset.get_fragments())
    if not fragments:
        raise DataError("holds no parquet file", path=path)
    columns = {fragment.path: frozenset(fragment.physical_schema.names) for fragment in fragments}
    wanted = set(labels)
    kept = [each for each in fragments if wanted & columns[each.path]] or fragments
    widest = max(columns.values(), key=len)
    if not wanted and not all(names <= widest for names in columns.values()):
        raise ConfigError(f"the folder holds several tables ({_short(columns)}); name the log's file, or a label")
    if wanted and len(kept) == len(fragments) and not wanted & frozenset.union(*columns.values()):
        every = sorted(frozenset.union(*columns.values()))
        raise ConfigError(
            f"no file has the label '{labels[0]}'; there are: {', '.join(every[:40])}. A log of purchases alone has "
            "none: data.prepare makes examples of it (docs/negatives.md)",
            path=path,
        )
    groups = [group for each in kept for group in each.split_by_row_group()]
    # Not count_rows(), which counts the rows of the whole file.
    total = sum(group.row_groups[0].num_rows for group in groups)
    if not total:
        raise DataError("holds no rows", path=path)
    step = max(1, total // most_rows)
    kinds, clashing = _types(kept)
    tables = [_in_types(group, kinds) for group in groups[::step]]
    left_out = tuple(Path(each.path).name for each in fragments if each not in kept)
    return Sample(_every_kth(pa.concat_tables(tables), most_rows), total, len(kept), left_out, _lacking(kept), clashing)


def _types(fragments: Sequence[ds.Fragment]) -> tuple[dict[str, pa.DataType], dict[str, str]]:
    """The one type of each column, under the reader's rule, and why others have none."""
    found: dict[str, list[tuple[pa.DataType, str]]] = {}
    for each in fragments:
        for column in each.physical_schema:
            found.setdefault(column.name, []).append((plain_type(column.type), each.path))
        for name in ds.get_partition_keys(each.partition_expression):
            found.setdefault(name, []).append((pa.large_string(), each.path))
    kinds: dict[str, pa.DataType] = {}
    clashing: dict[str, str] = {}
    for name, of_files in found.items():
        try:
            kinds[name] = one_type(name, of_files, ids=False)
        except DataError as error:
            clashing[name] = error.message
    return kinds, clashing


def _in_types(group: ds.Fragment, kinds: Mapping[str, pa.DataType]) -> pa.Table:
    """The rows of a row group with all columns: of folders as text, those that the file lacks as nulls."""
    table, of_folders = group.to_table(), ds.get_partition_keys(group.partition_expression)
    arrays = []
    for name, kind in kinds.items():
        column = take_column(table, name)
        if column is None:
            value = of_folders.get(name)
            text = pa.scalar(None if value is None else str(value), pa.large_string())
            column = pa.chunked_array([pa.repeat(text, table.num_rows)])
            column = column if name in of_folders else pa.chunked_array([pa.nulls(table.num_rows)])
        arrays.append(cast(column, kind, name=name, file=group.path))
    return pa.table(arrays, names=list(kinds))


def _lacking(fragments: Sequence[ds.Fragment]) -> frozenset[str]:
    """Columns that only some files have."""
    names = [{*each.physical_schema.names, *ds.get_partition_keys(each.partition_expression)} for each in fragments]
    return frozenset.union(*map(frozenset, names)) - frozenset.intersection(*map(frozenset, names))


def _short(columns: dict[str, frozenset[str]]) -> str:
    return ", ".join(Path(path).name for path in sorted(columns)[:5])


def _dataset(path: str) -> ds.Dataset:
    """The parquet files at a path; columns that folders give (`day=7/`) are among its columns, as text."""
    if "://" in path:
        return ds.dataset(path, format="parquet", partitioning=ds.HivePartitioning.discover())
    place = Path(path).expanduser()
    if place.is_dir():
        found = sorted(each for each in place.rglob("*.parquet") if _is_visible(each.relative_to(place)))
        files = [str(each) for each in found]
        names = {part.partition("=")[0] for each in found for part in each.relative_to(place).parts[:-1] if "=" in part}
    elif place.exists():
        files, names = [str(place)], set()
    else:
        files = sorted(glob.glob(str(place), recursive=True))  # noqa: PTH207 (a Path does not glob from a root)
        names = {part.partition("=")[0] for file in files for part in Path(file).parts[:-1] if "=" in part}
    if not files:
        raise DataError("does not exist, or holds no parquet file", path=path)
    of_folders = pa.schema([(name, pa.string()) for name in sorted(names)])
    return ds.dataset(files, format="parquet", partitioning=ds.HivePartitioning(of_folders))


def _is_visible(relative: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in relative.parts)
